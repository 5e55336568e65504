"""A tiny PixArt with EasyAnimate v1's motion module: what several tests of both begin with."""

import torch

from kinetograph.tests.host.workbench import OWN, Workbench, run
from kinetograph.tests.tiny_pixart import FRAMES, SIZE

FOLDER = "Diffusion_Transformer/tiny-pixart"
SIZED = f"{FOLDER}-1024"
MODULE = "Motion_Module/tiny-easyanimate-mm.safetensors"
PORTRAIT = "Motion_Module/tiny-portrait.safetensors"
LORA = "Motion_Module/tiny-portrait-lora.safetensors"
WORDS = "A Red circle"


class PixArtBench(Workbench):
    """The nodes, and PixArt with motion and without."""

    def pixart(self, model=FOLDER, **changes):
        """A fresh (MODEL, CLIP, VAE)."""
        choice = {"model": model, "text_encoder": OWN, "vae": OWN, "weight_dtype": "fp32"}
        choice |= {"personalized": "none", "captions": "lower case", **changes}
        return run(self.ours["PixArtLoader"], **choice)

    def parts(self, model=FOLDER):
        """The same for all tests: nobody may leave a trace on them."""
        if model not in self._loaded:
            self._loaded[model] = self.pixart(model)
        return self._loaded[model]

    def move(self, model, module=MODULE, **changes):
        told = {"beta_schedule": "as trained", "strength": 1.0, "version": "from the file", "num_frames": 0}
        told |= {"motion_module": module, **changes}
        return run(self.ours["MotionModuleApply"], model=model, **told)[0]

    def problem(self, model=FOLDER, text_encoder=OWN, vae=OWN, personalized="none", captions="lower case"):
        """What the loader says at the post; True for files that fit."""
        return self.ours["PixArtLoader"].validate_inputs(model, text_encoder, vae, personalized, captions)

    def empty(self, frames=FRAMES, width=SIZE, height=SIZE, clips=1):
        """Latents of clips, with the same noise for a frame whatever batch it is in."""
        samples = torch.zeros(clips * frames, 4, height // 8, width // 8)
        return {"samples": samples, "num_frames": frames, "batch_index": [*range(clips * frames)]}

    def prompts(self, clip=None, words=WORDS):
        clip = clip or self.parts()[1]
        return {
            side: run(self.host.CLIPTextEncode, clip=clip, text=text)[0]
            for side, text in (("positive", words), ("negative", ""))
        }

    def settings(self, model, latent, **changes):
        if "positive" not in changes:
            changes |= self.prompts()
        return super().settings(model, latent, **{"scheduler": "normal", "steps": 2, **changes})

    def stack(self, model, clip=None, lora=LORA, strength=0.55, text_strength=0.55, allow_partial=False):
        """(MODEL, CLIP, report) of LoRA Stack."""
        rows = {"loras": "1", "lora_1": lora, "strength_1": strength, "text_strength_1": text_strength}
        return run(self.ours["LoRAStack"], model=model, clip=clip, loras=rows, allow_partial=allow_partial)


def part_of(latent, number, frames=FRAMES):
    """One clip of several."""
    place = slice(number * frames, (number + 1) * frames)
    cut = {key: latent[key][place] for key in ("samples", "batch_index")}
    return {**latent, **cut}
