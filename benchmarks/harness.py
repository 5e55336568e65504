"""How candidates are timed beside each other, and what a benchmark hands back."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

OURS = "ours"
MIN_ROUNDS = 5
STEADY = 0.05  # interquartile range of the per-round ratios, and the width of a tie


@dataclass(frozen=True)
class Setting:
    """What to run: the suite, the device, and which peers may take part."""

    suite: str = "smoke"
    device: str = "cpu"
    peers: frozenset[str] = frozenset({"all"})
    max_rounds: int = 9

    def wants(self, peer: str) -> bool:
        """Whether this peer takes part."""
        return "all" in self.peers or peer in self.peers

    @property
    def full(self) -> bool:
        """Whether the long suite runs."""
        return self.suite == "full"


@dataclass
class Row:
    """One size of one case measured by one metric: raw samples by candidate, lower is better."""

    size: str
    metric: str  # with its unit: "CPU s", "peak GiB"
    samples: dict[str, list[float]]
    parity: dict[str, float] = field(default_factory=dict)  # max abs difference / max abs of ours
    absent: dict[str, str] = field(default_factory=dict)  # peer -> why
    case: str = ""

    def ratios(self, peer: str) -> list[float]:
        """Ours over a peer, round by round."""
        pairs = zip(self.samples[OURS], self.samples[peer], strict=True)
        return [ours / theirs for ours, theirs in pairs]

    @property
    def best_peer(self) -> str | None:
        """The peer with the lowest median."""
        peers = [name for name in self.samples if name != OURS]
        return min(peers, key=lambda name: statistics.median(self.samples[name]), default=None)

    @property
    def ratio(self) -> float | None:
        """Median of the per-round ratios of ours to the best peer; None without peers."""
        return statistics.median(self.ratios(self.best_peer)) if self.best_peer else None

    @property
    def spread(self) -> float:
        """Interquartile range of those ratios."""
        ratios = self.ratios(self.best_peer) if self.best_peer else []
        if len(ratios) < 2:
            return 0.0
        low, _, high = statistics.quantiles(ratios, n=4)
        return high - low

    @property
    def verdict(self) -> str:
        """ "tie" where the difference does not stand out of the noise, else "faster" or "slower"."""
        if self.ratio is None:
            return "alone"
        if abs(1 - self.ratio) < max(STEADY, self.spread / 2):
            return "tie"
        return "better" if self.ratio < 1 else "worse"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the raw samples and what follows from them."""
        derived = {"best_peer": self.best_peer, "ratio": self.ratio, "spread": self.spread}
        return {**asdict(self), **derived, "verdict": self.verdict}


def compare(
    candidates: dict[str, Callable[[], Any]], setting: Setting, rounds: int | None = None
) -> tuple[str, dict[str, list[float]]]:
    """Time every candidate in every round, the order flipped each round; (metric, samples).

    On CPU it is this process's CPU time, on CUDA the time between two events. One warm-up each. At least
    five rounds, more until the ratio to the best peer is steady or `setting.max_rounds` is reached.
    """
    clock, metric = (_cuda_seconds, "CUDA s") if setting.device == "cuda" else (_cpu_seconds, "CPU s")
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    with torch.inference_mode():
        for run in candidates.values():
            run()
        for done in range(1, (rounds or setting.max_rounds) + 1):
            names = list(candidates)
            for name in names if done % 2 else reversed(names):
                samples[name].append(clock(candidates[name]))
            if done >= MIN_ROUNDS and Row("", metric, samples).spread < STEADY:
                break
    return metric, samples


def _cpu_seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _cuda_seconds(run: Callable[[], Any]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def assert_parity(ours: Tensor, peers: dict[str, Tensor], tolerance: float) -> dict[str, float]:
    """Relative differences by peer; AssertionError where one is above `tolerance`: nothing is timed then."""
    scale = ours.abs().max()
    errors = {}
    for name, theirs in peers.items():
        if theirs.shape != ours.shape:
            raise AssertionError(f"{name} gives {tuple(theirs.shape)}, ours {tuple(ours.shape)}.")
        errors[name] = float((ours - theirs).abs().max() / scale)
        if not errors[name] <= tolerance:
            raise AssertionError(f"{name} differs from ours by {errors[name]:.2e}, allowed {tolerance:.0e}.")
    return errors


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {}
    for package in ("torch", "diffusers", "diffsynth", "transformers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()
