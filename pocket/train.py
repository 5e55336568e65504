"""`python -m pocket.train PART`: each part goes on from where it was stopped.

CogVideoX: vae, transformer, ship, outlines, ship_outlines, image, ship_image. SVD: svd_vision, svd_vae, svd_unet, ship_svd.
SD: sd_vae, sd_base, sd_motion, sd_pan_left, sd_pan_right, sd_pans, ship_sd.
"""

import argparse
import os
from pathlib import Path

RUNS = Path(__file__).resolve().parent / "runs"


def run_cogvideox(part: str, runs: Path, steps: int | None) -> None:
    """One part of the CogVideoX pocket models."""
    vae_run, transformer_run = runs / "vae", runs / "transformer"
    if part == "vae":
        from .train_vae import train_vae

        train_vae(vae_run)
    elif part == "transformer":
        from .train_transformer import train_transformer

        train_transformer(transformer_run, vae_run, steps or 3000)
    elif part == "outlines":
        from .train_outlines import train_outlines

        train_outlines(runs / part, steps or 4000)
    elif part == "ship_outlines":
        from .train_outlines import ship_outlines

        ship_outlines(runs / "outlines")
    elif part == "image":
        from .train_image import train_image

        train_image(runs / "image", transformer_run, vae_run, steps or 3000)
    elif part == "ship_image":
        from .train_image import ship_image

        ship_image(runs / "image", vae_run)
    else:
        from .ship import ship

        ship(vae_run, transformer_run)


def run_svd(part: str, runs: Path, steps: int | None) -> None:
    """One part of the SVD pocket model."""
    vision_run, unet_run = runs / "svd_vision", runs / "svd_unet"
    if part == "svd_vision":
        from .svd.vision import train_vision

        train_vision(vision_run)
    elif part == "svd_vae":
        from .svd.train_vae import train_part

        train_part(runs / "svd_encoder", "encoder")
        train_part(runs / "svd_decoder", "decoder")
    elif part == "svd_unet":
        from .svd.train_unet import train_unet

        train_unet(unet_run, vision_run, steps or 1600)
    else:
        from .svd.ship import ship_svd, write_log

        ship_svd(runs)
        write_log(runs)


def run_sd(part: str, runs: Path, steps: int | None) -> None:
    """One part of the SD pocket model, its motion module and its MotionLoRAs."""
    base_run, motion_run = runs / "sd_base", runs / "sd_motion"
    if part == "sd_vae":
        from .sd.train_vae import train_part

        train_part(runs / "sd_decoder", "decoder")
        train_part(runs / "sd_encoder", "encoder")
    elif part == "sd_base":
        from .sd.train_base import train_base

        train_base(base_run, steps or 2600)
    elif part == "sd_motion":
        from .sd.train_motion import train_motion

        train_motion(motion_run, base_run, steps or 1600)
    elif part in ("sd_pan_left", "sd_pan_right"):
        from .sd.train_pan import train_pan

        train_pan(runs / part, base_run, motion_run, part.removeprefix("sd_pan_"), steps or 600)
    elif part == "sd_pans":
        from .sd.even_pans import even_pans

        even_pans(runs)
    else:
        from .sd.ship import ship_sd

        ship_sd(runs)


COGVIDEOX = (
    "vae",
    "transformer",
    "ship",
    "outlines",
    "ship_outlines",
    "image",
    "ship_image",
)
SVD = ("svd_vision", "svd_vae", "svd_unet", "ship_svd")
SD = ("sd_vae", "sd_base", "sd_motion", "sd_pan_left", "sd_pan_right", "sd_pans", "ship_sd")


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("part", choices=COGVIDEOX + SVD + SD)
    reader.add_argument("--runs", type=Path, default=RUNS, help="where state and logs are kept")
    reader.add_argument("--steps", type=int, help="of the transformer or UNet, in all")
    reader.add_argument("--threads", type=int, default=os.cpu_count())
    asked = reader.parse_args()

    import torch

    torch.set_num_threads(asked.threads)
    if asked.part in SVD:
        run_svd(asked.part, asked.runs, asked.steps)
    elif asked.part in SD:
        run_sd(asked.part, asked.runs, asked.steps)
    else:
        run_cogvideox(asked.part, asked.runs, asked.steps)


if __name__ == "__main__":
    main()
