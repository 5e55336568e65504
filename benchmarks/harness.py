"""How candidates are timed beside each other, and what a benchmark hands back."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

OURS = "ours"
MIN_ROUNDS = 5
STEADY = 0.05  # an interquartile range of the per-round ratios that needs no more rounds
TIE = 0.05  # candidates that lie closer to each other are called a tie
Work = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """What to run: the suite, the device, the threads of this process, and which peers may take part."""

    suite: str = "smoke"
    device: str = "cpu"
    peers: frozenset[str] = frozenset({"all"})
    max_rounds: int = 9
    threads: int = 1
    case: str = ""
    old: str = ""  # folder of another checkout to compare with

    def wants(self, peer: str) -> bool:
        """Whether this peer takes part; behind a comma stands its mode."""
        return "all" in self.peers or peer.split(",")[0] in self.peers

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
    threads: int | None = None  # None where no clock ran
    exact: bool = True  # else peers' modes that change the picture: a table of their own, no goals
    psnr: dict[str, float] = field(default_factory=dict)  # dB of those modes to ours

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
    def ratio_of_minima(self) -> float | None:
        """Of the fewest seconds, in which neighbours disturb the least; None without peers."""
        return min(self.samples[OURS]) / min(self.samples[self.best_peer]) if self.best_peer else None

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
        """ "alone", "better", "worse", or "tie" within five per cent of the best peer.

        It says nothing of a goal: those are met or missed by the figure itself.
        """
        if self.ratio is None:
            return "alone"
        if abs(1 - self.ratio) < TIE:
            return "tie"
        return "better" if self.ratio < 1 else "worse"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the raw samples and what follows from them."""
        names = ("best_peer", "ratio", "ratio_of_minima", "spread", "verdict")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


def time_rows(
    size: str,
    candidates: Mapping[str, Work],
    setting: Setting,
    parity: dict[str, float] | None = None,
    absent: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """A row for each clock, all of the same rounds."""
    for metric, samples in in_turn(candidates, setting).items():
        yield Row(size, metric, samples, dict(parity or {}), dict(absent or {}), threads=setting.threads)


def in_turn(candidates: Mapping[str, Work], setting: Setting) -> dict[str, dict[str, list[float]]]:
    """Every candidate in every round, the order flipped each round: samples by metric and candidate.

    On CPU it is this process's CPU time, with several threads the time on the wall as well; on CUDA the time
    between two events. One warm-up each. At least five rounds, more until the ratio to the best peer by the
    first metric is steady or `setting.max_rounds` is reached.
    """
    clock = _cuda_seconds if setting.device == "cuda" else _seconds
    metrics = ["CUDA s"] if setting.device == "cuda" else ["CPU s", "wall s"][: min(setting.threads, 2)]
    samples: dict[str, dict[str, list[float]]] = {name: {key: [] for key in candidates} for name in metrics}
    with torch.inference_mode():
        for run in candidates.values():
            run()
        for done in range(1, setting.max_rounds + 1):
            names = list(candidates)
            for name in names if done % 2 else reversed(names):
                for metric, figure in zip(metrics, clock(candidates[name]), strict=False):
                    samples[metric][name].append(figure)
            if done >= MIN_ROUNDS and Row("", metrics[0], samples[metrics[0]]).spread < STEADY:
                break
    return samples


def _seconds(run: Work) -> tuple[float, float]:
    """(CPU of all threads, wall)."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def _cuda_seconds(run: Work) -> tuple[float]:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return (begin.elapsed_time(end) / 1000,)


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


def psnr(ours: Tensor, theirs: Tensor) -> float:
    """dB between two pictures whose colours span [-1, 1]."""
    error = (ours - theirs).double().square().mean()
    return float(10 * torch.log10(4 / error))


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
