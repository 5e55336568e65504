"""`python -m pocket.train vae|transformer|ship|image|ship_image`: each goes on from where it was stopped."""

import argparse
import os
from pathlib import Path

RUNS = Path(__file__).resolve().parent / "runs"


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("part", choices=("vae", "transformer", "ship", "image", "ship_image"))
    reader.add_argument("--runs", type=Path, default=RUNS, help="where state and logs are kept")
    reader.add_argument("--steps", type=int, default=3000, help="of the transformer, in all")
    reader.add_argument("--threads", type=int, default=os.cpu_count())
    asked = reader.parse_args()

    import torch

    torch.set_num_threads(asked.threads)
    vae_run, transformer_run = asked.runs / "vae", asked.runs / "transformer"
    if asked.part == "vae":
        from .train_vae import train_vae

        train_vae(vae_run)
    elif asked.part == "transformer":
        from .train_transformer import train_transformer

        train_transformer(transformer_run, vae_run, asked.steps)
    elif asked.part == "image":
        from .train_image import train_image

        train_image(asked.runs / "image", transformer_run, vae_run, asked.steps)
    elif asked.part == "ship_image":
        from .train_image import ship_image

        ship_image(asked.runs / "image", vae_run)
    else:
        from .ship import ship

        ship(vae_run, transformer_run)


if __name__ == "__main__":
    main()
