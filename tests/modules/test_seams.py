"""The seam meter on frames whose jumps are known."""

import pytest
import torch

from kinetograph.modules.decoding.chunks import decode_in_chunks
from kinetograph.modules.decoding.seams import SeamMeter, SeamReport

STEP = 1 / 255


class NoMemory(Exception):
    """Stands for whatever a backend raises when memory runs out."""


def is_out_of_memory(error):
    return isinstance(error, NoMemory)


def ramp(frames):
    """Latents whose frames get brighter by one step each."""
    return torch.arange(frames, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 4, 5) * STEP


class Decoder:
    """Latents as they are, with every chunk brighter by `lift` steps than the one before."""

    def __init__(self, lift, fails=()):
        self.lift, self.fails, self.calls, self.done = lift, fails, 0, 0

    def __call__(self, latents_nchw):
        self.calls += 1
        if self.calls in self.fails:
            raise NoMemory
        self.done += 1
        return latents_nchw.movedim(1, -1) + (self.done - 1) * self.lift * STEP


def measure(decode, frames, chunk, overlap):
    meter = SeamMeter()
    stream = decode_in_chunks(decode, ramp(frames), chunk, overlap, is_out_of_memory, meter.add_chunk)
    watched = torch.cat(list(meter.watch(stream)))
    return watched, meter.report()


def test_a_hard_seam_is_found():
    frames, report = measure(Decoder(lift=3), 12, 4, 0)
    assert len(frames) == 12
    assert report.chunks == (4, 4, 4) and report.blended == 0
    assert report.at_border == pytest.approx(4 * STEP, rel=1e-4)
    assert report.inside == pytest.approx(STEP, rel=1e-4)
    assert report.border_frame in (4, 8)
    frame = report.border_frame
    assert report.text() == (
        f"3 chunks of 4 frames, not blended: largest jump at a border 4.0 / 255 (frames {frame - 1}-{frame}), "
        "median inside 1.0 / 255, ratio 4.0"
    )


def test_a_blended_seam_is_spread_over_its_ramp():
    """Two shared frames: the lift of 3 steps comes in three equal parts, on top of one step a frame."""
    _, report = measure(Decoder(lift=3), 10, 6, 2)
    assert report.chunks == (6, 6) and report.blended == 2
    assert report.at_border == pytest.approx(2 * STEP, rel=1e-4)
    assert report.border_frame in (4, 5, 6)
    assert report.inside == pytest.approx(STEP, rel=1e-4)
    assert report.text().startswith("2 chunks of 6 frames, 2 blended: largest jump at a border 2.0 / 255")


def test_all_pairs_of_a_ramp_are_border_and_no_others():
    meter = SeamMeter()
    frames = ramp(10).movedim(1, -1).clone()
    for later, jump in ((4, 0.2), (6, 0.3), (3, 0.5), (7, 0.5)):
        frames[later:] += jump * (-1) ** later
    meter.add_chunk(0, 6, 0)
    meter.add_chunk(4, 10, 2)
    list(meter.watch(iter([])))  # an empty clip before it changes nothing
    meter = SeamMeter()

    def stream():
        meter.add_chunk(0, 6, 0)
        yield frames[:4]
        meter.add_chunk(4, 10, 2)
        yield frames[4:]

    list(meter.watch(stream()))
    report = meter.report()
    assert report.border_frame == 6 and report.at_border == pytest.approx(0.3 + STEP, rel=1e-4)


def test_one_chunk_has_no_seams():
    _, report = measure(Decoder(lift=3), 5, 8, 2)
    assert report.at_border is None and report.ratio is None
    assert report.text() == "Decoded in one piece: there are no seams."


def test_without_chunks_there_are_no_seams():
    """A causal VAE streams exactly and announces nothing."""
    meter = SeamMeter()
    list(meter.watch(iter(ramp(9).movedim(1, -1).split(2))))
    assert meter.report().at_border is None
    assert meter.report().inside == pytest.approx(STEP, rel=1e-4)
    assert "no seams" in meter.report().text()


def test_single_frames_have_nothing_to_compare_with():
    _, report = measure(Decoder(lift=3), 4, 1, 2)
    assert report.inside is None and report.ratio is None
    assert "4 chunks of 1 frame, not blended" in report.text()
    assert "no frames inside a chunk to compare with" in report.text()


def test_a_still_picture_has_no_ratio():
    report = SeamReport((4, 4), 0, 0.1, 4, 0.0)
    assert report.ratio is None and "nothing moves inside" in report.text()


def test_borders_move_with_a_halved_chunk():
    """8 frames, then memory runs out and it goes on with 4: from frame 6 on ramp follows ramp."""
    _, report = measure(Decoder(lift=3, fails={2}), 16, 8, 2)
    assert report.chunks == (8, 4, 4, 4, 4)
    assert "5 chunks of up to 8 frames, 2 blended" in report.text()
    assert report.at_border == pytest.approx(3 * STEP, rel=1e-4)
    assert report.inside == pytest.approx(STEP, rel=1e-4)


@pytest.mark.parametrize("overlap", [3, 5, 7])
def test_a_tail_longer_than_the_halved_chunk_loses_no_frame(overlap):
    frames, report = measure(Decoder(lift=0, fails={2, 3}), 24, 8, overlap)
    torch.testing.assert_close(frames, ramp(24).movedim(1, -1), rtol=0, atol=1e-6)
    assert report.ratio == pytest.approx(1, abs=1e-3)


def test_clips_are_not_compared_with_each_other():
    meter, decode = SeamMeter(), Decoder(lift=0)
    for _ in range(2):
        stream = decode_in_chunks(decode, ramp(8), 4, 0, is_out_of_memory, meter.add_chunk)
        list(meter.watch(stream))
    report = meter.report()
    assert report.chunks == (4, 4, 4, 4)
    assert report.at_border == pytest.approx(STEP, rel=1e-4)  # the jump back by seven steps is none


def test_frames_pass_unchanged_and_are_not_kept():
    frames = torch.rand(6, 2, 2, 3)
    meter = SeamMeter()
    passing = meter.watch(iter(frames.split(3)))
    assert torch.equal(next(passing), frames[:3])
    last = passing.gi_frame.f_locals["last"]
    assert last.untyped_storage().nbytes() == last.nbytes
