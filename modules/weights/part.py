"""What this project knows of one kind of checkpoint file."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import nn

from ..layers.operations import TorchOperations
from .keymap import KeyMap

Shapes = Mapping[str, tuple[int, ...]]
Kind = Literal[
    "diffusion_model",
    "vae",
    "tiny_vae",  # TAESD, where there is no VAE
    "text_encoder",
    "image_encoder",  # CLIP vision
    "image_vae",  # encodes the picture a video starts from, where that is not the VAE
    "extension",  # weights that take the place of some of the diffusion model's
    "motion_module",  # layers beside those of an image model
    "sparse_control",  # a network beside an image model's that takes key frames
]


def uninitialised(layer: type[nn.Module]) -> type[nn.Module]:
    """A kind of layer that draws no random numbers: most of the time a model takes to build goes there."""
    return type(layer.__name__, (layer,), {"reset_parameters": lambda self: None})


class EmptyOperations(TorchOperations):
    """PyTorch's layers without values, for modules whose weights come from a file."""

    Linear = uninitialised(nn.Linear)
    Conv2d = uninitialised(nn.Conv2d)
    Conv3d = uninitialised(nn.Conv3d)
    LayerNorm = uninitialised(nn.LayerNorm)
    GroupNorm = uninitialised(nn.GroupNorm)
    Embedding = uninitialised(nn.Embedding)


def lengths(shapes: Shapes, key: str, axes: int) -> tuple[int, ...]:
    """The shape of a weight; ValueError unless it has so many axes and none of them is empty."""
    shape = shapes[key]
    if len(shape) != axes or not all(shape):
        raise ValueError(
            f"{key} has the shape {tuple(shape)}: {axes} axes with at least one number each fit. Use the file as it was "
            "published."
        )
    return tuple(shape)


def check_groups(channels: Iterable[int], groups: int) -> None:
    """ValueError unless norms of so many groups fit layers of so many channels."""
    channels = tuple(channels)
    if any(count % groups for count in channels):
        raise ValueError(
            f"its layers have {', '.join(map(str, channels))} channels, which norms of {groups} groups do not divide. "
            "Use the file as it was published."
        )


def count_numbered(shapes: Shapes, place: str) -> int:
    """How many numbered parts lie at a place, such as "encoder.down.", by the highest number there."""
    found = (key.removeprefix(place).split(".")[0] for key in shapes if key.startswith(place))
    return 1 + max((int(number) for number in found), default=-1)


def _pointless(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape without the size of a one-pixel kernel; (c, c, 1, 1) and (c, c) compute the same."""
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


class NodeName(NamedTuple):
    """A node as programs call it and as people see it."""

    id: str
    title: str


@dataclass(frozen=True)
class Part:
    """One checkpoint file's worth of a family: how to know it, rename it, size it and build it."""

    kind: Kind
    # keys, in our naming, that no other part has all of; `read_config` works with these alone
    signature: tuple[str, ...]
    # name of a dialect -> its keys to ours, the most specific first
    dialects: Mapping[str, KeyMap]
    # (shapes in our naming, config.json) -> config
    read_config: Callable[[Shapes, Mapping[str, Any] | None], Any]
    # config -> published name
    variant: Callable[[Any], str]
    # build(config, ops=, dtype=, device=); None where the host builds it
    build: type[nn.Module] | None
    # model folders in which it may lie, by the host's names or ours, in the order in which they are searched
    folders: tuple[str, ...]
    # the one that a user puts the file into
    folder: str
    # the node that loads it
    node: NodeName
    # what it is called inside a diffusers pipeline
    components: tuple[str, ...] = ()
    # config -> shapes, for what the host builds
    host_shapes: Callable[[Any], Shapes] | None = None
    # config -> what no shape tells of it, in the words of its settings: it goes into files that the host saves
    untold: Callable[[Any], Mapping[str, int]] = lambda config: {}
    # keys beside the weights -> the names under which they go to the host
    extras: KeyMap = KeyMap()
    # the only prefixes it is recognised under, where other models have the same keys; empty: any prefix
    prefixes: tuple[str, ...] = ()
    # whose -> how LoRA files alone name its modules, beside the dialects
    lora_names: Mapping[str, KeyMap] = field(default_factory=dict)
    # configs of the published files: what a LoRA file was made for is told by them
    published: tuple[Any, ...] = ()
    # the model folder of the LoRA files for it
    lora_folder: str = "loras"
    # whether some dialect stores 1x1 convolutions as Linear layers, or Linear layers as 1x1 convolutions
    pointwise: bool = False

    def is_under(self, prefix: str) -> bool:
        """Whether the part may lie below this prefix."""
        return not self.prefixes or prefix.endswith(self.prefixes)

    def empty(self, config: Any) -> nn.Module:
        """The part's module on the meta device: no memory taken, no random numbers drawn."""
        if self.build is None:
            raise ValueError(f"The {self.kind} of this family is built by the host.")
        return self.build(config, ops=EmptyOperations, device="meta")

    def fits(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """Whether a stored weight is the one wanted, be it in another shape."""
        return shape == wanted or (self.pointwise and _pointless(shape) == _pointless(wanted))

    def shapes(self, config: Any) -> Shapes:
        """Key -> shape of every weight that a checkpoint of this config holds, in our naming."""
        if self.host_shapes is not None:
            return self.host_shapes(config)
        return {key: tuple(value.shape) for key, value in self.empty(config).state_dict().items()}


@dataclass(frozen=True)
class Stranger:
    """A kind of file that lies beside a family's own and is none of them, known by its keys."""

    # as people know it
    label: str
    # what follows "NAME is ": what it is, and what to do
    what: str
    # each fits some key of the file
    signs: tuple[re.Pattern[str], ...]
    # fits none of them
    without: re.Pattern[str] | None = None

    def fits(self, keys: Collection[str]) -> bool:
        """Whether a file with these keys is one."""
        return all(any(map(sign.search, keys)) for sign in self.signs) and not (
            self.without and any(map(self.without.search, keys))
        )


@dataclass(frozen=True)
class PartsOfFamily:
    """The parts of one family, as far as a file is concerned."""

    id: str
    label: str
    parts: Mapping[Kind, Part]
    # files that are often taken for its own
    strangers: tuple[Stranger, ...] = ()
