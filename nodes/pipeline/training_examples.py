"""Clips and captions of a data set to what a network is trained on, kept on disk, with the encoders of the graph."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...modules.conditioning.augmentation import augment
from ...modules.conditioning.clip_image import clip_pixels
from ...modules.conditioning.first_frame import at_noise, pad_frames
from ...modules.conditioning.inpaint import KnownClip, latent_mask, noise_known
from ...modules.training import draws
from ...modules.training.cache import Cache, CachedExamples, Place, digest_of, key_of
from ...modules.training.data.cut import Cut, cut
from ...modules.training.data.items import BadItem, Problem, Report, check_left
from ...modules.training.data.motion import motion_bucket, own_thresholds
from ...modules.training.data.plan import Plan, Planned
from ...modules.training.recipe import Data
from ..host import clip_vision as vision
from ..host import progress
from ..host import training as host
from ..host.description import VideoModel
from ..host.vae import FamilyVAE

# of the cache: what is kept changed with it
VERSION = 1
# ln sigma of the noise on a picture that a clip starts from, and its spread
IMAGE_NOISE = (-3.0, 0.5)
# part of the clips masked everywhere that are told nothing at all (CogVideoX-Fun)
UNTOLD = 0.9
SCORE = "motion_score"


@dataclass(frozen=True)
class Encoders:
    """What turns pixels and words into what a network sees."""

    vae: Any
    # of words; None for a model that is told none
    clip: Any = None
    # of SVD's picture
    clip_vision: Any = None


def encode(
    said: VideoModel,
    encoders: Encoders,
    plan: Plan,
    data: Data,
    cache: Cache,
    prompts: Sequence[str] = (),
) -> tuple[CachedExamples, Report]:
    """The examples of planned cuts, and what could not be read after all; what is on disk is not encoded again.

    `prompts` are those to sample with on the way. An item's repeats are examples of their own, with noise of their own. ValueError for an encoder that the model
    needs and does not get, and where no clip is left.
    """
    check_encoders(said, encoders)
    mark, bar = _marks(encoders), progress.steps(len(plan.cuts))
    keys: list[str] = []
    captions: list[str] = []
    told: list[float | None] = []
    problems: list[Problem] = []
    for planned in plan.cuts:
        try:
            key = _keep(said, encoders, planned, data, cache, mark)
        except BadItem as bad:
            problems.append(Problem(planned.item.name, str(bad)))
        else:
            keys += [key] * _times(planned, data)
            captions += [planned.item.text or ""] * _times(planned, data)
            told += [planned.item.bucket] * _times(planned, data)
        bar.advance()
    report = plan.report.with_problems(problems)
    check_left("folder", len(keys), report)
    texts = _texts(encoders, {*captions, *prompts, ""}, cache, mark)
    facts: dict[str, Any] = {"data": key_of(keys, sorted({*captions}))}
    numbers = _buckets(cache, keys, told, data, facts)
    rows = zip(keys, captions, numbers, strict=True)
    places = [Place(key, texts.get(caption), row) for key, caption, row in rows]
    shown = [texts[prompt] for prompt in prompts if prompt in texts]
    return CachedExamples(cache, places, texts.get(""), facts, shown), report


def encode_share(
    said: VideoModel, encoders: Encoders, plan: Plan, data: Data, cache: Cache, share: tuple[int, int]
) -> None:
    """Encode a part of the clips and captions, `share` being (which, of how many); `encode` says what is bad."""
    mark, (which, many) = _marks(encoders), share
    for planned in plan.cuts[which::many]:
        with suppress(BadItem):
            _keep(said, encoders, planned, data, cache, mark)
    captions = sorted({planned.item.text or "" for planned in plan.cuts} | {""})
    _texts(encoders, captions[which::many], cache, mark)


def _keep(
    said: VideoModel, encoders: Encoders, planned: Planned, data: Data, cache: Cache, mark: Mapping[str, str]
) -> str:
    """The key of a cut, which is encoded unless it is on disk. BadItem for what cannot be read."""
    key = _key(planned, data, mark)
    if not cache.holds(key):
        cache.keep(key, *_clip(said, encoders, cut(planned), data, _draws_key(planned)))
    return key


def _draws_key(planned: Planned) -> tuple[int, int, int]:
    return planned.item.index, planned.variant, planned.seed


def _times(planned: Planned, data: Data) -> int:
    """How often an epoch holds a cut."""
    videos = data.video_repeat if planned.item.kind == "video" else 1
    return planned.item.repeat * videos * planned.repeats


def check_encoders(said: VideoModel, encoders: Encoders) -> None:
    is_svd = said.takes == "image" and said.grid.frames_on_batch
    if encoders.vae is None:
        raise ValueError(f"{said.label} is trained on latents: connect its VAE.")
    if is_svd and encoders.clip_vision is None:
        raise ValueError(f"{said.label} is told a picture: connect the CLIP_VISION of SVD Loader.")
    if not is_svd and encoders.clip is None:
        raise ValueError(f"{said.label} is trained with captions: connect its CLIP.")


def _key(planned: Planned, data: Data, mark: Mapping[str, str]) -> str:
    """What decides an encoded clip: the bytes of its files, how it is cut, what encodes it."""
    item = planned.item
    files = [digest_of(Path(path)) for path in (item.path, item.control) if path]
    told = (data.image_noise, data.told_fps)
    return key_of(VERSION, files, planned.identity, told, mark["vae"], mark["vision"])


def _marks(encoders: Encoders) -> dict[str, str]:
    """What tells encoders from others: a digest of some numbers of every weight."""
    parts = {
        "vae": getattr(encoders.vae, "first_stage_model", None),
        "text": getattr(encoders.clip, "cond_stage_model", None),
        "vision": getattr(encoders.clip_vision, "model", None),
    }
    return {name: _mark(part) for name, part in parts.items()}


def _mark(module: Any) -> str:
    if module is None:
        return ""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()


Encoded = tuple[dict[str, Tensor | None], dict[str, float]]


def _clip(said: VideoModel, encoders: Encoders, clip: Cut, data: Data, key: tuple[int, int, int]) -> Encoded:
    """What is kept of one clip."""
    mean, log_variance = _moments(encoders.vae, clip.frames)
    tensors: dict[str, Tensor | None] = {"mean": mean, "log_variance": log_variance}
    numbers: dict[str, float] = {}
    if clip.control is not None:
        tensors["control"] = _draw(*_moments(encoders.vae, clip.control), "control", key)
    if said.takes == "inpaint" and clip.mask is not None:
        tensors |= _known(encoders.vae, clip.frames, clip.mask, mean, said, key)
    elif said.takes == "image":
        sigma = _image_noise(data, key)
        first = (augment(clip.frames[:1].movedim(-1, 1) * 2 - 1, sigma, _seed("picture", key)) + 1) / 2
        image, spread = _moments(encoders.vae, first.movedim(1, -1))
        if said.grid.frames_on_batch:
            tensors["image"], tensors["context"] = image, _token(encoders.clip_vision, clip.frames[:1])
            numbers = {
                "fps": data.told_fps or clip.fps or 1.0,
                "noise_aug_strength": sigma,
                SCORE: clip.motion,
            }
        else:
            latent = _draw(image, spread, "picture", key)
            tensors["image"] = pad_frames(latent[None], mean.shape[1])[0]
    return tensors, numbers


def _moments(vae: Any, frames_fhwc: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean and log-variance of a clip's latents, without a batch axis; the host's own VAEs tell a mean alone."""
    if not isinstance(vae, FamilyVAE):
        return torch.cat([vae.encode(piece) for piece in frames_fhwc.split(8)]), None
    moments = vae.encode_moments(frames_fhwc)
    if not vae.recipe.grid.frames_on_batch:
        moments = tuple(part[0] for part in moments)
    return moments[0].float(), moments[1].float()


