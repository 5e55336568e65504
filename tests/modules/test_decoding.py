"""Decoding in pieces: seams, halving, fallbacks and the finite check, with stand-in decoders."""

import pytest
import torch

from kinetograph.modules.decoding.chunks import (
    check_finite,
    decode_in_chunks,
    drop_first,
    with_fallbacks,
)


class NoMemory(Exception):
    """Stands for whatever a backend raises when memory runs out."""


def is_out_of_memory(error):
    return isinstance(error, NoMemory)


def per_frame(latents_nchw):
    return latents_nchw.movedim(1, -1).clone()


def sees_its_neighbours(latents_nchw):
    """A temporal decoder: every frame is averaged with those before and after it in the same call."""
    frames = per_frame(latents_nchw)
    padded = torch.cat([frames[:1], frames, frames[-1:]])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def clip(frames):
    return torch.rand(frames, 3, 2, 2, generator=torch.Generator().manual_seed(frames))


def run(decode, latents, chunk, overlap):
    return torch.cat(list(decode_in_chunks(decode, latents, chunk, overlap, is_out_of_memory)))


@pytest.mark.parametrize("overlap", [0, 1, 3, 9])
@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 50])
@pytest.mark.parametrize("frames", [1, 2, 13])
def test_per_frame_decoder_gives_the_same_frames(frames, chunk, overlap):
    latents = clip(frames)
    decoded = run(per_frame, latents, chunk, overlap)
    assert decoded.shape[0] == frames
    torch.testing.assert_close(decoded, per_frame(latents), rtol=0, atol=1e-6 if overlap else 0)


def test_seams_are_ramped():
    """Over the shared frames the new chunk's share grows by equal steps."""
    calls = []

    def constant(latents_nchw):
        calls.append(len(latents_nchw))
        return torch.full((len(latents_nchw), 2, 2, 3), float(len(calls) - 1))

    decoded = run(constant, clip(9), 6, 3)[:, 0, 0, 0]
    torch.testing.assert_close(decoded, torch.tensor([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]))


def test_overlap_brings_a_temporal_decoder_nearer_to_the_whole():
    latents = clip(24)
    whole = sees_its_neighbours(latents)
    errors = [(run(sees_its_neighbours, latents, 8, n) - whole).abs().max() for n in (0, 4)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("most", [1, 2, 4, 7])
@pytest.mark.parametrize("overlap", [0, 2])
def test_chunk_is_halved_when_memory_runs_out(most, overlap):
    def decode(latents_nchw):
        if len(latents_nchw) > most:
            raise NoMemory
        return per_frame(latents_nchw)

    latents = clip(17)
    torch.testing.assert_close(run(decode, latents, 8, overlap), per_frame(latents), rtol=0, atol=1e-6)


def test_halving_in_the_middle_loses_no_frame():
    calls = []

    def decode(latents_nchw):
        calls.append(len(latents_nchw))
        if len(calls) == 2:
            raise NoMemory
        return per_frame(latents_nchw)

    latents = clip(20)
    torch.testing.assert_close(run(decode, latents, 8, 3), per_frame(latents), rtol=0, atol=1e-6)


def test_after_three_halvings_the_error_says_what_to_do():
    sizes = []

    def decode(latents_nchw):
        sizes.append(len(latents_nchw))
        raise NoMemory

    with pytest.raises(MemoryError, match="2 frames at a time, after halving the chunk 3 times.*Tiled"):
        run(decode, clip(40), 16, 0)
    assert sizes == [16, 8, 4, 2]


def test_other_errors_pass():
    def decode(latents_nchw):
        raise RuntimeError("shape")

    with pytest.raises(RuntimeError, match="shape"):
        run(decode, clip(3), 2, 0)


def test_latents_are_left_alone():
    latents = clip(9)
    before = latents.clone()
    run(lambda z: z.movedim(1, -1), latents, 4, 2)
    assert torch.equal(latents, before)


def failing_after(frames, pieces):
    def stream():
        done = 0
        for piece in frames.split(pieces):
            if done >= 4:
                raise NoMemory
            done += len(piece)
            yield piece

    return stream


def test_fallback_continues_where_memory_ran_out():
    frames = per_frame(clip(11))
    streams = [failing_after(frames, 2), failing_after(frames, 3), lambda: iter(frames.split(4))]
    assert torch.equal(torch.cat(list(with_fallbacks(streams, is_out_of_memory))), frames)


def test_when_the_leanest_way_fails_the_error_counts_frames():
    frames = per_frame(clip(11))
    with pytest.raises(MemoryError, match="after 6 frames.*leanest of 2 exact ways"):
        list(with_fallbacks([failing_after(frames, 2), failing_after(frames, 3)], is_out_of_memory))


def test_fallback_lets_interruption_pass():
    class Interrupted(Exception):
        pass

    def stream():
        yield torch.zeros(1, 1, 1, 3)
        raise Interrupted

    with pytest.raises(Interrupted):
        list(with_fallbacks([stream, stream], is_out_of_memory))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 11, 20])
def test_drop_first(count):
    frames = per_frame(clip(11))
    kept = list(drop_first(iter(frames.split(4)), count))
    assert sum(len(piece) for piece in kept) == max(0, 11 - count)
    if kept:
        assert torch.equal(torch.cat(kept), frames[count:])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_poisoned_frame_is_named(poison):
    frames = per_frame(clip(11))
    frames[7, 0, 0, 0] = poison
    with pytest.raises(ValueError, match="Decoding gave a NaN or infinity in frame 7.*fp32-vae"):
        list(check_finite(iter(frames.split(4)), "Decoding"))


def test_finite_frames_pass():
    frames = per_frame(clip(11))
    assert torch.equal(torch.cat(list(check_finite(iter(frames.split(4)), "Decoding"))), frames)
