"""A user's own pictures and videos: what size and length a clip of them has, and the clip itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...modules.conditioning import sizes
from ...modules.conditioning.first_frame import fit_image
from ...modules.families import FAMILIES
from ...modules.families.family import FrameRule
from ...modules.grid import LatentGrid
from ...modules.videofile import footage, soundtrack
from ...modules.videofile.encoding import exact_rate
from ..host.backend import machine_memory
from ..host.description import VideoModel, describe
from ..host.footage import FrameSource, Sound, StreamedVideo, file_of, held_source
from ..host.progress import check_interrupted, steps
from .latents import GRIDS

RULES = ("bucket", "tokens", "keep")
# without a MODEL: CogVideoX's frames, and sizes that all its releases take
USUAL = GRIDS[FAMILIES[0].id]
# what Fun's own scripts redraw a video at: the frames in between are left out
FUN_RATE = 8


@dataclass(frozen=True)
class SizeRule:
    """How a size follows from a picture: SizeFromImage's choices."""

    name: str
    base: int = 512
    # a key of sizes.TOKENS
    tokens: int | None = None


@dataclass(frozen=True)
class Wish:
    """What FitVideo is to make of a video; 0 is the video's own, and for `every` Fun's rule."""

    start: float
    frame_rate: float
    every: int
    num_frames: int
    width: int
    height: int
    fit: str


def choose_size(
    media: Any, rule: SizeRule, num_frames: int, model: Any, node: str
) -> tuple[int, int, int, str]:
    """(width, height, frames, report) of a clip that starts from a picture, or is made of a video."""
    described = None if model is None else describe(model, node)
    grid = USUAL if described is None else described.grid
    there, width, height, what = _measure(media, node)
    multiple = grid.multiple_hw
    if rule.name == "keep":
        size = sizes.own_size(width, height, multiple)
        why = f"its own size in multiples of {multiple}, {sizes.LEAST} to {sizes.MOST} pixels"
    else:
        size = sizes.bucket_size(width, height, rule.base, multiple)
        why = f"the nearest of {len(sizes.BUCKETS)} aspect ratios at base {rule.base}, in multiples of {multiple}"
    if described is not None and described.limits.size is not None and size != described.limits.size:
        size, why = described.limits.size, f"the one size that {described.label} has positions for"
    # several pictures may be what a clip starts from
    most = None if isinstance(media, Tensor) else there
    frames, reasons = _choose_frames(num_frames, there, most, rule, grid, described)
    lost = _lost(width, height, *size)
    return *size, frames, f"{what}\n{size[0]}x{size[1]}: {why}{lost}.\n{frames} frames: {reasons}."


def _choose_frames(
    wanted: int,
    there: int,
    most: int | None,
    rule: SizeRule,
    grid: LatentGrid,
    described: VideoModel | None,
) -> tuple[int, str]:
    """(frames, why) for a number wanted, at most those of a video; 0 is as many as there are."""
    native = sizes.TOKEN_FRAMES if described is None else described.native_size[2]
    frames = wanted or (there if there > 1 else native)
    reasons = [
        f"{frames} were set" if wanted else f"{frames} {'are there' if there > 1 else 'are what it makes'}"
    ]
    if most is not None and most < frames:
        frames = most
        reasons.append(f"the video has {most}")
    if rule.tokens is not None:
        budget = sizes.token_frames(frames, rule.base, rule.tokens)
        reasons.append(f"{rule.tokens} tokens leave {budget} at base {rule.base}")
        frames = budget
    return _legal_frames(frames, grid, described, reasons, nearest=False)


def _legal_frames(
    frames: int, grid: LatentGrid, described: VideoModel | None, reasons: list[str], nearest: bool
) -> tuple[int, str]:
    """(a count that the model can make, every reason for it)."""
    most, rule = grid.max_frames, FrameRule()
    if described is not None:
        most, rule = min(most, described.limits.max_frames or most), described.frame_rule
    if frames > most:
        reasons.append(f"{described.label if described else 'a clip'} has at most {most}")
    wanted = min(frames, most)
    legal = (sizes.nearest_frames if nearest else sizes.frames_below)(grid, wanted, rule.fits)
    if legal > most:
        legal = sizes.frames_below(grid, most, rule.fits)
    if legal != wanted:
        pairs = f", {rule.multiple} of those into one," if not rule.fits(rule.multiple + 1) else ""
        reasons.append(
            f"the {'nearest' if nearest else 'next lower'} that folds {grid.stride_t} frames into one{pairs} is {legal}"
        )
    return legal, ", ".join(reasons)


