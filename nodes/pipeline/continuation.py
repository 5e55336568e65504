"""Videos of any length, segment by segment: each goes on from the last frames of the one before."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...modules.sampling.segments import Colours, Joiner, cross_fade, skip
from ...modules.videofile.segments import SegmentStore
from ..host import digests, progress
from ..host.guards import NUM_FRAMES
from ..host.latents import samples_of
from . import inpainting, sampling, saving
from .decoding import open_clips
from .long_video import KEEP_THESE, NODE, REMOVE, Video, sampler_settings


@dataclass
class Run:
    """A video under way: what its frames need of one another, and what there is to say."""

    video: Video
    store: SegmentStore
    keys: dict[int, str] = field(default_factory=dict)
    colours: Colours | None = None
    # (3,) in 0..1, of each segment
    means: list[Tensor] = field(default_factory=list)
    # (overlap, h, w, 3), the first of the video
    first: Tensor = torch.empty(0)
    lines: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[Tensor]:
        """Frames (f, h, w, 3) of the whole video, as they come.

        A loop begins behind its first frames and ends with them, blended like those that two segments share.
        """
        plan, joiner = self.video.segments, Joiner(self.video.segments.overlap)
        frames = self._joined(joiner)
        yield from skip(frames, plan.overlap) if plan.loop else frames
        if joiner.tail is not None:
            yield cross_fade(joiner.tail, self.first) if plan.loop else joiner.tail

    def _joined(self, joiner: Joiner) -> Iterator[Tensor]:
        """The frames of all segments but those that the joiner holds back at last."""
        plan = self.video.segments
        for number in range(plan.count):
            latents = self.segment(number, joiner.tail)
            yield from joiner.join(self._watched(self._decoded(latents)))
            self.lines[-1] += self._drift()
            progress.tell(f"{self.lines[-1]} ({number + 1} of {plan.count})")

    def segment(self, number: int, tail: Tensor | None) -> Tensor:
        """The latents of a segment: those that are kept, or new ones."""
        video, started = self.video, time.monotonic()
        given = self._given(number, tail)
        key = self.keys[number] = self._key(number, given)
        latents, did = self.store.load(number + 1, key), "kept"
        if latents is None:
            latents, did = self._sampled(number, given), "made"
            if self.colours is not None:
                latents = self.colours.hold(latents, video.plan["hold_colours"])
            facts = {
                "seed": str(video.seed(number)),
                "frames": video.size[2],
                "after": self.keys.get(number - 1),
            }
            self.store.keep(number + 1, key, latents, facts)
        self.colours = self.colours or Colours.of(latents)
        took = f" in {time.monotonic() - started:.1f} s" if did == "made" else ""
        self.lines.append(f"Segment {number + 1}: {did}{took}, seed {video.seed(number)}")
        return latents

    def _given(self, number: int, tail: Tensor | None) -> inpainting.Given:
        """What is known of a segment: the frames that it goes on from, and where it ends."""
        video = self.video
        end = None
        if video.is_last(number):
            end = self.first if video.segments.loop else video.given.end
        if tail is None:
            return replace(video.given, end=end)
        return inpainting.Given(tail, end, fit="exact")

    def _sampled(self, number: int, given: inpainting.Given) -> Tensor:
        video = self.video
        mode = {"mode": inpainting.RESIZED, "image_noise": inpainting.AS_TRAINED, "seed": video.seed(number)}
        both = (video.prompt(number), video.negative)
        positive, negative, latent = inpainting.inpaint(
            video.model, video.vae, video.empty, both, given, video.clip_vision, mode, NODE
        )
        settings = sampler_settings(video.sampling, video.seed(number))
        return samples_of(sampling.sample(video.model, positive, negative, latent, settings, NODE))

    def _decoded(self, latents: Tensor) -> Iterator[Tensor]:
        clip = {"samples": latents, NUM_FRAMES: self.video.size[2]}
        return open_clips(self.video.vae, clip, NODE).frames()

    def _watched(self, frames_fhwc: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same frames; the first of all is kept, and the mean colour of the segment."""
        total, count = torch.zeros(3, dtype=torch.float64), 0
        for piece in frames_fhwc:
            if len(self.first) < self.video.segments.overlap:
                seen = [self.first, piece] if len(self.first) else [piece]
                self.first = torch.cat(seen)[: self.video.segments.overlap].clone()
            total, count = total + piece.double().mean((1, 2)).sum(0).cpu(), count + len(piece)
            yield piece
        self.means.append(total / count)

    def _drift(self) -> str:
        """How far the mean colour of the last segment is from the first one's."""
        drift = float((self.means[-1] - self.means[0]).abs().max()) * 255
        return "" if len(self.means) == 1 else f", mean colour {drift:.1f} of 255 from the first"

    def _key(self, number: int, given: inpainting.Given) -> str:
        """A name for all that makes a segment, those before it included."""
        video = self.video
        fixed = {key: value for key, value in video.sampling.items() if key != "seed"}
        before = self.keys.get(number - 1, "")
        given = given if number == 0 else replace(given, start=None)
        return digests.digest(
            self._models, tuple(samples_of(video.latent).shape), video.size, fixed, before,
            video.segments.overlap, video.plan["hold_colours"] if number else None, video.prompt(number),
            video.negative, video.seed(number), vars(given),
        )  # fmt: skip

    @cached_property
    def _models(self) -> list[str]:
        video = self.video
        names = [digests.digest_model(video.model), digests.digest_module(video.vae.first_stage_model)]
        vision = getattr(video.clip_vision, "model", None)
        return names if vision is None else [*names, digests.digest_module(vision)]

    def notes(self) -> list[str]:
        """What there is to say once the video is there; segments are removed as the user wishes."""
        keeping, own = (
            self.video.plan["keep_segments"],
            {number + 1: key for number, key in self.keys.items()},
        )
        if keeping == KEEP_THESE:
            self.store.remove_others(own)
        if keeping == REMOVE:
            self.store.remove(own)
        return [". ".join([*self.lines, f"{self.video.segments.total} frames"]) + "."]


def make(node: Any, video: Video) -> Any:
    """Sample, decode and write a video segment by segment; what the host takes as a node's result."""
    plan, size = video.segments, video.size[:2]
    video.given.check()
    video.check_prompts()
    saving.check_file(node, video.clip_file)
    sampling.levels_of(video.described, video.sampling["scheduler"], video.sampling["steps"], 1.0)
    folder, name = saving.place_of(node, video.clip_file, size)
    store = SegmentStore(folder / f"{name}_segments")
    samples = samples_of(video.latent)
    logging.info("%s: %s", NODE, store.check_room(plan.count, samples.numel() * samples.element_size()))
    run = Run(video, store)
    return saving.save_stream(node, video.clip_file, run.frames(), size, plan.total, run.notes)
