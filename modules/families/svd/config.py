"""What distinguishes Stable Video Diffusion checkpoints, read from the shapes of their weights.

Stable Video Diffusion (arXiv 2311.15127): svd (14 frames), svd_xt (25 frames) and XT 1.1 have one architecture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...grid import LatentGrid
from ...weights.part import Shapes, check_groups, lengths
from ...weights.settings import REMEDY, brief, colours, whole
from ..family import LatentSpace, Limits
from .temporal import GROUPS

# The image VAE folds 8x8 pixels; the UNet halves its latents three times. Frames lie on the batch axis.
GRID = LatentGrid(channels=4, stride_t=1, stride_hw=8, lone_first=False, patch_hw=8)
LATENT_SCALE = 0.18215
SIGMA_MIN, SIGMA_MAX = 0.002, 700.0  # generative-models, svd_xt.yaml
# Latents of the SD1.x VAE to RGB for previews, one row a channel (ComfyUI, comfy/latent_formats.py, SD15).
RGB_FACTORS = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)
LEVELS = 4
EXVIDEO_SIZE = (512, 512, 128)  # width and height in pixels, frames: ExVideo-SVD-128f-v1
MAX_SIDE, MAX_FRAMES = 8192, 8193  # the most that a config.json may tell, in pixels and frames
MICRO_CONDITIONS = 3  # fps_id, motion_bucket_id, noise_aug_strength


@dataclass(frozen=True)
class SVDConfig:
    """Sizes of one SVD UNet. Defaults are those of the published checkpoints."""

    in_channels: int = 8  # noisy latent and image latent
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # per level; the levels above the last have attention
    num_res_blocks: int = 2  # per level on the way down, one more on the way up
    head_dim: int = 64
    context_dim: int = 1024
    adm_dim: int = 768  # three sinusoids of the micro-conditioning
    num_frames: int = 25  # that the checkpoint was trained on; no shape tells
    width: int = 1024  # pixels, as num_frames
    height: int = 576
    exvideo: bool = False  # saved with ExVideo's temporal layers and positions in place
    latents: LatentSpace = LatentSpace(LATENT_SCALE, RGB_FACTORS)

    @property
    def time_embed_dim(self) -> int:
        """Width of the embedding that every ResBlock receives."""
        return 4 * self.channels[0]

    @property
    def native_size(self) -> tuple[int, int, int]:
        """(width, height, frames) in pixels that the checkpoint was trained on."""
        return self.width, self.height, self.num_frames

    @property
    def limits(self) -> Limits:
        """ExVideo's table of positions has so many rows; plain SVD has none."""
        return Limits(max_frames=EXVIDEO_SIZE[2]) if self.exvideo else Limits()

    @property
    def variant(self) -> str:
        """What this checkpoint is called before a user. The releases differ in training alone."""
        return "UNet with ExVideo" if self.exvideo else "UNet"


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> SVDConfig:
    """Config of a UNet from its key -> shape list in original naming.

    `settings` are the words of a diffusers `config.json`, or of a single file's own metadata; they decide what
    no shape tells: the heads (num_attention_heads or head_dim) and the native size (width, height,
    num_frames). Raises ValueError when the shapes are another model's, such as SV3D's.
    """
    settings = settings or {}
    firsts = (f"input_blocks.{3 * i + 1}.0.out_layers.3.weight" for i in range(LEVELS))
    channels = tuple(lengths(shapes, key, 4)[0] for key in firsts)
    check_groups(channels, GROUPS)
    in_channels = lengths(shapes, "input_blocks.0.0.weight", 4)[1]
    out_channels = lengths(shapes, "out.2.weight", 4)[0]
    adm_dim = lengths(shapes, "label_emb.0.0.weight", 2)[1]
    _check_channels(in_channels, out_channels)
    _check_conditions(adm_dim, settings)
    exvideo = "input_blocks.1.1.positional.embeddings" in shapes
    width, height, num_frames = told_size(settings, EXVIDEO_SIZE if exvideo else SVDConfig().native_size)
    return SVDConfig(
        in_channels=in_channels,
        out_channels=out_channels,
        channels=channels,
        head_dim=_head_dim(channels, settings),
        context_dim=lengths(shapes, "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        adm_dim=adm_dim,
        num_frames=num_frames,
        width=width,
        height=height,
        exvideo=exvideo,
        latents=LatentSpace(LATENT_SCALE, *colours(settings, out_channels, RGB_FACTORS)),
    )


def read_extension_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> SVDConfig:
    """Sizes of the UNet whose 16 temporal transformers an ExVideo file replaces; what it leaves is as published.

    The native size is that of ExVideo's own training, unless `settings` tell another.
    """
    settings = settings or {}
    places = ("input_blocks.1.1", "input_blocks.4.1", "input_blocks.7.1", "middle_block.1")
    channels = tuple(lengths(shapes, f"{place}.time_stack.0.norm_in.weight", 1)[0] for place in places)
    width, height, num_frames = told_size(settings, EXVIDEO_SIZE)
    return SVDConfig(
        channels=channels,
        head_dim=_head_dim(channels, settings),
        context_dim=lengths(shapes, "input_blocks.1.1.time_stack.0.attn2.to_k.weight", 2)[1],
        num_frames=num_frames,
        width=width,
        height=height,
    )


def untold(config: SVDConfig) -> dict[str, int]:
    """What no shape tells of a UNet, in the words of its settings."""
    size = {"width": config.width, "height": config.height, "num_frames": config.num_frames}
    return {"head_dim": config.head_dim, **size}


def told_size(settings: Mapping[str, Any], published: tuple[int, int, int]) -> tuple[int, int, int]:
    """(width, height, frames) as a file tells them, else as published. ValueError unless whole positive numbers."""
    width, height, num_frames = published
    return (
        whole(settings, "width", width, MAX_SIDE),
        whole(settings, "height", height, MAX_SIDE),
        whole(settings, "num_frames", num_frames, MAX_FRAMES),
    )


def _head_dim(channels: tuple[int, ...], settings: Mapping[str, Any]) -> int:
    """Channels per attention head: 64 unless the settings say otherwise. ValueError when heads do not fit."""
    if "head_dim" not in settings and settings.get("num_attention_heads") is not None:
        return _shared_head_dim(channels, settings["num_attention_heads"])
    asked = whole(settings, "head_dim", SVDConfig.head_dim, max(channels))
    if any(count % asked for count in channels):
        raise ValueError(
            f"SVD UNet with {asked} channels per attention head, which {list(channels)} channels do not divide "
            f"into. {REMEDY}"
        )
    return asked


def _shared_head_dim(channels: tuple[int, ...], heads: Any) -> int:
    """The channels per head that a number of heads, or one for each level, comes to."""
    counts = heads if isinstance(heads, list | tuple) else [heads] * len(channels)
    name = "num_attention_heads"
    told = [whole({name: count}, name, 1, most) for count, most in zip(counts, channels, strict=False)]
    dim = channels[0] // told[0] if told else 0
    if len(counts) != len(channels) or any(
        count * dim != width for count, width in zip(told, channels, strict=True)
    ):
        raise ValueError(
            f"SVD UNet with {brief(heads)} attention heads for {list(channels)} channels: every level needs the same "
            f"channels per head. {REMEDY}"
        )
    return dim


def _check_channels(in_channels: int, out_channels: int) -> None:
    """ValueError unless the input is the noise and the image, side by side."""
    if in_channels != 2 * out_channels:
        raise ValueError(
            f"video UNet with {in_channels} input channels for {out_channels} latent channels: SVD takes "
            f"{2 * out_channels}, the noisy latent and the image. Choose svd, svd_xt or svd_xt_1_1."
        )


def _check_conditions(adm_dim: int, settings: Mapping[str, Any]) -> None:
    """ValueError unless the embedding takes three sinusoids of one width. SV3D has one (256) or five (1280)."""
    width = whole(settings, "addition_time_embed_dim", max(1, adm_dim // MICRO_CONDITIONS), MAX_SIDE)
    if adm_dim != MICRO_CONDITIONS * width or not adm_dim:
        known = {256: "SV3D_u", 1280: "SV3D_p"}.get(adm_dim, "no model known here")
        raise ValueError(
            f"its conditioning is {adm_dim} numbers wide, which is {known}; SVD has {MICRO_CONDITIONS} equal parts "
            "(768: fps, motion bucket, noise). Choose svd, svd_xt or svd_xt_1_1."
        )
