"""What was measured of scored clips, summed up, written and drawn."""

import json
import statistics
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from .measures import rank_correlation
from .world import LONG_FRAMES

TILE = 48  # pixels of a frame on a sheet
SHOWN = (0, 3, 7)  # frames of a short clip


def sum_up_short(rows: list[dict[str, Any]], per_picture: int) -> dict[str, float]:
    """Rank correlation of bucket and speed within the clips of each picture; decibels of first frames."""
    each = [rows[i : i + per_picture] for i in range(0, len(rows), per_picture)]
    ranks = [rank_correlation([r["speed"] for r in part], [r["bucket"] for r in part]) for part in each]
    decibels = [row["first_frame_db"] for row in rows]
    return {
        "rank_correlation": round(statistics.mean(ranks), 4),
        "rank_correlation_least": round(min(ranks), 4),
        "first_frame_db": round(statistics.mean(decibels), 2),
        "first_frame_db_least": round(min(decibels), 2),
        "speed_off": round(statistics.mean(abs(r["speed"] - r["true_speed"]) for r in rows), 3),
        "speed_error": round(statistics.mean(r["speed_error"] for r in rows), 3),
    }


def sum_up_long(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Speed error from frame to frame, in pixels, with and without the patch."""
    with_patch, without = (
        statistics.mean(row["speed_error"] for row in rows if row["patched"] is patched)
        for patched in (True, False)
    )
    return {
        "long_speed_error": round(with_patch, 3),
        "long_speed_error_unpatched": round(without, 3),
        "long_speed_error_ratio": round(with_patch / without, 3),
    }


def draw_sheet(rows: list[tuple[str, list[Tensor]]], columns: int, path: Path) -> None:
    """Strips of frames (h, w, 3) in 0..1 with their titles, so many strips side by side."""
    wide = max(len(frames) for _, frames in rows) * TILE + 6
    sheet = Image.new("RGB", (columns * wide, -(-len(rows) // columns) * (TILE + 14)), "black")
    pen = ImageDraw.Draw(sheet)
    for i, (title, frames) in enumerate(rows):
        x, y = i % columns * wide, i // columns * (TILE + 14)
        for k, frame in enumerate(frames):
            sheet.paste(to_pil_image(frame.permute(2, 0, 1)).resize((TILE, TILE)), (x + k * TILE, y))
        pen.text((x + 2, y + TILE), title, fill="white")
    sheet.save(path)


def draw_part(part: str, rows: list[dict[str, Any]], made: list[Tensor], folder: Path) -> None:
    shown = SHOWN if part == "short" else range(0, LONG_FRAMES, 2)
    strips = []
    for row, frames in zip(rows, made, strict=True):
        patch = {True: " ExVideo", False: " plain"}.get(row.get("patched"), "")
        title = f"{row['bucket']:.0f}: {row['speed']:.2f} of {row['true_speed']:.2f}{patch}"
        strips.append((title, [frames[f] for f in shown]))
    draw_sheet(strips, 8 if part == "short" else 1, folder / f"score_{part}.png")


def write_score(path: Path, figures: dict[str, Any]) -> None:
    """Figures of earlier parts stay; rows one a line."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lines = []
    for name, value in sorted((known | figures).items(), key=lambda item: isinstance(item[1], list)):
        rows = isinstance(value, list)
        text = (
            "[\n" + ",\n".join("  " + json.dumps(row) for row in value) + "\n ]"
            if rows
            else json.dumps(value)
        )
        lines.append(f' "{name}": {text}')
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
