"""Latents back to frames, a few at a time: into memory, or straight into a file."""

import torch

from .host import decoding, files, progress, values
from .host.api import io
