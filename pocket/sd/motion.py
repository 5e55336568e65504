"""The base with motion modules behind its spatial transformers, for training: this pack's own modules, hung in by hooks."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import group_norm

from ..parts import pack
from ..svd.train_unet import attend_in_float32
from .parts import UNET_SETTINGS
from .sampling import Kind, noise_process
from .world import captioned, draw_latents

if TYPE_CHECKING:
    from ...modules.families.animatediff.model import MotionModules
    from ...modules.families.easyanimate.model import GridModules

ROWS = 32  # of the position tables, as v3
LEAST_SPREAD = 0.02
# timestep below which each frame shows by itself where its shape is
LEAST = 200


def build_motion() -> "MotionModules":
    """Motion modules in the layout of v3 at the base's width, at the start of training: they change nothing."""
    pack()
    from kinetograph.modules.families.animatediff.config import MotionConfig
    from kinetograph.modules.families.animatediff.model import MotionModules

    width = UNET_SETTINGS["model_channels"]
    config = MotionConfig(
        channels=tuple(width * mult for mult in UNET_SETTINGS["channel_mult"]),
        layers=UNET_SETTINGS["num_res_blocks"][0],
        rows=ROWS,
    )
    motion = MotionModules(config, attention=attend_in_float32, dtype=torch.float32)
    start_motion(motion)
    return motion


@torch.no_grad()
def start_motion(motion: "MotionModules | GridModules") -> None:
    """Unit gain, small branches; what closes the modules is zero, so that the base starts as it is."""
    small = ("to_out.0.", "net.2.")
    for name, p in motion.named_parameters():
        if p.dim() >= 2:
            nn.init.normal_(p, std=p[0].numel() ** -0.5 * (0.3 if any(part in name for part in small) else 1))
        elif name.endswith("weight"):
            nn.init.ones_(p)
        else:
            nn.init.zeros_(p)
    motion.start()


class MotionUNet(nn.Module):
    """A frozen UNet, and motion modules behind its spatial transformers."""

    def __init__(self, unet: nn.Module, motion: "MotionModules") -> None:
        super().__init__()
        self.unet, self.motion = unet, motion
        self.frames = 1
        # weights in place of a module's own, by place: its MotionLoRA merged in
        self.other: Mapping[str, Mapping[str, Tensor]] = {}
        for place, module in motion.items():
            # a ResBlock, a spatial transformer, and an upsampling in some
            unet.get_submodule(place)[1].register_forward_hook(self._behind(place, module))  # type: ignore[index]

    def _behind(self, place: str, module: nn.Module) -> Any:
        def change(_: nn.Module, __: Any, x_nchw: Tensor) -> Tensor:
            if self.frames == 1:
                return x_nchw
            if place in self.other:
                return functional_call(module, dict(self.other[place]), (x_nchw, self.frames))
            return module(x_nchw, self.frames)

        return change

    def forward(self, x_nchw: Tensor, timestep_n: Tensor, context_nld: Tensor, frames: int) -> Tensor:
        """Epsilon of clips of `frames` frames, side by side on the batch axis; 1: the base alone."""
        self.frames = frames
        return self.unet(x_nchw, timestep_n, context_nld)

    def fit_norms(self, x_nchw: Tensor, timestep_n: Tensor, context_nld: Tensor, frames: int) -> None:
        """Start the modules' norms so that what leaves them has mean 0 and spread 1 in each channel of these clips.

        The base's features lie around plus and minus one, with a spread of a tenth (`parts.start_unet`).
        """
        seen: dict[nn.GroupNorm, Tensor] = {}
        norms = [module.temporal_transformer.norm for _, module in self.motion.items()]
        hooks = [
            norm.register_forward_hook(lambda norm, given, _: seen.update({norm: given[0].detach()}))
            for norm in norms
        ]
        # with gradients modules work on all pixels at once, and call their norms
        self(x_nchw, timestep_n, context_nld, frames)
        for hook in hooks:
            hook.remove()
        for norm, x in seen.items():
            fit_norm(norm, x)


@torch.no_grad()
def fit_norm(norm: nn.GroupNorm, x_ncl: Tensor) -> None:
    """Let what leaves a norm have mean 0 and spread 1 in each channel of this input; any axes may follow the channels."""
    y = group_norm(x_ncl, norm.num_groups, eps=norm.eps).flatten(2)
    norm.weight.copy_(1 / y.std((0, 2)).clamp_min(LEAST_SPREAD))
    norm.bias.copy_(-y.mean((0, 2)) * norm.weight)


def noisy_clips(
    kind: Kind, context: Callable[[list[str]], Tensor], first_seed: int, count: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Clips at levels evenly apart, their frames side by side on the batch axis: x, timesteps, contexts, frames.

    `context` gives the text features (b, l, d) of captions.
    """
    shown = [captioned(first_seed + i) for i in range(count)]
    x0 = draw_latents([one.clip for one in shown])
    frames, process = x0.shape[1], noise_process(kind)
    timesteps = torch.linspace(LEAST, 999, count).long()
    sigma = process.sigmas().float()[timesteps]
    x = process.scaled(process.noisy(x0, torch.randn_like(x0), sigma), sigma)
    told = context([one.caption for one in shown])
    rows = (part.repeat_interleave(frames, 0) for part in (timesteps, told))
    return x.flatten(0, 1), *rows, frames
