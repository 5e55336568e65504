"""Motion scores and buckets: the specification's vectors, which are DiffSynth's numbers."""

import pytest
import torch

from kinetograph.modules.training.data import motion


def waves(amplitude):
    """The vector's clip of 3 channels, 16 frames, 8x8, as frames in 0..1."""
    c, t, y, x = torch.meshgrid(*(torch.arange(size) for size in (3, 16, 8, 8)), indexing="ij")
    clip = amplitude * torch.sin(0.4 * t + 0.3 * x + 0.2 * y + c)
    return (clip.permute(1, 2, 3, 0) + 1) / 2


@pytest.mark.parametrize(
    ("amplitude", "score", "bucket"),
    [(0.05, 0.0365063, 12), (0.2, 0.1460251, 70), (0.6, 0.4380753, 126), (1.2, 0.876, 127), (0, 0, 0)],
)
def test_waves(amplitude, score, bucket):
    """Buckets may be off by one: only some of the thresholds are known."""
    found = motion.motion_score(waves(amplitude))
    assert found == pytest.approx(score, abs=2e-4 if amplitude > 1 else 1e-6)
    assert abs(motion.motion_bucket(found, motion.exvideo_thresholds()) - bucket) <= 1


def test_a_moving_square():
    frames = torch.zeros(16, 32, 32, 3)
    for time in range(16):
        frames[time, 12:20, time : time + 8] = 1
    score = motion.motion_score(frames)
    assert score == pytest.approx(0.1642732, abs=1e-6)
    assert motion.motion_bucket(score, motion.exvideo_thresholds()) == 77
    assert motion.motion_score(frames[:1]) == 0


def test_own_thresholds_spread_the_clips_evenly():
    generator = torch.Generator().manual_seed(3)
    scores = (torch.rand(640, generator=generator) ** 3).tolist()
    thresholds = motion.own_thresholds(scores)
    assert len(thresholds) == 128 and thresholds == sorted(thresholds) and thresholds[0] == 0
    counts = torch.tensor([motion.motion_bucket(score, thresholds) for score in scores]).bincount(
        minlength=128
    )
    assert counts.min() >= 4 and counts.max() <= 6
    assert motion.motion_bucket(0.0, thresholds) == 0 and motion.motion_bucket(9.0, thresholds) == 127
    assert motion.motion_bucket(thresholds[77], thresholds) == 77
    assert len(motion.own_thresholds([0.2])) == 128
    with pytest.raises(ValueError, match="one clip at least"):
        motion.own_thresholds([])
