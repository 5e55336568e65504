"""`python tools/pack.py kinetograph.pocket.starts`: files that trainings of the pocket models from nothing start with.

They go to a models folder of their own, `pocket/runs/models` if nothing else is said, where the configurations of
`configs/training/pocket` look for them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .parts import CONTROL_SETTINGS, INPAINT_SETTINGS

MODELS = Path(__file__).resolve().parent / "runs" / "models"
# clips on which norms are made to fit
FITTED, FIRST_SEED = 8, 6_000_000

Start = tuple[dict[str, Tensor], dict[str, str]]


def picture_start() -> Start:
    """The pocket PixArt as a network that says "all of it is noise"."""
    from .pixart.parts import TextToPicture, model_settings, start_weights

    torch.manual_seed(0)
    model = TextToPicture()
    start_weights(model)
    return dict(model.transformer.state_dict()), {"config": json.dumps(model_settings())}


def grid_start() -> Start:
    """EasyAnimate's modules, which change nothing, with norms that fit the features of the pocket PixArt."""
    from .pixart.motion import MOTION_SETTINGS, GridMotion

    torch.manual_seed(0)
    net = GridMotion()
    net.fit_norms(FIRST_SEED, FITTED)
    return dict(net.motion.state_dict()), {"config": json.dumps(MOTION_SETTINGS)}


def motion_start() -> Start:
    """AnimateDiff's modules, which change nothing, with norms that fit the features of the pocket SD."""
    from .sd.motion import MotionUNet, build_motion, noisy_clips
    from .sd.parts import open_base
    from .tokens import Vocabulary

    torch.manual_seed(0)
    words = Vocabulary()
    base = open_base(words)
    net = MotionUNet(base.unet, build_motion())
    told = noisy_clips("linear", lambda captions: base.context(words.encode(captions)), FIRST_SEED, FITTED)
    net.fit_norms(*told)
    return dict(net.motion.state_dict()), {}


def fun_start(channels: int) -> Start:
    """The pocket CogVideoX with further channels beside the noise, all of which count nothing."""
    from .shipped import start_weights

    settings = CONTROL_SETTINGS if channels == CONTROL_SETTINGS["in_channels"] else INPAINT_SETTINGS
    return start_weights(channels), {"config": json.dumps(settings)}


STARTS: dict[str, Callable[[], Start]] = {
    "Diffusion_Transformer/pocket-pixart-start": picture_start,
    "Motion_Module/pocket-easyanimate-start": grid_start,
    "animatediff_models/pocket-motion-start": motion_start,
    "CogVideo/pocket-cogvideox-fun-control-start": lambda: fun_start(CONTROL_SETTINGS["in_channels"]),
    "CogVideo/pocket-cogvideox-fun-inp-start": lambda: fun_start(INPAINT_SETTINGS["in_channels"]),
}


def write_start(name: str, models: Path) -> Path:
    """One file; fp32, as small steps are lost in 16 bits."""
    weights, metadata = STARTS[name]()
    file = models / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    stored = {key: value.detach().contiguous() for key, value in weights.items()}
    save_file(stored, file, metadata={"format": "pt", **metadata})
    return file


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--models", type=Path, default=MODELS)
    models = reader.parse_args().models
    for name in STARTS:
        print(write_start(name, models))


if __name__ == "__main__":
    main()
