"""Evens the two MotionLoRAs out: each keeps its way, and both at a half leave a shape where it stands."""

from pathlib import Path

import torch
from torch import nn

from ..optimizers import BlockOptimizer
from ..progress import RunLog
from ..tokens import Vocabulary
from .train_base import trained_base
from .train_motion import trained_motion
from .train_pan import WAYS, MotionLoRA, PanTraining, open_pan
from .world import STILL, Captioned, pan_clip, sample_clip, wordless

STEPS = 300
PEAK_LR = 5e-3
CLIPS = 2  # of each kind in a step
FIRST_SEED = 9_000_000


def still_clip(seed: int) -> Captioned:
    """A shape that stands still, every other one without a word about it."""
    chosen = sample_clip(seed)
    clip = sample_clip(seed, (chosen.colour, chosen.shape, STILL))
    return Captioned(clip, wordless(clip) if seed % 2 else clip.caption)


def even_step(training: PanTraining, pair: dict[str, MotionLoRA], number: int) -> dict[str, float]:
    """Gradients of clips that pan left, that pan right, and that stand still under both at a half."""
    first, seen = FIRST_SEED + 8 * number, {}
    for k, (way, lora) in enumerate(pair.items()):
        clips = [pan_clip(first + k * CLIPS + i, WAYS[way]) for i in range(CLIPS)]
        loss = training.loss_of(clips, [(lora.changes(), 1.0)])
        loss.backward()
        seen[way] = loss.item()
    clips = [still_clip(first + 2 * CLIPS + i) for i in range(CLIPS)]
    loss = training.loss_of(clips, [(lora.changes(), 0.5) for lora in pair.values()])
    loss.backward()
    return {**seen, "both": loss.item()}


def even_pans(runs: Path, total: int = STEPS) -> None:
    """Train both on from their own runs; the pair goes to `sd_pans/state.pt`."""
    words = Vocabulary()
    base, _ = trained_motion(runs / "sd_motion", trained_base(runs / "sd_base", words)[0], words)
    pair = {way: open_pan(runs / f"sd_pan_{way}", base)[0] for way in WAYS}
    both = nn.ModuleDict(pair).requires_grad_(True)
    training, optimizer = PanTraining(base, "left"), BlockOptimizer(both, both)
    log = RunLog(runs / "sd_pans" / "log.jsonl", every=10)
    for number in range(total):
        torch.manual_seed(number)
        log.add(number + 1, **even_step(training, pair, number))
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step(PEAK_LR * min(1.0, (1 - number / total) / 0.6))
    torch.save(both.state_dict(), runs / "sd_pans" / "state.pt")
