"""The sound of some seconds of a user's own video."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from av.container import InputContainer

from .footage import Film, decoded, open_container, seek, sound_of


def read_sound(
    film: Film, first: Fraction, seconds: Fraction, check: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, int] | None:
    """(channels, samples) floats of the sound from a time on, and its rate; silence where the file has none.

    None for a film without sound. The last track that can be decoded counts, as in the host.
    """
    with open_container(film.source, film.state) as container:
        stream = sound_of(container)
        if stream is None:
            return None
        rate = stream.sample_rate
        samples = np.zeros((stream.codec_context.layout.nb_channels, round(seconds * rate)), np.float32)
        pieces = _pieces(container, stream, film.name, first, first)
        head = next(pieces, None)
        if head is None or head[0] > 0:  # entered too late, or there is no sound before
            pieces = _pieces(container, stream, film.name, first, Fraction(0))
            head = next(pieces, None)
        for place, piece in chain([head] if head else [], pieces):
            check()
            if place >= samples.shape[1]:
                break
            _lay(samples, piece, place)
        return samples, rate


def _pieces(
    container: InputContainer, stream: av.AudioStream, name: str, first: Fraction, entry: Fraction
) -> Iterator[tuple[int, np.ndarray]]:
    """(samples behind `first`, (channels, samples)) of the sound from about the time `entry` on."""
    rate, place = stream.sample_rate, None
    resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout.name, rate=rate)
    seek(container, entry)
    for frame in decoded(container, stream, name):
        for piece in resampler.resample(frame):
            if place is None or piece.pts is not None:
                place = round((Fraction(piece.pts or 0) * (piece.time_base or 1) - first) * rate)
            yield place, piece.to_ndarray()
            place += piece.samples


def _lay(samples: np.ndarray, piece: np.ndarray, place: int) -> None:
    """Put the part of a piece of sound that falls into `samples` there."""
    low, high = max(0, place), min(samples.shape[1], place + piece.shape[1])
    if low < high:
        samples[:, low:high] = piece[:, low - place : high - place]
