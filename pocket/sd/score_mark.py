"""`python -m pocket.sd.score_mark --models FOLDER`: whether a domain adapter keeps a watermark out of a motion module's clips.

Two motion modules learned on from clips under a watermark: one while the adapter was on, which had taken the mark up from
photos, one without it. Clips of both, the first with the adapter at alpha 1 and at 0, made by the real ComfyUI. Writes
score_mark.json and contact sheets beside this file. The three files are not shipped: FOLDER is a copy of pocket/models with
them in it, as `configs/training/pocket` makes them.
"""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools import hosts
from tools.commands import python_path
from tools.server import Server

from ..mark import mark_area, without_mark
from ..shapes import MOTIONS
from ..svd.report import draw_sheet, write_score
from . import scoring
from .parts import FOLDER, MODEL
from .score import HERE, USUAL
from .scoring import Order, Places, Rows, Settings, captions_of, mean_of, node, subjects_of

ADAPTER = FOLDER / "loras" / "pocket-adapter.safetensors"
MODULE, ALONE = (
    FOLDER / "animatediff_models" / f"pocket-motion-marked{end}.safetensors" for end in ("", "-alone")
)
# part: motion module, alpha of the adapter; None: no adapter
PARTS: dict[str, tuple[Path, float | None]] = {
    "alpha 1": (MODULE, 1.0),
    "alpha 0": (MODULE, 0.0),
    "without an adapter": (ALONE, None),
}
# the mark is pale
MOST_ALIKE = "white"
GOALS = {"area_at_1": 0.5, "area_at_0": 0.1, "right_way_at_0": 0.85}


def orders_of(module: Path, each: int) -> list[Order]:
    """The same captions and seeds for all parts, in no colour that is near the mark's."""
    subjects = [s for s in subjects_of(list(MOTIONS), 2 * each) if s[0] != MOST_ALIKE]
    chosen = [s for way in MOTIONS for s in [s for s in subjects if s[2] == way][:each]]
    name = f"{module.parent.name}/{module.name}"
    return [Order(s, captions_of(s)[0], name, 3000 + i) for i, s in enumerate(chosen)]


def graph_for(order: Order, settings: Settings, alpha: float | None) -> dict[str, Any]:
    """Loader, the adapter where there is one, motion module, then `sampled`."""
    graph = scoring.sampled("motion", order, settings)
    graph["loader"] = node("KinetographPocketLoader", model=f"SD/{MODEL.name}")
    graph["motion"] = scoring.motion_node("loader" if alpha is None else "adapter", order.module or "")
    if alpha is not None:
        graph["adapter"] = node(
            "KinetographLoRAStack",
            model=["loader", 0],
            loras="1",
            **{"loras.lora_1": ADAPTER.name, "loras.strength_1": alpha, "loras.text_strength_1": 0.0},
            allow_partial=False,
        )
    return graph


def sum_up(rows: Rows) -> dict[str, float]:
    """Areas of the mark, and ways of the shapes under it."""
    named = {"alpha 1": "at_1", "alpha 0": "at_0", "without an adapter": "without"}
    figures = {}
    for part, name in named.items():
        if part in rows:
            figures[f"area_{name}"] = round(mean_of(rows[part], "area"), 3)
            figures[f"area_{name}_most"] = round(max(row["area"] for row in rows[part]), 3)
            figures[f"right_way_{name}"] = scoring.right_part(rows[part])
    return figures


def score(settings: Settings, places: Places, each: int, parts: tuple[str, ...]) -> bool:
    """Measure, write, print; whether every goal is reached."""
    rows: Rows = {}
    with tempfile.TemporaryDirectory(prefix="kinetograph-score-") as base:
        with Server(python_path(), hosts.find(), Path(base), models=places.models) as server:
            for part in parts:
                module, alpha = PARTS[part]
                orders = orders_of(module, each)
                made = [scoring.fetch(server.client, graph_for(order, settings, alpha)) for order in orders]
                rows[part] = [
                    scoring.read_row(order, without_mark(frames)) | {"area": round(mark_area(frames), 3)}
                    for order, frames in zip(orders, made, strict=True)
                ]
                sheet = places.out / f"score_mark_{part.replace(' ', '_')}.png"
                draw_sheet(scoring.strips_of(rows[part], made), 3, sheet)
    figures = sum_up(rows)
    good = all(
        figures[name] <= goal if name == "area_at_0" else figures[name] >= goal
        for name, goal in GOALS.items()
        if name in figures
    )
    print(json.dumps(figures | {"good": good}, indent=1))
    write_score(
        places.out / "score_mark.json", figures | rows | {"goals": GOALS, "settings": asdict(settings)}
    )
    return good


if __name__ == "__main__":
    raise SystemExit(scoring.main(score, __doc__, tuple(PARTS), USUAL, HERE))
