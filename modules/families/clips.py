"""Conditioning of clips whose frames lie on the batch axis."""

from torch import Tensor

from .family import Request


def clip_frames(request: Request, giver: str = "every node") -> int:
    """Frames of one clip; the batch axis may hold several clips behind each other.

    Raises ValueError when the latents are no whole number of clips; `giver` is the node that made the conditioning.
    """
    total = request.noise_shape[0]
    frames = request.clip_frames or total
    if total % frames:
        raise ValueError(
            f"The latent holds {total} frames, the conditioning is for clips of {frames}: give {giver} "
            "the latent that goes into the sampler."
        )
    return frames


def per_frame(values: Tensor, request: Request, frames: int, name: str) -> Tensor:
    """Values of one row as they are, values of a whole clip repeated for every clip of the batch."""
    if values.shape[0] == 1:
        return values
    if values.shape[0] != frames:
        raise ValueError(
            f"The conditioning holds {name} of {values.shape[0]} frames, a clip has {frames}: give one picture, "
            "or one for every frame."
        )
    return values.repeat(request.noise_shape[0] // frames, *[1] * (values.ndim - 1))
