"""What distinguishes the CogVideoX checkpoints, read from the shapes of their weights.

CogVideoX (arXiv 2408.06072) and its five releases: 2B, 5B, 5B-I2V, 1.5-5B, 1.5-5B-I2V; CogVideoX-Fun
(aigc-apps/VideoX-Fun): InP, which paints into a clip, and Control, which follows one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...grid import LatentGrid
from ...weights.part import Shapes, lengths
from ...weights.settings import colours, switch, whole
from ..family import FrameRule, LatentSpace, Limits, Takes
from .vae import Schedule

# The VAE of every release (sec. 2.1); two latent cells make a token on each axis.
GRID = LatentGrid(channels=16, stride_t=4, stride_hw=8, lone_first=True, patch_hw=2)
# Latents to RGB for previews, one row a channel: figures fitted by kijai/ComfyUI-CogVideoXWrapper
# (latent_preview.py), to four decimals.
RGB_FACTORS = (
    (0.1195, 0.0992, -0.0048),
    (-0.0012, 0.0550, 0.0213),
    (-0.0141, -0.0087, -0.0210),
    (0.0306, 0.1219, 0.0140),
    (0.0927, 0.0303, 0.0508),
    (0.0379, 0.0494, 0.0586),
    (0.0177, 0.0088, 0.0360),
    (0.1061, 0.0234, 0.0572),
    (0.1274, -0.0110, 0.0433),
    (-0.0187, 0.0822, 0.1061),
    (0.0084, 0.0762, 0.0930),
    (0.1294, 0.1236, 0.0448),
    (0.0457, 0.0411, -0.0177),
    (0.0002, -0.0140, 0.0533),
    (0.0808, 0.1155, -0.0215),
    (-0.0152, -0.0058, 0.0722),
)

SUFFIXES: dict[Takes, str] = {"nothing": "", "image": "-I2V", "inpaint": "-InP", "control": "-Control"}
# of CogVideoX-Fun's noise on the given part of a clip (noise_aug_strength of its pipelines)
KNOWN_NOISE = 0.0563
WIDTH_2B = 1920  # 30 heads of 64; the only release with sin-cos positions and a shifted schedule
LATENT_SCALE_2B = 1.15258426
LATENT_SCALE_5B = 0.7
# The most that a config.json may tell: text tokens, latent cells on a side, pixel frames.
MAX_TEXT_TOKENS, MAX_CELLS, MAX_FRAMES = 4096, 2048, 8193


@dataclass(frozen=True)
class CogVideoXConfig:
    """Sizes and rules of one CogVideoX transformer. Defaults are those of 5B text-to-video."""

    num_layers: int = 42
    num_heads: int = 48
    head_dim: int = 64
    in_channels: int = 16
    out_channels: int = 16
    time_embed_dim: int = 512
    text_dim: int = 4096
    max_text_tokens: int = 226
    patch_size: int = 2
    patch_size_t: int = 1  # 2 for the 1.5 releases, whose patches are cut by a Linear
    rotary: bool = True
    learned_positions: int = 0  # rows of the learned table of 5B-I2V: text tokens + image tokens
    ofs_dim: int = 0  # 512 for 1.5-I2V
    sample_width: int = 90  # latent cells; the base grid of the positions
    sample_height: int = 60
    sample_frames: int = 49  # pixel frames
    latents: LatentSpace = LatentSpace(LATENT_SCALE_5B, RGB_FACTORS)
    image_latent_scale: float = LATENT_SCALE_5B  # 1.0 for 1.5-I2V (zai-org/CogVideo issue 761)
    snr_shift: float = 1.0  # 3.0 for 2B
    noised_image: bool = False  # InP: whether what is given was noised a little in training

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_heads * self.head_dim

    @property
    def takes(self) -> Takes:
        """What lies beside the noise on the channel axis.

        I2V: a first frame. Control: a clip to follow. InP: a mask and a clip to paint into.
        """
        extra = self.in_channels - self.out_channels
        if extra == self.out_channels + 1:
            return "inpaint"
        if extra == 0:
            return "nothing"
        return "image" if self.learned_positions or self.ofs_dim else "control"

    @property
    def image_noise(self) -> float:
        """Standard deviation, in -1..1, of the noise on what InP is given; its VAE sees it."""
        return KNOWN_NOISE if self.noised_image else 0.0

    @property
    def fun(self) -> bool:
        """Whether it is one of CogVideoX-Fun, whose sizes, schedule and frame counts differ from the base's."""
        return self.takes in ("inpaint", "control")

    @property
    def resizes_positions(self) -> bool:
        """Fun's 2B takes its own table of sin-cos positions, resized to the clip."""
        return self.fun and not self.rotary

    @property
    def own_tokens(self) -> tuple[int, int, int]:
        """Tokens along time, height and width of the clip that it was trained on, where a token is one latent frame."""
        p = self.patch_size
        return GRID.latent_frames(self.sample_frames), self.sample_height // p, self.sample_width // p

    @property
    def native_size(self) -> tuple[int, int, int]:
        """(width, height, frames) in pixels that the checkpoint was trained on."""
        if self.patch_size_t > 1:  # the 1.5 releases' config.json names a base grid, not their size
            return (672, 384, 85) if self.fun else (1360, 768, 81)
        return self.sample_width * GRID.stride_hw, self.sample_height * GRID.stride_hw, self.sample_frames

    @property
    def limits(self) -> Limits:
        """5B-I2V has a learned row for every token of its own picture and of the frames it was trained on.

        Fun's 2B has rows for as many frames as it was trained on, of any picture.
        """
        if self.resizes_positions:
            return Limits(max_frames=self.sample_frames)
        if not self.learned_positions:
            return Limits()
        width, height = self.sample_width * GRID.stride_hw, self.sample_height * GRID.stride_hw
        cells = self.sample_width * self.sample_height // self.patch_size**2
        latent_frames = (self.learned_positions - self.max_text_tokens) // cells
        return Limits(max_frames=GRID.pixel_frames(latent_frames), size=(width, height))

    @property
    def schedule(self) -> Schedule:
        """How its clips are cut for decoding: Fun's V1.5 was trained and shipped with a way of its own."""
        return "fun" if self.fun and self.patch_size_t > 1 else "base"

    @property
    def frame_rule(self) -> FrameRule:
        """A token of the 1.5 releases spans two latent frames; Fun's does not add any, but to a lone one."""
        if self.fun and self.patch_size_t > 1:
            return FrameRule(self.patch_size_t, pads=False, lone_frame=True)
        return FrameRule(self.patch_size_t)

    @property
    def variant(self) -> str:
        """The published name of this kind of checkpoint, such as 2B, 5B-I2V, 1.5-5B or Fun-5B-InP."""
        release = "1.5-5B" if self.patch_size_t > 1 else ("5B" if self.rotary else "2B")
        return ("Fun-" if self.fun else "") + release + SUFFIXES[self.takes]


