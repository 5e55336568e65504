"""Conditioning by text features."""

from torch import Tensor


def check_text_width(context_bld: Tensor, width: int, checkpoint: str) -> Tensor:
    """The features; ValueError when the prompt was encoded by a text encoder of another width than `checkpoint` takes."""
    if context_bld.shape[-1] != width:
        raise ValueError(
            f"The prompt was encoded to {context_bld.shape[-1]} numbers a token, this {checkpoint} checkpoint takes "
            f"{width}: use the CLIP output of the loader that loaded the model."
        )
    return context_bld
