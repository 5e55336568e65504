"""`python -m pocket.pixart.score`: what the real ComfyUI makes of captions, as the detector reads it.

The base alone, with the motion module, and with the chalk style under that. Writes score.json and contact sheets beside
this file.
"""

import tempfile
from pathlib import Path
from typing import Any

from tools import hosts
from tools.commands import python_path
from tools.server import Server

from ..datasets import CHALK
from ..sd import scoring
from ..sd.parts import MODEL as TEXT_AND_VAE
from ..sd.scoring import Order, Places, Rows, Settings, captions_of, mean_of, node, subjects_of, sum_up_motion
from ..shapes import MOTIONS
from .parts import MODEL, MOTION, STYLE

PARTS = ("alone", "motion", "style")
GOALS = {"jump_ratio": 0.2, "right_way": 0.85, "covered": 0.7, "in_chalk": 0.95, "right_way_in_chalk": 0.85}
USUAL = Settings(f"ComfyUI {hosts.NEWEST}", 20, 2.5, "dpmpp_2m", "normal")
HERE = Path(__file__).resolve().parent


def listed(file: Path) -> str:
    """A file as nodes list it."""
    return f"{file.parent.name}/{file.name}"


def orders_of(part: str, each: int) -> list[Order]:
    """The clips of a part; those in the style are asked for in other colours than chalk, and are to be in chalk."""
    subjects = subjects_of(list(MOTIONS), each + 2)
    coloured = [s for s in subjects if s[0] != CHALK] if part == "style" else subjects
    chosen = [s for motion in MOTIONS for s in [s for s in coloured if s[2] == motion][:each]]
    shown = [(CHALK, *s[1:]) if part == "style" else s for s in chosen]
    module = None if part == "alone" else listed(MOTION)
    return [
        Order(subject, captions_of(asked)[0], module, 1000 + i)
        for i, (subject, asked) in enumerate(zip(shown, chosen, strict=True))
    ]


def graph_for(order: Order, settings: Settings) -> dict[str, Any]:
    """Loader, motion module where there is one, then `sampled`."""
    graph = scoring.sampled("motion" if order.module else "loader", order, settings)
    graph["loader"] = node(
        "KinetographPixArtLoader",
        model=listed(MODEL),
        text_encoder=listed(TEXT_AND_VAE),
        vae=listed(TEXT_AND_VAE),
        weight_dtype="auto",
        personalized="none",
        captions="lower case",
    )
    if order.module:
        graph["motion"] = scoring.motion_node("loader", order.module)
    return graph


def styled_graph(order: Order, settings: Settings) -> dict[str, Any]:
    """The same with the style under the motion module."""
    graph = graph_for(order, settings)
    graph["motion"]["inputs"]["model"] = ["style", 0]
    graph["style"] = node(
        "KinetographLoRAStack",
        model=["loader", 0],
        loras="1",
        **{"loras.lora_1": listed(STYLE), "loras.strength_1": 1.0, "loras.text_strength_1": 1.0},
        allow_partial=False,
    )
    return graph


def sum_up(parts: Rows) -> dict[str, float]:
    """The figures that have goals, and some beside them."""
    figures = sum_up_motion(parts["alone"], parts["motion"])
    if "style" in parts:
        figures["in_chalk"] = round(mean_of(parts["style"], "colour"), 3)
        styled = sum_up_motion(parts["alone"], parts["style"])
        kept = ("jump_ratio", "right_way", "covered", "right_shape")
        figures |= {f"{name}_in_chalk": styled[name] for name in kept}
    return figures


def score(settings: Settings, places: Places, each: int, parts: tuple[str, ...]) -> bool:
    """Measure, write, print; whether every goal is reached. Parts that are not measured keep their rows."""
    rows = scoring.earlier_rows(places.out, PARTS)
    with tempfile.TemporaryDirectory(prefix="kinetograph-score-") as base:
        with Server(python_path(), hosts.find(), Path(base), models=places.models) as server:
            for part in parts:
                graph = styled_graph if part == "style" else graph_for
                orders = orders_of(part, each)
                rows[part] = scoring.make_part(server.client, part, orders, graph, settings, places.out)
    return scoring.conclude(sum_up(rows), rows, GOALS, settings, places.out)


if __name__ == "__main__":
    raise SystemExit(scoring.main(score, __doc__, PARTS, USUAL, HERE))
