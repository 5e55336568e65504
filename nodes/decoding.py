"""Latents back to frames, a few at a time: into memory, or straight into a file."""


