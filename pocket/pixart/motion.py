"""Where EasyAnimate's motion modules start in the pocket PixArt: they change nothing, and their norms fit its features."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..sd.motion import fit_norm, start_motion
from ..sd.sampling import noise_process
from ..sd.world import captioned, draw_latents
from .parts import LAYERS, MODEL, WIDTH, TextToPicture, attend_to_words
from .text import Captions

if TYPE_CHECKING:
    from ...modules.families.easyanimate.model import GridModules


def build_motion() -> "GridModules":
    """EasyAnimate's modules at the base's width, at the start of training: they change nothing."""
    from kinetograph.modules.families.easyanimate.config import GridConfig
    from kinetograph.modules.families.easyanimate.model import GridModules

    motion = GridModules(GridConfig(LAYERS, WIDTH), attention=attend_to_words, dtype=torch.float32)
    start_motion(motion)
    return motion


class GridMotion:
    """The shipped base with new motion modules in its blocks."""

    def __init__(self) -> None:
        self.base = TextToPicture().eval()
        weights = {key: value.float() for key, value in load_file(MODEL).items()}
        self.base.transformer.load_state_dict(weights, strict=False)
        self.motion = build_motion()
        self.motion.put_into(self.base.transformer)

    def fit_norms(self, first_seed: int, count: int) -> None:
        """Let the modules' norms fit clips at all noise levels."""
        fit_modules(self.motion, lambda: self.base(*noisy_clips(first_seed, count)))


def fit_modules(motion: "GridModules", run: Callable[[], object]) -> None:
    """Let what leaves the modules' norms have mean 0 and spread 1 in each channel of what `run` sends through them."""

    def fit(module: Any, inputs: tuple[Any, ...]) -> None:
        fit_norm(module.norm, inputs[0].mT)

    modules = [place.attn_temporal.temporal_transformer for _, place in motion.items()]
    hooks = [module.register_forward_pre_hook(fit) for module in modules]
    run()
    for hook in hooks:
        hook.remove()


def noisy_clips(first_seed: int, count: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Clips at levels evenly apart, as the base takes them: x, timesteps, contexts, frames."""
    shown = [captioned(first_seed + i) for i in range(count)]
    x0 = draw_latents([one.clip for one in shown])
    frames, process = x0.shape[1], noise_process("pixart")
    timesteps = torch.linspace(200, 999, count).long()
    sigma = process.sigmas().float()[timesteps]
    x = process.scaled(process.noisy(x0, torch.randn_like(x0), sigma), sigma)
    context = Captions()([one.caption for one in shown])
    rows = (part.repeat_interleave(frames, 0) for part in (timesteps, context))
    return x.flatten(0, 1), *rows, frames
