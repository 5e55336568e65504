"""What distinguishes Stable Video Diffusion checkpoints, read from the shapes of their weights.

Stable Video Diffusion (arXiv 2311.15127): svd (14 frames), svd_xt (25 frames) and XT 1.1 have one architecture.
"""

from dataclasses import dataclass

from ...grid import LatentGrid

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
    rgb_factors: tuple[tuple[float, ...], ...] = RGB_FACTORS  # (channels, 3), for previews only
    rgb_bias: tuple[float, ...] = (0.0, 0.0, 0.0)

    @property
    def time_embed_dim(self) -> int:
        """Width of the embedding that every ResBlock receives."""
        return 4 * self.channels[0]

    @property
    def native_size(self) -> tuple[int, int, int]:
        """(width, height, frames) in pixels that the checkpoint was trained on."""
        return self.width, self.height, self.num_frames

    @property
    def variant(self) -> str:
        """What this checkpoint is called before a user. The releases differ in training alone."""
        return f"SVD ({self.num_frames} frames)"
