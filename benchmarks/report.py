"""Results as a table, and results against goals."""

import statistics
from pathlib import Path
from typing import Any

NOISE = 1.05  # CPU-time goals gate at the goal plus five per cent


def table(results: dict[str, Any]) -> str:
    """Every row: candidates' medians, the ratio to the best peer and what it is worth."""
    lines = [f"{key}: {value}" for key, value in results["machine"].items()] + [""]
    for row in results["rows"]:
        medians = {name: statistics.median(values) for name, values in row["samples"].items()}
        figures = "  ".join(f"{name} {value:.4g}" for name, value in medians.items())
        lines.append(f"{row['case']} | {row['size']} | {row['metric']} | {figures} | {_ratio(row)}")
        lines += [f"    absent: {peer}: {why}" for peer, why in row["absent"].items()]
        lines += [f"    parity with {peer}: {error:.1e}" for peer, error in row["parity"].items()]
    lines += [f"FAILED {case}: {why}" for case, why in results["failed"].items()]
    return "\n".join(lines)


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return "no peer"
    return f"{row['ratio']:.3f} of {row['best_peer']} (IQR {row['spread']:.3f}, {row['verdict']})"


def read_goals(path: Path) -> list[dict[str, Any]]:
    """The goals of a TOML file: a list of tables named `goal`."""
    import tomllib  # Python 3.11; only `check` needs it

    return tomllib.loads(path.read_text())["goal"]


def check(results: dict[str, Any], goals: list[dict[str, Any]]) -> tuple[str, bool]:
    """A line per goal, and whether every goal that was measured and gates is met.

    A goal names `case`, `metric` and the start of `size`, and sets `ratio` (to the best peer, or to the
    peer named in `of`) or `most` (an absolute figure); `stretch` is shown only; `gate = false` only informs.
    """
    lines, good = [], not results["failed"]
    for goal in goals:
        rows = [row for row in results["rows"] if _fits(goal, row)]
        if not rows:
            lines.append(f"not measured  {_name(goal)}")
        for row in rows:
            figure = _figure(goal, row)
            if figure is None:
                lines.append(f"no peer       {_name(goal)} | {row['size']}")
                continue
            wanted = goal.get("ratio", goal.get("most"))
            met = figure <= wanted * (NOISE if row["metric"] == "CPU s" else 1)
            good = good and (met or not goal.get("gate", True))
            stretch = f", stretch {goal['stretch']}" if "stretch" in goal else ""
            word = "met" if figure <= wanted else ("within noise" if met else "MISSED")
            lines.append(f"{word:13} {_name(goal)} | {row['size']}: {figure:.4g}, goal {wanted}{stretch}")
    lines += [f"FAILED        {case}: {why}" for case, why in results["failed"].items()]
    return "\n".join(lines), good


def _fits(goal: dict[str, Any], row: dict[str, Any]) -> bool:
    same = goal["case"] == row["case"] and goal["metric"] == row["metric"]
    return same and row["size"].startswith(goal.get("size", ""))


def _name(goal: dict[str, Any]) -> str:
    return f"{goal['case']} {goal.get('size', '')} {goal['metric']}"


def _figure(goal: dict[str, Any], row: dict[str, Any]) -> float | None:
    samples = row["samples"]
    if "most" in goal:
        return statistics.median(samples["ours"])
    if "of" in goal:
        peer = samples.get(goal["of"])
        return None if peer is None else statistics.median(samples["ours"]) / statistics.median(peer)
    return row["ratio"]
