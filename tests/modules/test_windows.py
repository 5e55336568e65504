"""Context windows: their frames, weights, prompts and noise against the published rules, written down once more."""

import ast
import importlib.util
import itertools
from pathlib import Path

import pytest
import torch

from kinetograph.modules.sampling.windows import FUSE_METHODS, SCHEDULES, WindowPlan, reversed_bits

STEPS = (0, 1, 2, 3, 7, 12)
# clip, window, overlap, stride
SIZES = [
    (frames, length, overlap, stride)
    for frames, length, stride in itertools.product(
        (3, 9, 17, 18, 24, 33, 40, 47, 64, 100), (2, 5, 8, 12, 16), (1, 2, 3)
    )
    for overlap in sorted({0, 1, length // 4, length // 2, length - 1})
    if frames > length > overlap
]


def half(step):
    """The bits of a step read backwards behind the point."""
    return int(f"{step:032b}"[::-1], 2) / 2**32


def circle(frames, length, overlap, stride, step, closed):
    """Looped uniform, as Evolved: rounds of wider and wider paces around the clip."""
    rounds = 1
    while rounds < stride and length * 2 ** (rounds - 1) < frames:
        rounds += 1
    found = []
    for pace in (2**number for number in range(rounds)):
        start = int(half(step) * pace) + round(frames * half(step))
        end = round(frames * half(step)) + frames - (0 if closed else overlap)
        while start < end:
            found.append([place % frames for place in range(start, start + length * pace, pace)])
            start += length * pace - overlap
    return found


def line(frames, length, overlap, stride, step):
    """Standard uniform: what runs over the end is moved back, what that leaves out begins anew."""
    rounds = circle(frames, length, overlap, stride, step, closed=False)
    number = 0
    while number < len(rounds):
        window = rounds[number]
        falls = [place for place in range(1, length) if window[place] < window[place - 1]]
        if falls:
            first = window[falls[0]]
            gap = frames - 1 - window[-1]
            rounds[number] = [(frame + gap) % frames for frame in window]
            if first not in rounds[(number + 1) % len(rounds)]:
                rounds.insert(number + 1, list(range(first, first + length)))
        number += 1
    return [window for number, window in enumerate(rounds) if window not in rounds[:number]]


def test_the_worked_example():
    """Of the spec: 40 frames, windows of 16, overlap 4."""
    expected = [list(range(0, 16)), list(range(12, 28)), list(range(24, 40))]
    for schedule in ("standard_static", "standard_uniform", "looped_uniform"):
        assert WindowPlan(schedule, 16, 4).windows(40, 0) == expected
    turned = [list(range(20, 36)), [*range(32, 40), *range(8)], list(range(4, 20))]
    assert WindowPlan("looped_uniform", 16, 4).windows(40, 1) == turned
    assert WindowPlan("batched", 16).windows(40, 3) == [
        list(range(0, 16)),
        list(range(16, 32)),
        list(range(32, 40)),
    ]


def test_bits_are_read_backwards():
    assert [reversed_bits(step) for step in range(6)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625]


@pytest.mark.parametrize("closed", [False, True])
def test_looped_uniform(closed):
    compared = 0
    for size, step in itertools.product(SIZES, STEPS):
        frames, length, overlap, stride = size
        ours = WindowPlan("looped_uniform", length, overlap, stride, closed).windows(frames, step)
        assert ours == circle(*size, step, closed), (size, step)
        compared += 1
    assert compared > 2268


def test_standard_uniform():
    """Equal but where the rule leaves frames out: there a window was added for each."""
    compared, added = 0, []
    for size, step in itertools.product(SIZES, STEPS):
        frames, length, overlap, stride = size
        ours = WindowPlan("standard_uniform", length, overlap, stride).windows(frames, step)
        theirs = line(*size, step)
        assert ours[: len(theirs)] == theirs, (size, step)
        if missing := set(range(frames)).difference(*theirs):
            added.append(size)
        assert bool(missing) == (len(ours) > len(theirs))
        compared += 1
    assert compared > 2268 and 0 < len(added) < 20 and {size[3] for size in added} <= {2, 3}


def test_standard_static():
    compared = 0
    for frames, length, overlap, _ in SIZES:
        ours = WindowPlan("standard_static", length, overlap).windows(frames)
        starts, hop = [window[0] for window in ours], length - overlap
        assert [window == list(range(window[0], window[0] + length)) for window in ours] == [True] * len(ours)
        assert starts[:-1] == list(range(0, frames - length, hop)) and starts[-1] == frames - length
        compared += 1
    assert compared > 300


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_frame_is_in_a_window(schedule):
    """Elsewhere a clip would be 0 / 0 there. And no window leaves the clip, or is empty."""
    compared = 0
    for (frames, length, overlap, stride), step in itertools.product(SIZES, STEPS):
        if schedule == "batched" and overlap:
            continue
        windows = WindowPlan(schedule, length, overlap, stride).windows(frames, step)
        assert set().union(*windows) == set(range(frames)), (frames, length, overlap, stride, step)
        assert all(0 < len(window) <= length for window in windows)
        if schedule not in ("standard_truncated", "batched"):
            assert {len(window) for window in windows} == {length}
        compared += 1
    assert compared > 300


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_clip_that_fits_is_one_window(schedule):
    for frames in (1, 7, 16):
        assert WindowPlan(schedule, 16, 4, 2, True).windows(frames, 3) == [list(range(frames))]


@pytest.fixture(scope="module")
def diffsynth(tmp_path_factory):
    """Its long-video loop with a network of our own in it, taken out of its file: the pipeline needs much more."""
    spec = importlib.util.find_spec("diffsynth")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("diffsynth is not installed")
    path = Path(spec.submodule_search_locations[0]) / "pipelines" / "sd_video.py"
    named = {node.name: node for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}
    alone = tmp_path_factory.mktemp("diffsynth") / "long_video.py"
    loop = ast.unparse(named["lets_dance_with_long_video"])
    alone.write_text(f"from __future__ import annotations\nimport torch\n{loop}")
    spec = importlib.util.spec_from_file_location("long_video", alone)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.lets_dance = lambda network, motion, control, sample, *_, **__: network(sample)
    return module.lets_dance_with_long_video


@pytest.mark.parametrize("frames", [16, 24, 33, 40, 61])
def test_diffsynths_long_video(diffsynth, frames):
    """Its windows of 16, a stride of 8, the last one cut off; its running mean is ours by relative weights."""
    x, starts = torch.randn(frames, 4, generator=torch.manual_seed(frames)).double(), []

    def network(part):
        (start,) = (place for place in range(frames) if torch.equal(x[place], part[0]))
        starts.append((start, start + len(part)))
        return part.cumsum(0) * (1 + 0.1 * start)

    theirs = diffsynth(network, None, None, x, device="cpu")
    plan = WindowPlan("standard_truncated", 16, 8, fuse="relative")
    windows = plan.windows(frames)
    assert [(window[0], window[-1] + 1) for window in windows] == starts
    total, count = torch.zeros_like(x), torch.zeros(frames, 1, dtype=torch.float64)
    for window in windows:
        weights = torch.tensor(plan.weights(window, frames), dtype=torch.float64)[:, None]
        total[window] += network(x[window]) * weights
        count[window] += weights
    assert torch.allclose(total / count, theirs, rtol=1e-12, atol=1e-12)


class TestWeights:
    def weights(self, fuse, window, frames=40, overlap=4, closed=False):
        return WindowPlan("looped_uniform", len(window), overlap, 1, closed, fuse).weights(window, frames)

    @pytest.mark.parametrize("fuse", FUSE_METHODS)
    def test_one_for_each_frame_and_none_is_zero(self, fuse):
        for length, start in itertools.product((1, 2, 5, 8, 16), (0, 7, 35)):
            window = [(start + place) % 40 for place in range(length)]
            weights = self.weights(fuse, window, overlap=min(4, length - 1))
            assert len(weights) == length and min(weights) > 0

    def test_flat_and_pyramid(self):
        assert self.weights("flat", list(range(3, 8))) == [1] * 5
        assert self.weights("pyramid", list(range(5))) == [1, 2, 3, 2, 1]
        assert self.weights("pyramid", list(range(6))) == [1, 2, 3, 3, 2, 1]

    def test_relative_is_the_formula(self):
        a, b = 12, 28
        formula = [max(1 - abs(i - (a + b - 1) / 2) / ((b - a - 1 + 0.01) / 2), 0.01) for i in range(a, b)]
        assert self.weights("relative", list(range(a, b))) == pytest.approx(formula, abs=1e-12)
        over_the_end = [*range(32, 40), *range(8)]
        assert self.weights("relative", over_the_end) == pytest.approx(formula, abs=1e-12)

    def test_ramps_over_the_overlap(self):
        ramp = pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-5)
        for window, up, down in [
            (list(range(16)), False, True),
            (list(range(12, 28)), True, True),
            (list(range(24, 40)), True, False),
        ]:
            weights = self.weights("overlap-linear", window)
            assert weights[4:12] == [1] * 8
            assert weights[:4] == (ramp if up else [1] * 4)
            assert weights[:-5:-1] == (ramp if down else [1] * 4)

    def test_a_loop_has_no_ends(self):
        ramp = pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-5)
        for start in (0, 24, 32):
            weights = self.weights(
                "overlap-linear", [(start + place) % 40 for place in range(16)], closed=True
            )
            assert weights[:4] == ramp and weights[:-5:-1] == ramp

    def test_neighbours_make_one(self):
        first, second = list(range(16)), list(range(12, 28))
        both = [
            self.weights("overlap-linear", first)[12 + place] + self.weights("overlap-linear", second)[place]
            for place in range(4)
        ]
        assert both == pytest.approx([1] * 4, abs=1e-5)


