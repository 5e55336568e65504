"""`python -m pocket.sd.score`: what the real ComfyUI makes of captions, as the detector reads it.

The base alone, with the motion module, and with each MotionLoRA and both at a half. Writes score.json and contact sheets
beside this file. MotionLoRAs are merged into a copy of the module (W + strength * up @ down) before ComfyUI opens it.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tools import hosts
from tools.commands import python_path
from tools.server import Server

from ..shapes import MOTIONS
from .parts import FOLDER, MODEL, MOTION, PAN_LEFT, PAN_RIGHT
from .scoring import (
    ASKED_PATH,
    Order,
    Places,
    Settings,
    captions_of,
    conclude,
    earlier_rows,
    main,
    make_part,
    mean_of,
    motion_node,
    node,
    right_part,
    sampled,
    subjects_of,
    sum_up_motion,
)
from .world import STILL

MERGED = "animatediff_models/{}.safetensors"
LORAS: dict[str, tuple[tuple[Path, float], ...]] = {
    "pan left": ((PAN_LEFT, 1.0),),
    "pan right": ((PAN_RIGHT, 1.0),),
    "both at a half": ((PAN_LEFT, 0.5), (PAN_RIGHT, 0.5)),
}
GOALS = {
    "jump_ratio": 0.2,
    "right_way": 0.85,
    "covered": 0.7,
    "pan_left": 0.9,
    "pan_right": 0.9,
    "both_still": 0.9,
}
PARTS = ("alone", "motion", *LORAS)
HERE = Path(__file__).resolve().parent
USUAL = Settings(f"ComfyUI {hosts.NEWEST}", 20, 2.0, "euler", "normal")


def graph_for(order: Order, settings: Settings) -> dict[str, Any]:
    """Loader and motion module, then `sampled`."""
    graph = sampled("motion" if order.module else "loader", order, settings)
    graph["loader"] = node("KinetographPocketLoader", model=f"SD/{MODEL.name}")
    if order.module:
        graph["motion"] = motion_node("loader", order.module)
    return graph


def write_merged(
    loras: Mapping[str, tuple[tuple[Path, float], ...]], models: Path, source: Path = FOLDER
) -> dict[str, str]:
    """A copy of the motion module for each choice of MotionLoRAs; the names under which nodes list them."""
    names = {}
    for choice, files in loras.items():
        weights = {key: value.float() for key, value in load_file(scored(MOTION, source)).items()}
        for path, strength in files:
            lora = {key: value.float() for key, value in load_file(scored(path, source)).items()}
            for key in [key for key in lora if key.endswith(".up.weight")]:
                layer = key.replace(".processor", "").replace("_lora.up.weight", "")
                layer = layer.replace(".to_out", ".to_out.0")
                down = lora[key.replace(".up.", ".down.")]
                weights[f"{layer}.weight"] += strength * lora[key] @ down
        names[choice] = MERGED.format(f"merged-{choice.replace(' ', '-')}")
        path = models / names[choice]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, path)
    return names


def orders_of(part: str, names: Mapping[str, str], each: int) -> list[Order]:
    """The clips of a part: `alone`, `motion`, or one of `LORAS`."""
    if part in ("alone", "motion"):
        module = f"animatediff_models/{MOTION.name}" if part == "motion" else None
        subjects = subjects_of(list(MOTIONS), each)
        return [Order(s, captions_of(s)[0], module, 1000 + i) for i, s in enumerate(subjects)]
    way = {"pan left": "moving left", "pan right": "moving right"}.get(part, STILL)
    subjects = subjects_of([way], 4 * each)
    # half of the captions say nothing about motion, the others that the shape stands still
    said = [
        captions_of(s)[1] if i % 2 else captions_of((s[0], s[1], STILL))[0] for i, s in enumerate(subjects)
    ]
    return [
        Order(s, caption, names[part], 2000 + i)
        for i, (s, caption) in enumerate(zip(subjects, said, strict=True))
    ]


def sum_up(parts: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """The figures that have goals, and some beside them."""
    figures = sum_up_motion(parts["alone"], parts["motion"])
    for part in LORAS:
        rows = parts.get(part)
        if rows:
            name = "both_still" if part.startswith("both") else part.replace(" ", "_")
            figures[name] = right_part(rows)
            figures[f"{part.replace(' ', '_')}_covered"] = round(mean_of(rows, "way") / ASKED_PATH, 3)
    return figures


def scored(file: Path, models: Path) -> Path:
    """The file of pocket/models in the folder that is scored."""
    return models / file.relative_to(FOLDER) if file.is_relative_to(FOLDER) else file


def score(settings: Settings, places: Places, each: int, parts: tuple[str, ...]) -> bool:
    """Measure, write, print; whether every goal is reached. Parts that are not measured keep their rows."""
    rows = earlier_rows(places.out, PARTS)
    loras = {choice: files for choice, files in LORAS.items() if choice in parts}
    with tempfile.TemporaryDirectory(prefix="kinetograph-score-") as base:
        names = write_merged(loras, Path(base) / "models", places.models)
        with Server(python_path(), hosts.find(), Path(base), models=places.models) as server:
            for part in parts:
                orders = orders_of(part, names, each)
                rows[part] = make_part(server.client, part, orders, graph_for, settings, places.out)
    return conclude(sum_up(rows), rows, GOALS, settings, places.out)


if __name__ == "__main__":
    raise SystemExit(main(score, __doc__, PARTS, USUAL, HERE))
