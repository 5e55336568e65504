"""What a user asks for of a long video: the sockets and choices of Video Continue, checked before anything is sampled."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ...modules.sampling.segments import SegmentPlan
from ..host.description import VideoModel, describe
from ..host.guards import NUM_FRAMES
from ..host.latents import read_latent, samples_of
from . import inpainting, sampling, saving

NODE = "Video Continue"
# frames that two segments share where nobody chose: of a mask-painting model, of one that takes a first frame, and of
# pictures with a motion module
OVERLAP = {"inpaint": 4, "image": 1, "nothing": 4}
LOOP, OPEN = PLANS = ("closed loop", "open end")
KEEP_ALL, KEEP_THESE, REMOVE = KEEPING = ("keep all", "keep these", "remove")
# of the `file` DynamicCombo, beside the options of the format
FILE = ("frame_rate", "filename_prefix")
SEED = re.compile(r"\s*(\d{1,6})\s*[:=]\s*(\d{1,20})\s*", re.ASCII)


@dataclass(frozen=True)
class Video:
    """What a user asks for: the sockets and the choices of Video Continue."""

    model: Any
    vae: Any
    latent: dict[str, Any]
    prompts: tuple[Any, ...]
    negative: Any
    given: inpainting.Given
    clip_vision: Any
    plan: Mapping[str, Any]
    sampling: Mapping[str, Any]
    clip_file: saving.ClipFile

    @cached_property
    def described(self) -> VideoModel:
        """What the MODEL is; ValueError unless it can go on from frames."""
        described = describe(self.model, NODE)
        if described.takes not in ("inpaint", "image") and not described.knows_neighbours:
            raise ValueError(
                f"{NODE} goes on with CogVideoX-Fun InP, CogVideoX image to video, SVD and ExVideo: got "
                f"{described.label}. An image model needs a motion module, of Motion Module Apply."
            )
        return described

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """(width, height, frames) in pixels of one segment."""
        samples = read_latent(self.latent, self.described.grid, self.described.label)
        size = inpainting.clip_size(self.vae, self.latent, NODE)
        clips = len(samples) // size[2] if self.described.clip_axis is None else len(samples)
        if clips != 1:
            raise ValueError(f"{NODE} makes one video: got a latent of {clips} clips. Set batch_size to 1.")
        return size

    @cached_property
    def segments(self) -> SegmentPlan:
        """Where segments lie; ValueError for an overlap or an end that the MODEL cannot make."""
        usual = OVERLAP[self.described.takes]
        overlap = self.plan["overlap"] or usual
        if self.described.takes == "image" and overlap != 1:
            raise ValueError(
                f"{self.described.label} goes on from one frame: got overlap={overlap}, use 0 or 1."
            )
        loop = self.plan["plan"] == LOOP
        knows_ends = self.described.takes == "inpaint" or self.described.clip_axis is None
        if not knows_ends and (loop or self.given.end is not None):
            wish = "a closed loop" if loop else "an end image"
            raise ValueError(
                f"{self.described.label} starts from a frame and knows no end: it cannot make {wish}."
            )
        if loop and self.plan["segments"] < 2:
            raise ValueError("A closed loop needs two segments or more: the last one leads back.")
        if loop and self.given.end is not None:
            raise ValueError("A closed loop ends in its first frame: disconnect end_image.")
        return SegmentPlan(self.plan["segments"], self.size[2], overlap, loop)

    def prompt(self, number: int) -> Any:
        """The prompt of a segment; the last one goes for all that come after. None where there is none."""
        return self.prompts[min(number, len(self.prompts) - 1)] if self.prompts else None

    def seed(self, number: int) -> int:
        """The seed of a segment: one more than that of the segment before, where none was chosen for it."""
        return read_seeds(self.plan["seeds"]).get(number + 1, (self.sampling["seed"] + number) % 2**64)

    @property
    def empty(self) -> dict[str, Any]:
        """A LATENT of one segment with nothing in it, whatever the one that tells the size holds."""
        return {"samples": torch.zeros_like(samples_of(self.latent)), NUM_FRAMES: self.size[2]}

    def check_prompts(self) -> None:
        """ValueError where prompts come from different text encoders: the later ones would fail in the midst."""
        widths = [entry[0].shape[-1] for prompt in (*self.prompts, self.negative or ()) for entry in prompt]
        if len(set(widths)) > 1:
            raise ValueError(
                f"The prompts have {', '.join(map(str, sorted(set(widths))))} numbers a token: encode all of them with "
                "the CLIP of the model's loader."
            )

    def is_last(self, number: int) -> bool:
        return number == self.segments.count - 1


def read_seeds(text: str) -> dict[int, int]:
    """Segment -> seed of text such as "3: 17, 5: 4"; segments count from 1. ValueError says what was not understood."""
    seeds = {}
    for word in filter(str.strip, text.split(",")):
        found = SEED.fullmatch(word)
        if found is None or int(found[1]) < 1 or int(found[2]) >= 2**64:
            raise ValueError(
                f'seeds must be pairs of a segment, from 1, and its seed, such as "3: 17, 5: 4": got {word.strip()[:40]!r}.'
            )
        seeds[int(found[1])] = int(found[2])
    return seeds


def plan_problem(plan: Mapping[str, Any]) -> str | None:
    """Why a plan cannot be met, as far as a post tells; or None."""
    try:
        seeds = read_seeds(plan.get("seeds") or "")
        most, count = max(seeds, default=1), plan.get("segments")
        if count is not None and most > count:
            raise ValueError(f"seeds names segment {most}, the video has {count}.")
    except ValueError as error:
        return str(error)
    return None


def sampler_settings(chosen: Mapping[str, Any], seed: int) -> sampling.Settings:
    """The settings of Video Sampler for a choice of the `sampling` DynamicCombo, whose key is the guidance."""
    guidance = {"guidance" if key == "sampling" else key: value for key, value in chosen.items()}
    return sampling.Settings(
        seed=seed,
        steps=chosen["steps"],
        guidance=guidance,
        sampler_name=chosen["sampler_name"],
        scheduler=chosen["scheduler"],
        denoise=1.0,
        preview=True,
    )


def file_problem(chosen: Mapping[str, Any]) -> str | None:
    """Why a file cannot be encoded or named so, as far as a post tells; or None."""
    options = {"format" if key == "file" else key: value for key, value in chosen.items() if key not in FILE}
    return saving.post_problem(options, *(chosen.get(name) for name in FILE))


def clip_file_of(chosen: Mapping[str, Any]) -> saving.ClipFile:
    """The file of a choice of the `file` DynamicCombo, whose key is the format."""
    rest = {key: value for key, value in chosen.items() if key not in ("file", *FILE)}
    return saving.ClipFile(
        frame_rate=chosen["frame_rate"],
        loop_count=0,
        filename_prefix=chosen["filename_prefix"],
        format={"format": chosen["file"], **rest},
        save_output=True,
        save_metadata=True,
        trim_to_audio=False,
    )
