"""Where EasyAnimate's motion modules start in the pocket PixArt: they change nothing, and their norms fit its features."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from ..sd.motion import fit_norm, noisy_clips, start_motion
from ..sd.world import FRAMES
from ..shapes import SIZE
from .parts import LAYERS, MODEL, WIDTH, TextToPicture, attend_to_words
from .text import Captions

if TYPE_CHECKING:
    from ...modules.families.easyanimate.model import GridModules

# the clips that the modules are trained on
MOTION_SETTINGS = {"width": SIZE, "height": SIZE, "num_frames": FRAMES}


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
        clips = noisy_clips("pixart", Captions(), first_seed, count)
        fit_modules(self.motion, lambda: self.base(*clips))


def fit_modules(motion: "GridModules", run: Callable[[], object]) -> None:
    """Let what leaves the modules' norms have mean 0 and spread 1 in each channel of what `run` sends through them."""

    def fit(module: Any, inputs: tuple[Any, ...]) -> None:
        fit_norm(module.norm, inputs[0].mT)

    modules = [place.attn_temporal.temporal_transformer for _, place in motion.items()]
    hooks = [module.register_forward_pre_hook(fit) for module in modules]
    run()
    for hook in hooks:
        hook.remove()
