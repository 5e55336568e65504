"""What is done to a long clip's latents between sampling and decoding, so that late frames do not fade."""

from torch import Tensor

EVEN = 1e-4  # a spread below this share of the frame's own values is rounding, not a picture
TINY = 1e-12


def enhance_contrast(z_tchw: Tensor, scale: float, equalise: bool) -> Tensor:
    """Latents of one clip times `scale`; with `equalise` each frame first gets the clip's mean and spread.

    ExVideo (arXiv 2406.14130; modelscope/DiffSynth-Studio 1.1.9, diffsynth/pipelines/svd_video.py): frames are
    standardised over c, h, w with the unbiased deviation, then brought to the clip's own; published scale 1.2.
    A frame of one value becomes the clip's mean.
    """
    if equalise:
        frame_mean, frame_std = z_tchw.mean((1, 2, 3), keepdim=True), z_tchw.std((1, 2, 3), keepdim=True)
        unit_tchw = (z_tchw - frame_mean) / frame_std.clamp_min(TINY).maximum(EVEN * frame_mean.abs())
        z_tchw = unit_tchw * z_tchw.std() + z_tchw.mean()
    return z_tchw * scale
