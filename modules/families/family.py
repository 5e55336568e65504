"""The records by which a family describes itself: everything a stage or the host needs, and nothing that acts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from torch import Tensor, nn

from ..grid import LatentGrid
from ..noise import Noise
from ..weights.part import Kind, Part, PartsOfFamily, Shapes

__all__ = [
    "AddOn",
    "Clip",
    "Diffusion",
    "Family",
    "FrameRule",
    "Kind",
    "LatentSpace",
    "Limits",
    "Part",
    "Release",
    "Request",
    "Shapes",
    "Shared",
    "Size",
    "Takes",
]

HUB = "https://huggingface.co"
# What a network takes beside noise and prompt: a picture to start from, a clip to paint into, a clip to follow.
Takes = Literal["nothing", "image", "inpaint", "control"]
Size = tuple[int, int, int]  # width and height in pixels, frames


@dataclass(frozen=True)
class LatentSpace:
    """What latents are beside their grid: the factor that makes them of unit variance, and their colours."""

    scale: float
    # (channels, 3) and (3,): a linear map to RGB in -1..1, for previews only
    rgb_factors: tuple[tuple[float, ...], ...]
    rgb_bias: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Limits:
    """What a network cannot go beyond, known from its file's header. None where there is no such limit."""

    # in pixel frames
    max_frames: int | None = None
    # (width, height) in pixels: the only picture that it has positions for
    size: tuple[int, int] | None = None

    def check(self, label: str, width: int, height: int, num_frames: int) -> None:
        """ValueError for a clip, in pixels and pixel frames, that the network called `label` cannot make."""
        if self.size is not None and (width, height) != self.size:
            own = "x".join(map(str, self.size))
            raise ValueError(
                f"{label} has learned positions for {own} pixels: got {width}x{height}, use {own}."
            )
        if self.max_frames is not None and num_frames > self.max_frames:
            raise ValueError(
                f"{label} makes clips of at most {self.max_frames} frames: got {num_frames}. Change num_frames."
            )

    @property
    def text(self) -> str:
        """The limits for people; empty where there are none."""
        frames = "" if self.max_frames is None else f"at most {self.max_frames} frames"
        size = "" if self.size is None else f"{self.size[0]}x{self.size[1]} pixels only"
        return ", ".join(filter(None, (size, frames)))


@dataclass(frozen=True)
class FrameRule:
    """How a network's temporal patches meet clips that do not fill them.

    Frames are added behind and cut off again, or such clips are refused. A lone latent frame may be sampled all the
    same: its network fills the patch by itself.
    """

    # latent frames per token
    multiple: int = 1
    pads: bool = True
    lone_frame: bool = False

    def missing(self, latent_frames: int) -> int:
        """Latent frames to add behind a clip."""
        return 0 if self.lone_frame and latent_frames == 1 else -latent_frames % self.multiple

    def fits(self, latent_frames: int) -> bool:
        """Whether such a clip can be sampled."""
        return self.pads or not self.missing(latent_frames)

    def nearest(self, latent_frames: int) -> int:
        """The longest clip of at most so many latent frames that can be sampled; the shortest where none can."""
        while latent_frames > 1 and not self.fits(latent_frames):
            latent_frames -= 1
        return latent_frames if self.fits(latent_frames) else self.multiple

    def check(self, label: str, latent_frames: int, grid: LatentGrid) -> None:
        """ValueError for a clip that the network called `label` cannot sample, naming those next to it."""
        if self.fits(latent_frames):
            return
        above = latent_frames + self.missing(latent_frames)
        counts = sorted({grid.pixel_frames(count) for count in (self.nearest(latent_frames), above)})
        raise ValueError(
            f"{label} makes clips of {'1 or ' if self.lone_frame else ''}{self.multiple}n latent frames: got "
            f"{grid.pixel_frames(latent_frames)} frames ({latent_frames} latent), use "
            f"{' or '.join(map(str, counts))}. Change num_frames."
        )


@dataclass(frozen=True)
class Clip:
    """A clip as a user asks for it, `count` times in one batch."""

    width: int
    height: int
    num_frames: int
    count: int = 1


@dataclass(frozen=True)
class Shared:
    """A value of one conditioning that all its pictures share: one row, which nobody repeats."""

    value: Tensor