class TestPrompts:
    def followed(self, plan, frames, count, step=0):
        return plan.prompts(plan.windows(frames, step), frames, count)

    def test_as_many_prompts_as_windows(self):
        """Each has its own, whatever the overlap, and where the last window lies close behind the one before."""
        for overlap, frames in ((4, 124), (12, 52), (15, 25), (4, 117), (12, 49)):
            assert self.followed(WindowPlan("standard_static", 16, overlap), frames, 10) == list(range(10))

    def test_shares_are_equal(self):
        assert self.followed(WindowPlan("standard_static", 16, 8), 104, 3) == [0] * 4 + [1] * 4 + [2] * 4
        assert self.followed(WindowPlan("standard_static", 16, 8), 104, 1) == [0] * 12

    def test_by_the_order_of_the_clip(self):
        """Not of the list, which starts elsewhere at every step: windows from 20, 24, 0 and 4, by twos."""
        plan = WindowPlan("standard_uniform", 16, 4)
        assert [window[0] for window in plan.windows(40, 1)] == [20, 24, 0, 4]
        assert self.followed(plan, 40, 2, step=1) == [1, 1, 0, 0]

    def test_around_a_loop(self):
        """Middles 7.5, 19.5, 31.5 and 43.5 of 48; over the end 43.5, 3.5, 47.5 and 0.5."""
        plan = WindowPlan("looped_uniform", 16, 4, 1, True)
        assert self.followed(plan, 48, 4) == [0, 1, 2, 3]
        over = [[(start + place) % 48 for place in range(16)] for start in (36, 44, 40, 41)]
        assert plan.prompts(over, 48, 4) == [3, 0, 3, 0]
        wide = WindowPlan("looped_uniform", 4, 1, 2, True)
        assert wide.prompts([[45, 47, 1, 3]], 48, 4) == [0]

    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_one_window_follows_the_first(self, schedule):
        assert self.followed(WindowPlan(schedule, 16, 4), 9, 1) == [0]


class TestFreeNoise:
    def test_blocks_are_shuffled(self):
        """FreeNoise: behind one window, a block of hop frames holds the noise of the one a window earlier."""
        compared = 0
        for frames, length, overlap, _ in SIZES:
            hop = length - overlap
            order = WindowPlan("standard_static", length, overlap).noise_order(frames, 5)
            assert order[:length] == list(range(length)) and len(order) == frames
            for place in range(length, frames, hop):
                block = order[place : place + hop]
                assert sorted(block) == sorted(order[place - length : place - length + len(block)])
                compared += 1
        assert compared > 1000

    def test_seeds(self):
        plan = WindowPlan("standard_static", 16, 4)
        order = plan.noise_order(64, 5)
        assert order == plan.noise_order(64, 5) != plan.noise_order(64, 6)
        assert order[16:28] != list(range(12))
        assert plan.noise_order(64, 2**64 - 1)[:16] == list(range(16))

    def test_a_clip_of_one_window_keeps_its_noise(self):
        assert WindowPlan("standard_static", 16, 4).noise_order(9, 5) == list(range(9))