def _draw(mean: Tensor, log_variance: Tensor | None, purpose: str, key: tuple[int, int, int]) -> Tensor:
    if log_variance is None:
        return mean
    return at_noise(mean, log_variance, draws.normal(tuple(mean.shape), f"{purpose} posterior", *key))


def _known(
    vae: Any, frames: Tensor, mask: Tensor, mean: Tensor, said: VideoModel, key: tuple[int, int, int]
) -> dict[str, Tensor | None]:
    """What is known of a clip under a mask (CogVideoX-Fun); nothing of one that is all made anew, mostly."""
    clip = KnownClip(frames, mask.float())
    if clip.is_unknown and draws.uniform("untold", *key) < UNTOLD:
        return {}
    pixels = noise_known(clip.pixels(), _log_normal("known", key), _seed("known", key))
    image = _draw(*_moments(vae, pixels), "known", key)
    return {"image": image, "mask": latent_mask(clip.mask, mean.shape[1], said.grid.stride_hw)[0]}


def _image_noise(data: Data, key: tuple[int, int, int]) -> float:
    return _log_normal("picture noise", key) if data.image_noise else 0.0


def _log_normal(purpose: str, key: tuple[int, int, int]) -> float:
    mean, spread = IMAGE_NOISE
    return math.exp(mean + spread * draws.normal((), purpose, *key).item())


def _seed(purpose: str, key: tuple[int, int, int]) -> int:
    return draws.generator(purpose, *key).initial_seed()


def _token(clip_vision: Any, image_1hwc: Tensor) -> Tensor:
    """SVD's CLIP token (1, d)."""
    return vision.embed_pixels(clip_vision, clip_pixels(image_1hwc, vision.input_size(clip_vision)))[
        0
    ].float()


def _texts(encoders: Encoders, texts: Iterable[str], cache: Cache, mark: Mapping[str, str]) -> dict[str, str]:
    """The keys of captions' features; empty for a model that is told none."""
    if encoders.clip is None:
        return {}
    keys = {text: key_of(VERSION, "text", text, mark["text"]) for text in sorted(texts)}
    for text, key in keys.items():
        if not cache.holds(key):
            cache.keep(key, host.text_features(encoders.clip, text), {})
    return keys


def _buckets(
    cache: Cache, keys: Sequence[str], told: Sequence[float | None], data: Data, facts: dict[str, Any]
) -> list[dict[str, float]]:
    """What SVD is told of each clip's motion: what its list says, its rank among the data set's own, or the same for all."""
    scores = [cache.numbers(key).get(SCORE) for key in keys]
    if any(score is None for score in scores):
        return [{} for _ in scores]
    buckets = [data.told_bucket or own for own in told]
    if any(bucket is None for bucket in buckets):
        thresholds = own_thresholds([score for score in scores if score is not None])
        facts["motion_quantiles"] = thresholds
        ranks = [float(motion_bucket(score or 0.0, thresholds)) for score in scores]
        buckets = [rank if own is None else own for own, rank in zip(buckets, ranks, strict=True)]
    return [{"motion_bucket_id": bucket} for bucket in buckets if bucket is not None]
