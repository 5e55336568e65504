"""Tensors to the bytes that an encoder takes."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import VideoError

FAR_OUT = 8.0  # beyond it a value is no overshoot but another scale


@dataclass(frozen=True)
class Audio:
    """Sound as (channels, samples) floats in -1..1."""

    waveform: Tensor
    sample_rate: int

    def __post_init__(self) -> None:
        channels, samples = self.waveform.shape if self.waveform.ndim == 2 else (0, 0)
        if not 1 <= channels <= 8 or samples < 1 or not 1000 <= self.sample_rate <= 384_000:
            raise VideoError(
                "audio must hold 1 to 8 channels, at least one sample and a sample rate of 1000 to 384000 Hz: "
                f"got shape {tuple(self.waveform.shape)} at {self.sample_rate} Hz. Disconnect it or repair it."
            )
        if not bool(torch.isfinite(self.waveform).all()):
            raise VideoError("audio holds NaN or infinite samples: disconnect it or make it again.")

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.waveform.shape[1], self.sample_rate)


def to_pixels(frame_hwc: Tensor, index: int, deep: bool) -> np.ndarray:
    """One frame as contiguous uint8, or uint16 when `deep`, however the tensor lies in memory.

    VideoError names a frame that is not finite.
    """
    whole = _quantised(frame_hwc.detach(), index, 65535 if deep else 255)
    # A torch of today counts to 65535 in int32 only. Strides live through every step up to here, and the
    # encoder takes bytes as they lie.
    pixels = whole.to(torch.int32 if deep else torch.uint8).numpy()
    return np.ascontiguousarray(pixels, np.uint16 if deep else np.uint8)


def _quantised(frame_hwc: Tensor, index: int, top: int) -> Tensor:
    """Whole numbers from 0 to `top`, strided as the frame is."""
    if frame_hwc.dtype == torch.uint8:
        return frame_hwc.cpu() if top == 255 else frame_hwc.cpu().to(torch.int32) * 257
    frame = frame_hwc.to("cpu", torch.float32)
    low, high = (float(edge) for edge in frame.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(frame)).sum())
        raise VideoError(
            f"Frame {index} holds {bad} values that are NaN or infinite, of {frame.numel()}: nothing was saved. "
            "Load the model and the VAE in bf16 or fp32, and check LoRA strengths and cfg."
        )
    if low < -FAR_OUT or high > FAR_OUT:
        raise VideoError(
            f"Frame {index} runs from {low:.4g} to {high:.4g}: frames must lie in 0..1, rescale them."
        )
    return (frame * top).round_().clamp_(0, top)


def with_alpha(frames_fhwc: Tensor, alpha: bool) -> Tensor:
    """Frames of 3 or 4 channels as 4 when `alpha`, opaque where they had none, and as 3 otherwise."""
    if frames_fhwc.shape[-1] == 4 or not alpha:
        return frames_fhwc[..., : 3 + alpha]
    opaque = 255 if frames_fhwc.dtype == torch.uint8 else 1.0
    return torch.nn.functional.pad(frames_fhwc, (0, 1), value=opaque)


def write_samples(path: Path, waveform: Tensor, samples: int) -> None:
    """Interleaved 32-bit floats, filled with silence up to `samples`."""
    sound = waveform.detach().to("cpu", torch.float32).clamp(-1, 1).T.contiguous().numpy()
    silence = np.zeros((samples - sound.shape[0], sound.shape[1]), np.float32)
    with path.open("wb") as stream:
        stream.write(sound.astype("<f4").tobytes())
        stream.write(silence.tobytes())
