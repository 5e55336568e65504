"""A node pack for tests: tiny random SD1.5 and SDXL MODELs of the host, with prompts and latents, and a VAE, in workflows.

Tests link this folder into a server's `custom_nodes`; nobody else has it.
"""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WIDGET = {"default": 0, "min": 0, "max": 2**32 - 1}


def pictures():
    """The module that builds the same for tests in one process with the host."""
    runpy.run_path(str(ROOT / "tools" / "pack.py"))["register"]()
    from kinetograph.tests.host import pictures

    return pictures


class TinySD15:
    """A tiny UNet, positive and negative prompt of random tokens."""

    KIND = "SD15"
    CATEGORY = "testing"
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")
    FUNCTION = "build"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"seed": ("INT", WIDGET)}}

    def build(self, seed):
        made = pictures()
        return made.build(self.KIND, seed), *made.prompts(seed)


class TinySDXL(TinySD15):
    """The same of SDXL."""

    KIND = "SDXL"


class SquaresVAE:
    """A VAE whose pictures tell their latents."""

    CATEGORY = "testing"
    RETURN_TYPES = ("VAE",)
    FUNCTION = "build"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {}}

    def build(self):
        return (pictures().squares_vae(),)


NODE_CLASS_MAPPINGS = {"TinySD15": TinySD15, "TinySDXL": TinySDXL, "SquaresVAE": SquaresVAE}
NODE_DISPLAY_NAME_MAPPINGS = {"TinySD15": "Tiny SD1.5", "TinySDXL": "Tiny SDXL", "SquaresVAE": "Squares VAE"}
