"""The temporal half of a Video ResBlock, shared by the UNet and the VAE decoder.

Stable Video Diffusion (arXiv 2311.15127), appendix D; parameter names of Stability-AI/generative-models.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.operations import Operations, is_recorded
from ...layers.temporal import add_change, conv_over_time, to_clips

EPS = 1e-5
GROUPS = 32


class TemporalResBlock(nn.Module):
    """Norm, SiLU and a convolution over time, twice, mixed into the frames it starts from.

    Norms take statistics over a whole clip.
    """

    def __init__(self, channels: int, emb_dim: int | None, eps: float, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.in_layers = nn.ModuleList(_layers(channels, eps, ops, factory, before_conv=1))
        if emb_dim is not None:
            self.emb_layers = nn.ModuleList([nn.Identity(), ops.Linear(emb_dim, channels, **factory)])
        self.out_layers = nn.ModuleList(_layers(channels, eps, ops, factory, before_conv=2))

    def forward(self, x_nchw: Tensor, frames: int, share: Tensor, emb_bte: Tensor | None = None) -> Tensor:
        """(1 - share) x + share (x + change) of frames, `frames` per clip; in place without a graph.

        `share` is that of the temporal half and broadcasts to (b, c, t, h * w); `emb_bte`, a row per clip
        or per frame, has passed its SiLU.
        """
        return add_change(x_nchw, self._change(x_nchw, frames, emb_bte), frames, share)

    def _change(self, x_nchw: Tensor, frames: int, emb_bte: Tensor | None) -> Tensor:
        y_bcn = activate(self.in_layers[0](to_clips(x_nchw, frames)))
        y_bcn = conv_over_time(self.in_layers[2], y_bcn, frames, self.ops)
        if emb_bte is not None:
            emb_bct1 = self.emb_layers[1](emb_bte).transpose(1, 2)[..., None]
            y_bctl = y_bcn.unflatten(2, (frames, -1))
            y_bctl = y_bctl + emb_bct1 if is_recorded() else y_bctl.add_(emb_bct1)
            y_bcn = y_bctl.flatten(2)
            del y_bctl
        y_bcn = activate(self.out_layers[0](y_bcn))
        return conv_over_time(self.out_layers[3], y_bcn, frames, self.ops)


def _layers(channels: int, eps: float, ops: Operations, factory: dict, before_conv: int) -> list[nn.Module]:
    """A norm, what has no weights, a convolution: numbered as in the checkpoints."""
    norm = ops.GroupNorm(GROUPS, channels, eps=eps, **factory)
    conv = ops.Conv3d(channels, channels, kernel_size=(3, 1, 1), padding=(1, 0, 0), **factory)
    return [norm, *(nn.Identity() for _ in range(before_conv)), conv]


def activate(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else reads; in place unless a graph is being recorded."""
    return F.silu(x, inplace=not is_recorded())
