"""Train Video Model: the recipe out of a node's choices, the run below the output folder, and what the page shows of it."""

import importlib.util
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...modules.families import PIXART
from ...modules.noise import EDMNoise
from ...modules.training import configuration, presets
from ...modules.training.curve import STRIPS, draw_curve, open_picture, with_samples
from ...modules.training.loop import Progress
from ...modules.training.optimizers import bitsandbytes_words
from ...modules.training.recipe import Data, Levels, Loss, Recipe
from ..host import files, progress, results
from ..host import training as host
from ..host.api import io
from ..host.description import describe
from . import datasets, training
from .subjects import NODE
from .training_examples import Encoders

PARTS = ("lora", "motion_lora", "motion_module", "domain_adapter", "exvideo", "temporal", "whole")
OPTIMIZERS = ("adamw", "adamw8bit", "lion", "muon")
BY_HAND = "by hand"
MACHINES = ("auto", *presets.PRESETS, BY_HAND)
OFF, ON = SAMPLES = "off", "on"
LOSSES = ("published", "min_snr")
# of encoded clips; no run has such a name
CACHE = "_cache"
NAME = re.compile(r"[^\W_](?:[\w .-]{0,78}\w)?")
# as SVD's trainings were published: ExVideo's (modelscope/DiffSynth-Studio), a LoRA's (pixeli99/SVD_Xtend)
EXVIDEO = Levels("karras"), Loss("denoised", "root_edm", target_scale=1.01)
SVD = Levels("log_normal", mean=0.7, spread=1.6), Loss("denoised", "edm")
LORA_ONLY = (
    "a LoRA that ComfyUI's own nodes take comes of the parts lora and domain_adapter. This training's part is {}: connect run "
    "to Save Trained, and the MODEL to it."
)
# seconds between two pictures, which are messages to the page
PICTURE_SECONDS = 1.0


@dataclass(frozen=True)
class Choices:
    """The widgets of Train Video Model; those of a DynamicCombo as the node gets them."""

    part: Mapping[str, Any]
    name: str
    steps: int
    seed: int
    learning: Mapping[str, Any]
    machine: Mapping[str, Any]
    samples: Mapping[str, Any]


def name_problem(name: Any) -> str | None:
    """Why a run cannot have a name; None where it can."""
    if name is None or (isinstance(name, str) and NAME.fullmatch(name)):
        return None
    return (
        "name must be 1 to 80 letters, digits, spaces, dots, - and _, with a letter or digit in front: got "
        f"{str(name)[:90]!r}. It names a folder below output/training."
    )


def learning_problem(learning: Any, machine: Any) -> str | None:
    """Why an optimizer cannot be had here; None where it can."""
    optimizer: Any = (learning or {}).get("learning")
    card: Any = (machine or {}).get("machine")
    preset = presets.PRESETS.get(card)
    eight_bit = optimizer == "adamw8bit" or (optimizer == "adamw" and preset is not None and preset.eight_bit)
    if not eight_bit or importlib.util.find_spec("bitsandbytes") is not None:
        return None
    who = "learning: adamw8bit" if optimizer == "adamw8bit" else f"machine: {card} takes adamw8bit, which"
    return f"{who} {bitsandbytes_words('adamw and the machine auto')}"


def recipe_of(model: Any, data: Data, choices: Choices) -> Recipe:
    """The recipe of a node's choices, with the published loss of the MODEL's kind. ValueError for numbers that no
    training can have."""
    levels, loss = published(model, choices.part["part"])
    learning, machine, samples = choices.learning, choices.machine, choices.samples
    if learning["loss"] != LOSSES[0]:
        loss = replace(loss, weight=learning["loss"])
    steps = {name: learning[name] for name in ("batch", "weight_decay", "schedule", "warm_up", "clip", "ema")}
    steps |= {"optimizer": learning["learning"], "lr": choices.part["lr"]}
    steps |= {"total": choices.steps, "seed": choices.seed}
    if "at_once" in machine:
        steps["at_once"] = machine["at_once"]
    evaluation = {key: value for key, value in samples.items() if key not in ("samples", "prompt")}
    if samples.get("prompt"):
        evaluation["prompts"] = [samples["prompt"]]
    return configuration.recipe_of(
        {
            "name": choices.name,
            "model": {"diffusion_model": describe(model, NODE).label},
            "part": part_of(choices.part),
            "data": asdict(data),
            "levels": asdict(levels),
            "loss": asdict(replace(loss, motion_sub=learning["motion_sub"])),
            "steps": steps,
            "machine": {key: value for key, value in machine.items() if key not in ("machine", "at_once")},
            "evaluation": evaluation,
        }
    )


