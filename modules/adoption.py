"""Which family a model in memory belongs to, from its tensors alone: for models that another program loaded."""

from collections.abc import Mapping

from torch import Tensor

from .families import FAMILIES
from .weights.detect import Finding, detect
from .weights.files import DTYPES, Header

WORDS = {dtype: word for word, dtype in DTYPES.items()}  # torch's dtypes in the words of safetensors


def recognise(tensors: Mapping[str, Tensor]) -> Finding:
    """The finding on a diffusion model's state dict; `Finding.complete` says whether it can be taken over."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    dtypes = {key: WORDS.get(tensor.dtype, str(tensor.dtype)) for key, tensor in tensors.items()}
    return detect(Header("The connected MODEL", (), shapes, dtypes, {}), FAMILIES, "diffusion_model")
