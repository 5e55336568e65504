"""A long video in segments: how many frames, how two are joined, what holds colours, what is kept on disk."""

import json

import pytest
import torch

from kinetograph.modules.sampling.segments import Colours, Joiner, SegmentPlan, cross_fade, skip
from kinetograph.modules.videofile.errors import VideoError
from kinetograph.modules.videofile.segments import SegmentStore


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pieces(frames, lengths):
    return iter(frames.split(lengths))


@pytest.mark.parametrize(
    "count, overlap, loop, total",
    [(1, 4, False, 17), (8, 4, False, 108), (3, 4, True, 39), (3, 1, False, 49)],
)
def test_frames_of_a_plan(count, overlap, loop, total):
    """predict_i2v of the reference: the origin of the next segment is P - overlap on."""
    assert SegmentPlan(count, 17, overlap, loop).total == total


@pytest.mark.parametrize("overlap", [0, 9, -1])
def test_an_overlap_that_leaves_nothing_new_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap must be 1 to 8 for segments of 17 frames"):
        SegmentPlan(2, 17, overlap)


def test_a_cross_fade_is_the_references():
    """old * (1 - i / 4) + new * i / 4."""
    old, new = draw(4, 2, 2, 3), draw(4, 2, 2, 3, seed=1)
    wanted = torch.stack([old[i] * (1 - i / 4) + new[i] * i / 4 for i in range(4)])
    torch.testing.assert_close(cross_fade(old, new), wanted)
    assert torch.equal(cross_fade(old, new)[0], old[0])


@pytest.mark.parametrize("overlap", [1, 4])
@pytest.mark.parametrize("lengths", [[17], [1, 4, 4, 4, 4], [2, 1, 14], [9, 8]])
def test_segments_are_joined_as_a_whole_video_would_be(overlap, lengths):
    segments = [draw(17, 2, 2, 3, seed=seed) for seed in range(3)]
    joiner = Joiner(overlap)
    came = [piece for frames in segments for piece in joiner.join(pieces(frames, lengths))]
    came = torch.cat([*came, joiner.tail])
    whole = segments[0]
    for frames in segments[1:]:
        seam = cross_fade(whole[-overlap:], frames[:overlap])
        whole = torch.cat([whole[:-overlap], seam, frames[overlap:]])
    assert torch.equal(came, whole) and len(whole) == SegmentPlan(3, 17, overlap).total


def test_the_tail_holds_no_more_than_itself():
    """A view would keep the whole piece alive while the next segment is sampled."""
    joiner = Joiner(4)
    list(joiner.join(iter([draw(17, 8, 8, 3)])))
    assert joiner.tail.untyped_storage().nbytes() == joiner.tail.numel() * 4


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_frames_are_left_out_in_front(count):
    frames = draw(9, 1, 1, 3)
    assert torch.equal(torch.cat(list(skip(pieces(frames, [1, 4, 4]), count))), frames[count:])


@pytest.mark.parametrize("shape", [(1, 16, 5, 4, 4), (14, 4, 6, 6)], ids=["clip", "frames on the batch"])
def test_colours_are_held(shape):
    first, later = draw(*shape), 0.3 + 1.7 * draw(*shape, seed=1)
    colours = Colours.of(first)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    held = colours.hold(later, 1.0)
    torch.testing.assert_close(held.mean(axes), first.mean(axes))
    torch.testing.assert_close(held.std(axes), first.std(axes))
    torch.testing.assert_close(colours.hold(later, 0.0), later)
    half = colours.hold(later, 0.5).mean(axes)
    torch.testing.assert_close(half, (first.mean(axes) + later.mean(axes)) / 2)


KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path):
    return SegmentStore(tmp_path / "clip_segments")


def test_a_segment_comes_back_as_it_was(store):
    latents = draw(1, 16, 5, 4, 4).half()
    store.keep(3, KEY, latents, {"seed": "7"})
    assert torch.equal(store.load(3, KEY), latents)
    assert store.load(3, OTHER) is None and store.load(2, KEY) is None
    assert sorted(path.suffix for path in store.folder.iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize(
    "harm", ["cut", "changed", "no note", "no latents", "note of another", "note is no JSON"]
)
def test_half_a_segment_does_not_count(store, harm):
    store.keep(1, KEY, draw(1, 16, 2, 4, 4), {})
    file, note = (next(store.folder.glob(f"*{ending}")) for ending in (".safetensors", ".json"))
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif harm == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
    elif harm == "no note":
        note.unlink()
    elif harm == "no latents":
        file.unlink()
    elif harm == "note of another":
        note.write_text(json.dumps({**json.loads(note.read_text()), "key": OTHER}))
    else:
        note.write_text("{")
    assert store.load(1, KEY) is None


def test_what_was_left_of_a_killed_run_is_written_over(store):
    store.folder.mkdir()
    (store.folder / f".0001_{KEY[:16]}.safetensors.half").write_bytes(b"half")
    store.keep(1, KEY, draw(1, 16, 2, 4, 4), {})
    assert store.load(1, KEY) is not None and list(store.folder.glob("*.half")) == []


def test_segments_are_removed_and_nothing_else(store):
    for number, key in ((1, KEY), (2, KEY), (2, OTHER)):
        store.keep(number, key, draw(1, 16, 1, 2, 2), {})
    (store.folder / "mine.txt").write_text("x")
    store.remove_others({1: KEY, 2: OTHER})
    assert store.load(2, KEY) is None and store.load(1, KEY) is not None and store.load(2, OTHER) is not None
    store.remove({1: KEY, 2: OTHER})
    assert [path.name for path in store.folder.iterdir()] == ["mine.txt"]
    (store.folder / "mine.txt").unlink()
    store.remove({})
    assert not store.folder.exists()


def test_a_disk_without_room_is_told_before_anything_runs(store):
    assert "4 segments take" in store.check_room(4, 1000)
    with pytest.raises(VideoError, match="segments take .* free some space"):
        store.check_room(10, 10**18)


def test_a_disk_that_fails_is_told(store):
    store.folder.write_text("a file in its place")
    with pytest.raises(VideoError, match="Segment 2 could not be kept"):
        store.keep(2, KEY, draw(1, 16, 1, 2, 2), {})