@dataclass(frozen=True)
class Request:
    """What a sampler hands a model beside the noisy latents: the conditioning, as nodes attached it."""

    # of the latents to sample, before CFG doubles the batch
    noise_shape: tuple[int, ...]
    # text or image features (b, l, d)
    context: Tensor | None = None
    # as the VAE gave them, unscaled
    image_latents: Tensor | None = None
    # of one clip, where frames lie on the batch axis and somebody said how many
    clip_frames: int | None = None
    # what else a family is told, by its own names
    numbers: Mapping[str, float] = field(default_factory=dict)
    # (b, 1, t, h, w) over latent cells, 1 where the clip is made anew and 0 where `image_latents` tell what is there
    mask: Tensor | None = None
    # of a video that guides every frame, unscaled
    control_latents: Tensor | None = None

    @property
    def beside(self) -> Takes:
        """What kind of conditioning came beside the prompt."""
        if self.control_latents is not None:
            return "control"
        if self.mask is not None:
            return "inpaint"
        return "nothing" if self.image_latents is None else "image"


@dataclass(frozen=True)
class Diffusion:
    """A family's diffusion network. The functions take its config."""

    grid: LatentGrid
    noise: Callable[[Any], Noise]
    latents: Callable[[Any], LatentSpace]
    # Arguments of the network for a request: tensors to be repeated to the batch, "concat" for the channel axis,
    # shared rows and whole numbers as they are. ValueError says what conditioning is lacking or does not fit.
    conditions: Callable[[Any, Request], Mapping[str, Tensor | Shared | int]]
    # every argument of the network for a clip, random: for benchmarks, tests, estimates and the trainer
    inputs: Callable[[Any, Clip], Mapping[str, Any]]
    # (width, height, frames) in pixels that the checkpoint was trained on
    native_size: Callable[[Any], Size]
    # activation memory of a step, in units of the host's estimate
    memory_factor: Callable[[Any], float]
    takes: Callable[[Any], Takes]
    # standard deviation, in -1..1, of the noise on the pictures that it takes
    image_noise: Callable[[Any], float]
    limits: Callable[[Any], Limits] = lambda config: Limits()
    frame_rule: Callable[[Any], FrameRule] = lambda config: FrameRule()


@dataclass(frozen=True)
class AddOn:
    """Weights that go into another family's network: what they fit, what they bring, where their layers go."""

    part: Part
    # ids of the families that it fits
    bases: tuple[str, ...]
    # ValueError when its config is not that of a network: (the file's name, its config, the network's)
    check_fit: Callable[[str, Any, Any], None]
    limits: Callable[[Any], Limits]
    # frames, latent height, latent width; ValueError when such a clip does not fit
    check_clip: Callable[[int, int, int], None]
    # (place in the network, layers that replace those of the same names there) of the built module
    insert: Callable[[Any], Iterable[tuple[str, nn.Module]]]
    # the schedule it was trained with, where that is not the network's
    noise: Callable[[Any], Noise] | None = None


@dataclass(frozen=True)
class Release:
    """One published file or folder: of a family, or beside one."""

    # as people call it
    name: str
    # owner/name at the hub, or the address of what lies elsewhere
    repository: str
    # the file's or folder's path there; a pattern such as *.safetensors where its name is not on record
    file: str
    kind: Kind | Literal["lora", "base"]
    variant: str
    # None where no public record tells
    bytes: int | None = None
    sha256: str | None = None
    # that it was trained on, of a network for people to choose: one row of README's table
    size: Size | None = None
    # key of the model folder that it goes into; empty where it is not for download by its name
    folder: str = ""
    # the name it gets there, where that is not its own
    save_as: str = ""
    # names of the releases that it does not run without
    needs: tuple[str, ...] = ()
    # as its page says; the hub's own word of the moment counts
    licence: str = ""
    # whether its page wants its terms accepted
    gated: bool = False
    # of the file or folder, as its page says; exact in `bytes` where that is known
    gigabytes: float | None = None

    @property
    def is_at_hub(self) -> bool:
        """Whether it lies at the hub, and not at a store of its own."""
        return not self.repository.startswith("https://")

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files."""
        return not PurePosixPath(self.file).suffix

    @property
    def place(self) -> str:
        """Where it lies below its model folder: a file by its name, a folder inside that of its repository."""
        if self.is_folder:
            return f"{PurePosixPath(self.repository).name}/{self.file}"
        return self.save_as or PurePosixPath(self.file).name

    @property
    def address(self) -> str:
        """Where a browser finds it: the file itself, or the page that lists it."""
        if not self.is_at_hub:
            return f"{self.repository}/{self.file}"
        if "*" in self.file:
            return f"{HUB}/{self.repository}/tree/main"
        return f"{HUB}/{self.repository}/{'tree' if self.is_folder else 'resolve'}/main/{self.file}"


@dataclass(frozen=True)
class Family(PartsOfFamily):
    """One video-diffusion system: its parts, its published files, and its network where that is not the host's."""

    releases: tuple[Release, ...] = ()
    diffusion: Diffusion | None = None

    @property
    def network(self) -> Diffusion:
        """What it says of its network; ValueError where that is the host's."""
        if self.diffusion is None:
            raise ValueError(f"The network of {self.label} is the host's own.")
        return self.diffusion