def _measure(media: Any, node: str) -> tuple[int, int, int, str]:
    """(frames, width, height, a sentence) of an IMAGE or a VIDEO."""
    if isinstance(media, Tensor):
        count, height, width, _ = media.shape
        what = f"{count} pictures" if count > 1 else "A picture"
    else:
        source = open_video(media, node).whole()
        count, height, width, _ = source.shape
        what = f"A video of {count} frames at {_short(source.rate)} frames per second"
    return count, width, height, f"{what}, {width}x{height}."


def _lost(width: int, height: int, new_width: int, new_height: int) -> str:
    """What is cut off when a picture covers another size, for a report."""
    across, down = (100 * share for share in sizes.cropped_share(width, height, new_width, new_height))
    share, side = max((across, "width"), (down, "height"))
    return f'; fit "crop" cuts {share:.1f} % of its {side}' if share >= 0.05 else "; nothing is cut"


@dataclass(frozen=True)
class Footage:
    """A VIDEO that was opened, and nothing more."""

    rate: Fraction
    width: int
    height: int
    # when its frames are shown, or those of its first seconds and a few more; never empty
    times: Callable[[Fraction | None], Sequence[Fraction]]
    # (time of the first, seconds between two, how many)
    clip: Callable[[Fraction, Fraction, int], FrameSource]

    def whole(self) -> FrameSource:
        """All of it at its own rate."""
        first, count = footage.choose_span(self.times(None), self.rate, Fraction(0), 1 / self.rate, 0)
        return self.clip(first, 1 / self.rate, count)


def open_video(video: Any, node: str) -> Footage:
    """The frames of a VIDEO: in its file, or in memory if they are there. ValueError for one without."""
    lies_in = file_of(video)
    if lies_in is None:
        source = _held_frames(video)
        size = source.rate, source.width, source.height
        every = [index / source.rate for index in range(source.num_frames)]
        return Footage(*size, lambda _: _any(every, node), source.spaced)
    film = footage.open_film(*lies_in)

    def times(seconds: Fraction | None) -> Sequence[Fraction]:
        until = None if seconds is None else film.begin + seconds
        return _any(footage.frame_times(film, until, check_interrupted), node)

    return Footage(film.rate, film.width, film.height, times, partial(_film_frames, film))


def _any(times: Sequence[Fraction], node: str) -> Sequence[Fraction]:
    if not times:
        raise ValueError(f"The video connected to {node} has no frames: choose another, or trim less of it.")
    return times


def _held_frames(video: Any) -> FrameSource:
    if isinstance(video, StreamedVideo):
        return video.source
    parts = video.get_components()
    return held_source(parts.images, Fraction(parts.frame_rate), parts.audio)


def _film_frames(film: footage.Film, start: Fraction, step: Fraction, count: int) -> FrameSource:
    """Frames of a film as they are."""
    shots = footage.Shots(film, start, step, count)

    def read(first: int, number: int) -> Iterator[Tensor]:
        for frame in footage.read_shots(shots.part(first, number), check_interrupted):
            yield torch.from_numpy(frame).float() / 255

    def sound(begin: Fraction, seconds: Fraction) -> Sound | None:
        heard = soundtrack.read_sound(film, start + begin, seconds, check_interrupted)
        return heard and {"waveform": torch.from_numpy(heard[0])[None], "sample_rate": heard[1]}

    return FrameSource(count, film.height, film.width, 1 / step, read, sound)


