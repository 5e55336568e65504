"""The pocket SD's one file: an SD1.5 UNet of any width, TAESD, and a T5 encoder in place of CLIP-L.

The host knows such a UNet and such an autoencoder, but its own loaders want CLIP-L and full width beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .encoders import t5
from .weights.errors import CheckpointError, shown, shown_list
from .weights.files import Header, open_weights, read_header
from .weights.part import Shapes, lengths

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
PARTS = (UNET, VAE, TEXT)
# (output channels, latent channels, rows, columns)
FIRST_CONVOLUTION = "input_blocks.0.0.weight"
LAST_CONVOLUTION = "out.2.weight"
CROSS_ATTENTION = "attn2.to_k.weight"
LATENT_CHANNELS = 4
# tokens that every prompt is cut to and padded up to
MAX_TOKENS = 16
REMEDY = (
    "Choose pocket-sd.safetensors, which comes with this pack in pocket/models/SD; Load Checkpoint takes SD1.5 as it "
    "was published."
)


@dataclass(frozen=True)
class PocketSD:
    """What a pocket SD's header says: the shapes of its parts, in the parts' own names, and its text encoder's sizes."""

    path: Path
    name: str
    unet: Shapes
    vae: Shapes
    text: t5.T5Config

    def open(self, part: str) -> dict[str, Tensor]:
        """The tensors of one of `PARTS`, in its own names and in memory of their own: the file may go."""
        tensors = open_weights(self.path)
        return {
            key.removeprefix(part): tensor.clone() for key, tensor in tensors.items() if key.startswith(part)
        }


def open_pocket(path: str | Path) -> PocketSD:
    """The pocket SD at a path; CheckpointError, by the file's name, for any other file."""
    header = read_header(path)
    try:
        unet, vae, text = (_part(header, prefix) for prefix in PARTS)
        if strange := [key for key in header.shapes if not key.startswith(PARTS)]:
            raise ValueError(f"it holds {len(strange)} other keys ({shown_list(strange)}).")
        return PocketSD(Path(path), header.name, _read_unet(unet), _read_vae(vae), _read_text(text))
    except ValueError as error:
        raise CheckpointError(f"{header.name} is no pocket SD: {error} {REMEDY}") from None


def _part(header: Header, prefix: str) -> Shapes:
    """A part's shapes in its own names; ValueError where the file has none of it."""
    shapes = {
        key.removeprefix(prefix): shape for key, shape in header.shapes.items() if key.startswith(prefix)
    }
    if not shapes:
        raise ValueError(f"nothing in it begins with {prefix}")
    return shapes


def _wanted(shapes: Shapes, key: str, axes: int) -> tuple[int, ...]:
    if key not in shapes:
        raise ValueError(f"it lacks {shown(key)}.")
    return lengths(shapes, key, axes)


def _read_unet(shapes: Shapes) -> Shapes:
    """The shapes of an SD1.5 UNet as they are; ValueError where its two ends or its text are of another kind."""
    first, last = (_wanted(shapes, key, 4) for key in (FIRST_CONVOLUTION, LAST_CONVOLUTION))
    if first[1] != LATENT_CHANNELS or last[0] != LATENT_CHANNELS:
        raise ValueError(
            f"its UNet takes {first[1]} channels and gives {last[0]}, SD1.5 {LATENT_CHANNELS} and {LATENT_CHANNELS}."
        )
    return shapes


def _read_vae(shapes: Shapes) -> Shapes:
    """The shapes of TAESD as they are; ValueError where its latents are not SD1.5's."""
    channels = _wanted(shapes, "taesd_decoder.1.weight", 4)[1]
    if channels != LATENT_CHANNELS:
        raise ValueError(f"its VAE decodes {channels} channels, SD1.5's latents have {LATENT_CHANNELS}.")
    return shapes


def _read_text(shapes: Shapes) -> t5.T5Config:
    """The sizes of a T5 encoder; ValueError unless its keys and shapes are exactly those of these sizes."""
    for key in ("shared.weight", t5.TABLE, t5.FIRST + "q.weight"):
        _wanted(shapes, key, 2)
    sizes = t5.read_config(shapes)
    check_shapes(shapes, t5.key_shapes(sizes), "text encoder")
    return sizes


def check_shapes(found: Shapes, wanted: Mapping[str, tuple[int, ...]], part: str) -> None:
    """ValueError unless a part has exactly the keys and shapes that its sizes ask for."""
    lists = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "misshapen": [key for key in wanted if key in found and tuple(found[key]) != tuple(wanted[key])],
    }
    if faults := "; ".join(
        f"{len(keys)} {word} ({shown_list(keys)})" for word, keys in lists.items() if keys
    ):
        raise ValueError(f"its {part} does not fit: {faults}.")