CONFIG_2B = CogVideoXConfig(
    num_layers=30,
    num_heads=WIDTH_2B // 64,
    rotary=False,
    latents=LatentSpace(LATENT_SCALE_2B, RGB_FACTORS),
    image_latent_scale=LATENT_SCALE_2B,
    snr_shift=3.0,
)
# The published networks; 5B-I2V has a learned row for 226 tokens of text and 13 x 30 x 45 of the clip.
PUBLISHED = (
    CONFIG_2B,
    CogVideoXConfig(),
    CogVideoXConfig(in_channels=32, learned_positions=17776),
    CogVideoXConfig(patch_size_t=2),
    CogVideoXConfig(in_channels=32, patch_size_t=2, ofs_dim=512, image_latent_scale=1.0),
    *(replace(CONFIG_2B, in_channels=channels, snr_shift=1.0) for channels in (33, 32)),
    *(CogVideoXConfig(in_channels=channels) for channels in (33, 32)),
    CogVideoXConfig(in_channels=33, patch_size_t=2),
)


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> CogVideoXConfig:
    """Config of a transformer from its key -> shape list in diffusers naming.

    `settings` are the words of a diffusers `config.json` where one lies beside the weights; they decide
    only what no shape can tell (text tokens, base grid, kind of positions). Raises ValueError when the
    shapes belong to no CogVideoX checkpoint that this version knows.
    """
    settings = settings or {}
    width, text_dim = lengths(shapes, "patch_embed.text_proj.weight", 2)
    (head_dim,) = lengths(shapes, "transformer_blocks.0.attn1.norm_q.weight", 1)
    patch_size = whole(settings, "patch_size", GRID.patch_hw, GRID.patch_hw, GRID.patch_hw)
    patch_size_t, in_channels, out_channels = _read_patches(shapes, patch_size)
    learned_positions = _second_axis(shapes, "patch_embed.pos_embedding", 3)
    ofs_dim = _second_axis(shapes, "ofs_embedding.linear_1.weight", 2)
    fun = _is_fun(in_channels, out_channels, knows_image=bool(learned_positions or ofs_dim))
    rotary = switch(settings, "use_rotary_positional_embeddings", width != WIDTH_2B)
    latent_scale = LATENT_SCALE_5B if rotary else LATENT_SCALE_2B
    return CogVideoXConfig(
        num_layers=1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("transformer_blocks.")),
        num_heads=width // head_dim,
        head_dim=head_dim,
        in_channels=in_channels,
        out_channels=out_channels,
        time_embed_dim=lengths(shapes, "time_embedding.linear_1.weight", 2)[0],
        text_dim=text_dim,
        max_text_tokens=whole(settings, "max_text_seq_length", 226, MAX_TEXT_TOKENS),
        patch_size=patch_size,
        patch_size_t=patch_size_t,
        rotary=rotary,
        learned_positions=learned_positions,
        ofs_dim=ofs_dim,
        **_trained_size(settings),
        latents=LatentSpace(latent_scale, *colours(settings, out_channels, RGB_FACTORS)),
        image_latent_scale=1.0 if ofs_dim else latent_scale,
        # Fun's own sampler, a plain DDIM, leaves it out
        snr_shift=1.0 if rotary or fun else 3.0,
        # its config.json tells; of V1.5 there is one release, which was
        noised_image=switch(settings, "add_noise_in_inpaint_model", fun and patch_size_t > 1),
    )