def fit_video(
    video: Any, wish: Wish, model: Any, wants_frames: bool, wants_sound: bool, node: str
) -> tuple[Tensor | None, Sound | None, StreamedVideo, int, float, str]:
    """(IMAGE, AUDIO, VIDEO, frames, rate, report) of a clip out of a video; what nobody takes is not decoded."""
    described = None if model is None else describe(model, node)
    grid = USUAL if described is None else described.grid
    clip, told = _choose_clip(video, wish, grid, described, node)
    width, height = _choose_sides(clip, wish, grid.multiple_hw)
    grid.latent_size(width, height)
    if described is not None:
        described.limits.check(described.label, width, height, clip.num_frames)
        described.frame_rule.check(described.label, grid.latent_frames(clip.num_frames), grid)
    source = _fitted(clip, width, height, wish.fit)
    cut = _lost(clip.width, clip.height, width, height) if wish.fit == "crop" else ""
    report = f"{told}\n{clip.width}x{clip.height} became {width}x{height}{cut}."
    sound = source.all_sound() if wants_sound else None
    if not wants_frames:
        return None, sound, StreamedVideo(source), source.num_frames, float(source.rate), report
    _check_memory(source)
    images = source.all_frames(steps(source.num_frames).advance)
    held = replace(held_source(images, source.rate, None), sound=source.sound)
    return images, sound, StreamedVideo(held), source.num_frames, float(source.rate), report


def _choose_clip(
    video: Any, wish: Wish, grid: LatentGrid, described: VideoModel | None, node: str
) -> tuple[FrameSource, str]:
    """The frames that a wish means, as the video has them, and which those are."""
    start = Fraction(wish.start).limit_denominator(footage.FINEST)
    wanted, why = wish.num_frames, ""
    if wanted:
        wanted, why = _legal_frames(wanted, grid, described, [f"{wanted} were set"], nearest=True)
    whole = open_video(video, node)
    base = exact_rate(wish.frame_rate) if wish.frame_rate else whole.rate
    every = wish.every or max(1, int(base // FUN_RATE))
    step = every / base
    times = whole.times(start + (wanted + 1) * step + 1 if wanted else None)
    first, there = footage.choose_span(times, whole.rate, start, step, wanted)
    if not wanted or there < wanted:
        reasons = [why or "all were wanted", f"the video has {there} from there on"]
        wanted, why = _legal_frames(there, grid, described, reasons, nearest=False)
    shown = first - times[0]
    rate = f"{_short(1 / step)} frames per second (the video has {_short(whole.rate)})"
    repeated = " Frames are repeated." if 1 / step > whole.rate else ""
    told = f"{wanted} frames from {float(shown):.2f} s on, {rate}: {why}.{repeated}"
    return whole.clip(first, step, wanted), told


def _choose_sides(clip: FrameSource, wish: Wish, multiple: int) -> tuple[int, int]:
    """(width, height) of a wish; for a 0 what keeps the shape of the frames, in the nearest multiples."""
    if not wish.width and not wish.height:
        return sizes.nearest_multiple(clip.width, multiple), sizes.nearest_multiple(clip.height, multiple)
    shape = Fraction(clip.width, clip.height)
    width = wish.width or sizes.nearest_multiple(wish.height * shape, multiple)
    return width, wish.height or sizes.nearest_multiple(wish.width / shape, multiple)


def _fitted(clip: FrameSource, width: int, height: int, fit: Any) -> FrameSource:
    """The same frames at another size, each resized when it is read."""
    if fit == "exact":
        fit_image(torch.empty(1, clip.height, clip.width, 3, device="meta"), width, height, fit)

    def read(first: int, count: int) -> Iterator[Tensor]:
        for frame_hwc in clip.read(first, count):
            yield fit_image(frame_hwc[None], width, height, fit)[0]

    return replace(clip, width=width, height=height, read=read)


def _check_memory(source: FrameSource) -> None:
    """ValueError where the frames as one IMAGE would not fit into this machine's memory."""
    count, height, width, channels = source.shape
    needed, there = 4 * count * height * width * channels, machine_memory()
    if needed > there:
        raise ValueError(
            f"{count} frames of {width}x{height} are {needed / 1e9:.1f} GB as an IMAGE, and this machine has "
            f"{there / 1e9:.1f} GB of memory. Lower num_frames, width or height, or leave IMAGE unconnected: VIDEO "
            "holds no frames."
        )


def _short(rate: Fraction) -> str:
    return f"{float(rate):.5g}"