def fit(recipe: Recipe, machine: str) -> tuple[Recipe, str]:
    """A recipe as a card of this size takes it, and a sentence on what became of its numbers."""
    if machine not in presets.PRESETS:
        return recipe, ""
    fitted = presets.apply(recipe, machine)  # type: ignore[arg-type]
    before, after = asdict(recipe), asdict(fitted)
    changes = [
        f"{key} {value} in place of {before[record][key]}"
        for record in ("part", "steps", "machine")
        for key, value in after[record].items()
        if value != before[record][key]
    ]
    return fitted, f"For {machine}: {', '.join(changes)}." if changes else ""


def part_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What is trained; AnimateDiff's files hold no alpha, so that it is the rank."""
    part = {"name" if key == "part" else key: value for key, value in chosen.items() if key != "lr"}
    return {"alpha": float(part["rank"]), **part} if "rank" in part else part


def published(model: Any, part: str) -> tuple[Levels, Loss]:
    """Noise levels and loss that MODELs of this kind were trained with."""
    own = getattr(model.model, "recipe", None)
    if isinstance(describe(model, NODE).noise, EDMNoise):
        return EXVIDEO if part == "exvideo" else SVD
    learned = own is not None and own.family.id == PIXART.id
    return Levels(), Loss("learned_range") if learned else Loss()


def train(model: Any, encoders: Encoders, text: str, choices: Choices) -> io.NodeOutput:
    """Train what the node chose, going on where a run of its name stopped; its outputs, with the curve on the node.

    ValueError for data, parts and settings that cannot be, before anything is encoded.
    """
    data, folder = datasets.read(text)
    recipe, fitted = fit(recipe_of(model, data, choices), choices.machine["machine"])
    root = files.training_directory()
    show = Show(recipe, root / recipe.name)
    outcome = training.train(
        training.Job(recipe, model, encoders, folder, root / recipe.name, root / CACHE, watch=show)
    )
    results.remember(outcome.file)
    lora = dict(outcome.lora) if outcome.lora else host.withheld(LORA_ONLY.format(recipe.part.name))
    losses = losses_of(root / recipe.name, outcome.step)
    report = "\n".join(filter(None, [*_sentences(recipe, outcome, losses), fitted]))
    progress.tell(report)
    return io.NodeOutput(
        lora,
        {"loss": losses},
        outcome.step,
        recipe.name,
        report,
        ui={**progress.still(show.picture()), "text": (report,)},
    )


def losses_of(folder: Path, until: int | None = None) -> list[float]:
    """The loss of every step in a run's log."""
    log = folder / training.LOG
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [told["loss"] for told in map(json.loads, lines) if until is None or told["step"] <= until]


def samples_of(folder: Path) -> list[tuple[int, Any]]:
    """(step, strip of frames) of a run's latest samples, those of earlier runs of its name, too."""
    found = sorted((folder / training.SAMPLES).glob("step-*.png"))[-STRIPS:]
    return [(int(file.stem.removeprefix("step-")), open_picture(file)) for file in found]


class Show:
    """The node while it trains: its bar, the curve of losses with the latest samples, and how long it will take."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.total, self.folder = recipe.steps.total, folder
        self.losses: list[float] = []
        self._bar: Any = None
        self._drawn = 0.0

    def __call__(self, step: Progress, sample: Any) -> None:
        """Show a step. Raises the host's interruption when Cancel was pressed."""
        if self._bar is None:
            self.losses = losses_of(self.folder, step.step - 1)
            self._bar = progress.steps(self.total)
        self.losses.append(step.loss)
        now, last = time.monotonic(), step.step == self.total
        due = sample is not None or last or now - self._drawn > PICTURE_SECONDS
        if due:
            self._drawn = now
            progress.tell(self._line(step))
        self._bar.advance(step.step - self._bar.done, self.picture() if due else None)

    def picture(self) -> Any:
        """The curve of all steps so far, with the latest samples."""
        losses = self.losses or losses_of(self.folder)
        return with_samples(draw_curve(losses, self.total), samples_of(self.folder))

    def _line(self, step: Progress) -> str:
        left = (self.total - step.step) * step.seconds
        ahead = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        return f"Step {step.step} of {self.total}: loss {step.loss:.4f}, {step.seconds:.2f} s a step, {ahead} left."


def _sentences(recipe: Recipe, outcome: training.Outcome, losses: list[float]) -> list[str]:
    new = len(outcome.losses)
    before = f" ({outcome.step - new} of them in earlier runs)" if outcome.step > new else ""
    said = f"{recipe.name}: {recipe.part.name} after {outcome.step} steps{before}, in output/training/{recipe.name}."
    tenth = max(1, len(losses) // 10)
    if losses:
        first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
        said += f" Loss {first:.4f} in the first tenth of them, {last:.4f} in the last."
    return [said, *filter(None, [outcome.report])]