def _second_axis(shapes: Shapes, key: str, axes: int) -> int:
    """Length of the second axis of a tensor; 0 where the checkpoint has none of that name."""
    return lengths(shapes, key, axes)[1] if key in shapes else 0


def _trained_size(settings: Mapping[str, Any]) -> dict[str, int]:
    """Latent cells and pixel frames of the clips that it was trained on, which no shape tells."""
    return {
        "sample_width": whole(settings, "sample_width", 90, MAX_CELLS, GRID.patch_hw),
        "sample_height": whole(settings, "sample_height", 60, MAX_CELLS, GRID.patch_hw),
        "sample_frames": whole(settings, "sample_frames", 49, MAX_FRAMES),
    }


def _read_patches(shapes: Shapes, patch_size: int) -> tuple[int, int, int]:
    """Latent frames of a patch, and the channels of the latents that go in and come out.

    Patches are cut by a convolution of single frames, in the 1.5 releases by a Linear layer of two frames.
    """
    patch_size_t = 1 if len(shapes["patch_embed.proj.weight"]) == 4 else 2
    inputs = lengths(shapes, "patch_embed.proj.weight", 4 if patch_size_t == 1 else 2)[1]
    outputs = lengths(shapes, "proj_out.weight", 2)[0]
    cells = patch_size_t * patch_size**2
    return patch_size_t, inputs if patch_size_t == 1 else inputs // cells, outputs // cells


def untold(config: CogVideoXConfig) -> dict[str, int]:
    """What no shape tells of a transformer, in the words of its config.json."""
    size = {"sample_width": config.sample_width, "sample_height": config.sample_height}
    return {
        "max_text_seq_length": config.max_text_tokens,
        **size,
        "sample_frames": config.sample_frames,
        "use_rotary_positional_embeddings": config.rotary,
        **({"add_noise_in_inpaint_model": config.noised_image} if config.fun else {}),
    }


def _is_fun(in_channels: int, out_channels: int, knows_image: bool) -> bool:
    """Whether the channels are those of a Fun release; ValueError where they are of no release known here."""
    image, inpaint = 2 * out_channels, 2 * out_channels + 1
    if in_channels not in (out_channels, image, inpaint):
        raise ValueError(
            f"CogVideoX transformer with {in_channels} input channels for {out_channels} latent channels: "
            f"this version knows {out_channels} (text to video), {image} (image to video, Fun Control) and {inpaint} "
            "(Fun InP)."
        )
    if in_channels != image and knows_image:
        raise ValueError(
            f"CogVideoX transformer with patch_embed.pos_embedding or ofs_embedding, as I2V releases have, but with "
            f"{in_channels} input channels: those have {image}."
        )
    return in_channels > out_channels and not knows_image
