"""Results as tables, results against goals, and a checkout against another."""

import statistics
from pathlib import Path
from typing import Any

MET, MISSED = "met", "MISSED"
TIE = 0.05  # of two checkouts' times


def table(results: dict[str, Any]) -> str:
    """Every row: candidates' medians, the ratio to the best peer; modes that change the picture stand apart."""
    lines = [f"{key}: {value}" for key, value in results["machine"].items()] + [""]
    for row in results["rows"]:
        lines += _lines(row) if row["exact"] else []
    inexact = [row for row in results["rows"] if not row["exact"]]
    if inexact:
        lines += ["", "Modes that change the picture, beside our exact one:"]
        for row in inexact:
            lines += [*_lines(row), *(f"    {peer}: {dB:.1f} dB to ours" for peer, dB in row["psnr"].items())]
    lines += [f"FAILED {case}: {why}" for case, why in results["failed"].items()]
    return "\n".join(lines)


def _lines(row: dict[str, Any]) -> list[str]:
    medians = {name: statistics.median(values) for name, values in row["samples"].items()}
    figures = "  ".join(f"{name} {value:.4g}" for name, value in medians.items())
    return [
        f"{_place(row)} | {row['metric']} | {figures} | {_ratio(row)}",
        *(f"    absent: {peer}: {why}" for peer, why in row["absent"].items()),
        *(f"    parity with {peer}: {error:.1e}" for peer, error in row["parity"].items()),
    ]


def _place(row: dict[str, Any]) -> str:
    threads = row["threads"]
    unit = "thread" if threads == 1 else "threads"
    return f"{row['case']} | {row['size']}" + (f" | {threads} {unit}" if threads else "")


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return "no peer"
    spread = f"minima {row['ratio_of_minima']:.3f}, IQR {row['spread']:.3f}, " if row["threads"] else ""
    return f"{row['ratio']:.3f} of {row['best_peer']} ({spread}{row['verdict']})"


def read_goals(path: Path) -> list[dict[str, Any]]:
    """The goals of a TOML file: a list of tables named `goal`."""
    import tomllib  # Python 3.11; only `check` needs it

    return tomllib.loads(path.read_text())["goal"]


def check(results: dict[str, Any], goals: list[dict[str, Any]]) -> tuple[str, bool]:
    """A line per goal and row, and whether every goal that was measured is met and no case broke.

    A goal names `case`, `metric` and the start of `size`, and sets `ratio` (to the best peer, or to the
    peer named in `of`) or `most` (an absolute figure); `stretch` is shown only. It holds for every number of
    threads. A figure over its goal is a miss, by however little. Where a ratio is a tie with the peer the
    line says so; that changes nothing.
    """
    lines, missed = [], len(results["failed"])
    for goal in goals:
        rows = [row for row in results["rows"] if _fits(goal, row)]
        if not rows:
            lines.append(f"not measured  {_name(goal)}")
        for row in rows:
            figure = _figure(goal, row)
            if figure is None:
                lines.append(f"no peer       {_name(goal)} | {_place(row)}")
                continue
            wanted = goal.get("ratio", goal.get("most"))
            word = MET if figure <= wanted else MISSED
            missed += word == MISSED
            stretch = f", stretch {goal['stretch']}" if "stretch" in goal else ""
            lines.append(
                f"{word:13} {_place(row)} | {row['metric']}: {figure:.4g}, goal {wanted}{stretch}{_tie(goal, figure)}"
            )
    lines += [f"FAILED        {case}: {why}" for case, why in results["failed"].items()]
    lines.append(f"{missed} missed or failed" if missed else "every goal that was measured is met")
    return "\n".join(lines), not missed


def _tie(goal: dict[str, Any], figure: float) -> str:
    return ", a tie" if "ratio" in goal and abs(1 - figure) < TIE else ""


def _fits(goal: dict[str, Any], row: dict[str, Any]) -> bool:
    same = goal["case"] == row["case"] and goal["metric"] == row["metric"]
    return same and row["size"].startswith(goal.get("size", "")) and row["exact"]


def _name(goal: dict[str, Any]) -> str:
    return f"{goal['case']} | {goal.get('size', '')} | {goal['metric']}"


def _figure(goal: dict[str, Any], row: dict[str, Any]) -> float | None:
    samples = row["samples"]
    if "most" in goal:
        return statistics.median(samples["ours"])
    if "of" in goal:
        peer = samples.get(goal["of"])
        return None if peer is None else statistics.median(samples["ours"]) / statistics.median(peer)
    return row["ratio"]


def comparison(results: dict[str, Any]) -> tuple[str, bool]:
    """What changed between two checkouts, and whether nothing became worse.

    A peak is worse with one byte more; CPU time is slower where both the median of the rounds' ratios and the ratio
    of the minima lie above the tie band, faster where both lie below it. Time on the wall is only shown.
    """
    lines, worse = [], len(results["failed"])
    for row in results["rows"]:
        if row["metric"] == "peak bytes":
            new, old = (int(row["samples"][name][0]) for name in ("ours", "old"))
            word = "equal" if new == old else ("lower" if new < old else "HIGHER")
            lines.append(f"{word:7} {_place(row)}: {new:,} bytes, before {old:,}")
        elif row["metric"] == "CPU s":
            ratios = row["ratio"], row["ratio_of_minima"]
            word = "SLOWER" if min(ratios) > 1 + TIE else ("faster" if max(ratios) < 1 - TIE else "tie")
            figures = "median {:.3f}, minima {:.3f}".format(*ratios)
            lines.append(f"{word:7} {_place(row)}: CPU time over that before, {figures}")
        else:
            continue
        worse += word.isupper()
    lines += [f"FAILED  {case}: {why}" for case, why in results["failed"].items()]
    return "\n".join(lines), not worse
