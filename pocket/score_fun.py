"""`python -m pocket.score_fun`: what Fun models make of clips that no training saw, as the detector reads it.

Files are InP or Control of the pocket's size, as they are shipped or as the trainer leaves them. Sampled by plain DDIM as
the workflows do, on one thread, without ComfyUI.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .check import decode, sample_ddim
from .detector import centres, read_clip
from .latents import SCALE
from .parts import CONTROL_MODEL, CONTROL_SETTINGS, INPAINT_MODEL, INPAINT_SETTINGS, build_transformer, pack
from .scenes import Scene, draw_scene, draw_scenes, draw_silhouettes, misnamed_scene
from .shipped import caption_features, captions, encode, shipped_vae
from .train_image import psnr

UNSEEN_SEED, COUNT = 90_000_000, 32
GUIDANCE, STEPS = 2.0, 20


def known_clips(vae: nn.Module, seeds: Sequence[int]) -> Tensor:
    """Of InP: what is known of the scenes, as the sampler of a user makes it. None where nothing is."""
    pack()
    from kinetograph.modules.conditioning.inpaint import latent_mask

    drawn = [draw_scene(seed) for seed in seeds]
    masks = torch.stack([known.mask() for _, known in drawn])
    pixels = draw_scenes([scene for scene, _ in drawn])
    seen = encode(vae, torch.where(masks[..., None] < 0.5, pixels, 0.0))
    cells = torch.cat([latent_mask(mask, seen.shape[2], 8) for mask in masks])
    beside = torch.cat([(1 - cells) * SCALE, seen], dim=1)
    beside[torch.tensor([known.is_nothing for _, known in drawn])] = 0
    return beside


def silhouettes(vae: nn.Module, seeds: Sequence[int]) -> Tensor:
    """Of Control: where each scene's shape is."""
    return encode(vae, draw_silhouettes([draw_scene(seed)[0] for seed in seeds]))


def own_scene(seed: int) -> Scene:
    """What a caption of InP tells: the scene itself."""
    return draw_scene(seed)[0]


def kept(frames_nfhwc: Tensor, seeds: Sequence[int]) -> dict[str, float]:
    """Of InP: decibels where the clip is known, pixels that the shape is off its true way and its true end."""
    drawn = [draw_scene(seed) for seed in seeds]
    true = draw_scenes([scene for scene, _ in drawn])
    rows = [i for i, (_, known) in enumerate(drawn) if not known.is_nothing]
    ends = [i for i in rows if drawn[i][1].end]
    masks = {i: drawn[i][1].mask() < 0.5 for i in rows}
    known = [psnr(frames_nfhwc[i][masks[i]][None], true[i][masks[i]][None]) for i in rows]
    off = {i: (centres(frames_nfhwc[i]) - centres(true[i])).norm(dim=-1) for i in rows}
    return {
        "known_db": float(torch.cat(known).mean()),
        "off_path": float(torch.stack([off[i] for i in rows]).mean()),
        "off_end": max(float(off[i][-1]) for i in ends),
    }


def followed(frames_nfhwc: Tensor, seeds: Sequence[int]) -> dict[str, float]:
    """Of Control: part of the clips of the caption's colour and of the shape to follow, and pixels off its way."""
    scenes = [draw_scene(seed)[0] for seed in seeds]
    seen = [read_clip(frames) for frames in frames_nfhwc]
    pairs = list(zip(seen, scenes, strict=True))
    off = [
        centres(frames) - centres(true)
        for frames, true in zip(frames_nfhwc, draw_scenes(scenes), strict=True)
    ]
    return {
        "colour": sum(reading.colour == scene.colour for reading, scene in pairs) / len(pairs),
        "shape": sum(reading.shape == scene.shape for reading, scene in pairs) / len(pairs),
        "off_path": float(torch.stack(off).norm(dim=-1).mean()),
    }


@dataclass(frozen=True)
class Kind:
    """What makes a kind of CogVideoX-Fun: its file, its channels beside the noise, its captions, and its figures."""

    settings: dict[str, Any]
    file: Path
    beside: Callable[[nn.Module, Sequence[int]], Tensor]
    told: Callable[[int], Scene]
    figures: Callable[[Tensor, Sequence[int]], dict[str, float]]


KINDS = {
    "Fun-5B-InP": Kind(INPAINT_SETTINGS, INPAINT_MODEL, known_clips, own_scene, kept),
    "Fun-5B-Control": Kind(CONTROL_SETTINGS, CONTROL_MODEL, silhouettes, misnamed_scene, followed),
}


class Beside:
    """A model with the same channels beside the noise at every step."""

    def __init__(self, transformer: nn.Module, beside_bcthw: Tensor) -> None:
        self.transformer, self.beside = transformer, beside_bcthw

    def velocity(self, x_bcthw: Tensor, timestep_b: Tensor, context_bld: Tensor) -> Tensor:
        beside = self.beside.repeat(len(x_bcthw) // len(self.beside), 1, 1, 1, 1)
        return self.transformer(torch.cat([x_bcthw, beside], 1), timestep_b, context_bld)


def open_fun(file: Path) -> tuple[str, nn.Module]:
    """A file's place in `KINDS` and its transformer in float32; ValueError for other files, CheckpointError for broken ones."""
    pack()
    from kinetograph.modules.families import COGVIDEOX
    from kinetograph.modules.weights.load import read_part

    finding, weights = read_part(file, (COGVIDEOX,), "diffusion_model")
    variant = finding.config.variant  # type: ignore[union-attr]
    if variant not in KINDS:
        raise ValueError(f"{file.name} is a CogVideoX {variant}: choose one of {', '.join(KINDS)}.")
    transformer = build_transformer(KINDS[variant].settings)
    transformer.load_state_dict({key: value.float() for key, value in weights.items()})
    return variant, transformer.eval()


@torch.no_grad()
def score(file: Path, count: int = COUNT) -> dict[str, Any]:
    """The figures of a file's kind."""
    variant, transformer = open_fun(file)
    kind, vae, features = KINDS[variant], shipped_vae(), caption_features()
    seeds = range(UNSEEN_SEED, UNSEEN_SEED + count)
    told = features[[captions().index(kind.told(seed).caption) for seed in seeds]]
    model = Beside(transformer, kind.beside(vae, seeds))
    z = sample_ddim(model, told, features[-1:], GUIDANCE, STEPS, seed=1)
    figures = kind.figures(decode(vae, z), seeds)
    head = {"kind": variant, "clips": count, "guidance": GUIDANCE, "sampling_steps": STEPS}
    return head | {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = [kind.file for kind in KINDS.values()]
    reader.add_argument("files", nargs="*", type=Path, default=shipped, help="default: the shipped ones")
    reader.add_argument("--count", type=int, default=COUNT, help="clips of each")
    reader.add_argument("--json", type=Path, help="where figures go beside the screen")
    asked = reader.parse_args()
    torch.set_num_threads(1)
    figures = {str(file): score(file, asked.count) for file in asked.files}
    text = json.dumps(figures, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
