"""`python -m pocket.sd.score_pairs`: two MotionLoRAs at once, as the real ComfyUI makes clips with them: left, and up.

Both are merged into a copy of the motion module at full strength. A clip goes a way where its shape covers a third of the
path that way. Captions say nothing about motion. Writes score_pairs.json and contact sheets beside this file.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from tools import hosts
from tools.commands import python_path
from tools.server import Server

from ..svd.measures import path_of
from ..svd.report import draw_sheet
from .parts import PAN_LEFT
from .score import HERE, USUAL, graph_for, write_merged
from .scoring import ASKED_PATH, SHOWN, Order, Settings, captions_of, conclude, fetch, main, subjects_of
from .world import STILL

PAN_UP = PAN_LEFT.with_name("pocket-pan-up.safetensors")
PAIRS = {"left": ((PAN_LEFT, 1.0),), "up": ((PAN_UP, 1.0),), "left and up": ((PAN_LEFT, 1.0), (PAN_UP, 1.0))}
GOALS = {"left": 0.9, "up": 0.9, "left_and_up": 0.9}


def goes(choice: str, left: float, up: float) -> bool:
    """Whether a clip that went so many pixels left and up did what its MotionLoRAs ask, each of them."""
    least = ASKED_PATH / 3
    return ("left" not in choice or left >= least) and ("up" not in choice or up >= least)


def make(client: Any, choice: str, module: str, settings: Settings, each: int, out: Path) -> list[dict]:
    """Clips of a choice: what each shows."""
    rows, strips = [], []
    for number, subject in enumerate(subjects_of([STILL], each)):
        order = Order(subject, captions_of(subject)[1], module, 3000 + number)
        frames = fetch(client, graph_for(order, settings))
        path = path_of(frames)
        x, y = (path[-2:].mean(0) - path[:2].mean(0)).tolist()
        row = {
            "caption": order.caption,
            "left": round(-x, 1),
            "up": round(-y, 1),
            "goes": goes(choice, -x, -y),
        }
        rows.append(row)
        strips.append((f"{row['left']:.0f} left, {row['up']:.0f} up", [frames[f] for f in SHOWN]))
    draw_sheet(strips, 3, out / f"score_pair_{choice.replace(' ', '_')}.png")
    return rows


def score(settings: Settings, places: Any, each: int, parts: tuple[str, ...]) -> bool:
    """Measure, write, print; whether every goal is reached."""
    rows = {}
    with tempfile.TemporaryDirectory(prefix="kinetograph-score-") as base:
        chosen = {choice: PAIRS[choice] for choice in parts}
        names = write_merged(chosen, Path(base) / "models", places.models)
        with Server(python_path(), hosts.find(), Path(base), models=places.models) as server:
            for choice, module in names.items():
                rows[choice] = make(server.client, choice, module, settings, each, places.out)
    figures = {c.replace(" ", "_"): sum(row["goes"] for row in made) / len(made) for c, made in rows.items()}
    return conclude(figures, rows, GOALS, settings, places.out, "score_pairs.json")


if __name__ == "__main__":
    sys.exit(main(score, __doc__, tuple(PAIRS), USUAL, HERE))
