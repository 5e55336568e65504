"""Tiny image MODELs of the host with tiny motion modules: what several tests of the node begin with."""

import torch

from kinetograph.tests import motion_files
from kinetograph.tests.host import pictures
from kinetograph.tests.host.workbench import Workbench, run

FOLDER = "animatediff_models"
FRAMES, SIZE = 5, 64


class MotionBench(Workbench):
    """The nodes, a tiny SD1.5 and SDXL of the host, and a motion file of every release."""

    def __init__(self, base):
        super().__init__()
        self.folder = base / "models" / FOLDER
        self.files = self._names(motion_files.write_all(self.folder))
        self.small = self._names(motion_files.write_all(self.folder, motion_files.SMALL, "small"))

    @staticmethod
    def _names(paths):
        return {version: f"{FOLDER}/{path.name}" for version, path in paths.items()}

    def base(self, version="v2", **changes):
        """A fresh image MODEL of the kind that a release goes into."""
        return pictures.build("SDXL" if version == "SDXL beta" else "SD15", **changes)

    def move(self, model, version="v2", **changes):
        """What the node makes of a MODEL."""
        levels = model.model.model_config.unet_config["channel_mult"]
        file = (self.small if len(levels) == 2 else self.files)[version]
        chosen = {"motion_module": file, "beta_schedule": "as trained", "strength": 1.0}
        chosen |= {"version": "from the file", "num_frames": 0, **changes}
        return run(self.ours["MotionModuleApply"], model=model, **chosen)[0]

    def empty(self, frames=FRAMES, size=SIZE, clips=1):
        """Latents of clips, told by num_frames as Video Latent does."""
        return {"samples": torch.zeros(clips * frames, 4, size // 8, size // 8), "num_frames": frames}

    def settings(self, model, latent, **changes):
        if "positive" not in changes:
            changes["positive"], changes["negative"] = pictures.prompts()
        return super().settings(model, latent, **changes)


class Calls:
    """Records what goes into the network of a MODEL and what comes out; `model` is the clone to sample with."""

    def __init__(self, model):
        from comfy.patcher_extension import WrappersMP

        self.seen = []
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_calls", self)

    def __call__(self, executor, x, timestep, context=None, y=None, *args, **kwargs):
        result = executor(x, timestep, context, y, *args, **kwargs)
        self.seen.append({"x": x, "timestep": timestep, "context": context, "y": y, "out": result.clone()})
        return result


def bit_for_bit(model):
    """The same with a node that looks at cross-attention: text is then read for every frame, as the host reads it."""
    clone = model.clone()
    clone.set_model_attn2_patch(lambda n, context, value, options: (n, context, value))
    return clone
