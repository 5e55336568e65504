"""The video-diffusion systems this project knows. A new one is one folder and one line here."""

from .cogvideox import FAMILY as COGVIDEOX
from .family import Family
from .svd import FAMILY as SVD

FAMILIES: tuple[Family, ...] = (COGVIDEOX, SVD)
