"""Times and peaks of work on a card: events, the allocator's own count, candidates in turn."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

GIB = 2**30
Work = Callable[[], Any]


def device() -> str:
    """The card, or in a rehearsal the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def seconds(work: Work) -> float:
    """Time of one run between two events."""
    if device() == "cpu":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def first_run(work: Work) -> tuple[Any, dict[str, float]]:
    """(result, figures) of the first run: it also warms up. Peaks are above what lay there before."""
    if device() == "cpu":
        return work(), {"peak_gib": 0.0}
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    results: list[Any] = []
    took = seconds(lambda: results.append(work()))
    peak, most = torch.cuda.max_memory_allocated() - before, torch.cuda.max_memory_reserved() - reserved
    return results[0], {
        "peak_gib": round(peak / GIB, 3),
        "reserved_gib": round(most / GIB, 3),
        "first_seconds": round(took, 3),
    }


def in_turn(candidates: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of every candidate in every round, the order flipped each round. Warm up before."""
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds if device() == "cuda" else 1):
        names = list(candidates)
        for name in reversed(names) if number % 2 else names:
            samples[name].append(round(seconds(candidates[name]), 4))
    return samples


def beside(candidates: Mapping[str, Work], rounds: int) -> dict[str, dict[str, Any]]:
    """Figures by candidate: peak, median seconds, samples, and how far its result lies from the first one's.

    One that fails, as for want of memory, has the failure instead.
    """
    figures: dict[str, dict[str, Any]] = {}
    reference = None
    for name, work in candidates.items():
        try:
            result, figures[name] = first_run(work)
        except Exception as error:
            figures[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
            continue
        figures[name]["finite"] = bool(result.isfinite().all())
        reference = result.float() if reference is None else reference
        figures[name]["off"] = distance(result, reference)
        del result
    del reference
    able = {name: work for name, work in candidates.items() if "failed" not in figures[name]}
    for name, samples in in_turn(able, rounds).items():
        figures[name] |= {"seconds": statistics.median(samples), "samples": samples}
    return figures


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference as a share of the norm; NaN where one is not finite."""
    if ours.shape != theirs.shape:
        return float("nan")
    ours, theirs = ours.float(), theirs.float().to(ours.device)
    return float(torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs))


def quick(work: Work, repeats: int = 10) -> float:
    """Median milliseconds of something short, warmed up."""
    for _ in range(3 if device() == "cuda" else 0):
        work()
    repeats = repeats if device() == "cuda" else 1
    return round(1000 * statistics.median(seconds(work) for _ in range(repeats)), 3)
