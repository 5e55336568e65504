"""Teaches a trained text-to-video transformer to go on from a given first frame; the text encoder stays as it is.

Layout and conditioning are those of 5B-I2V: behind the 16 noisy channels 16 more, which hold the encoded first
frame at latent frame 0 and zeros after it.
"""

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pad

from .check import LATENT_SHAPE, decode, rate, sample_ddim
from .latents import CLIPS_PER_SUBJECT, FIRST_SEED, SCALE, World, open_world
from .parts import IMAGE_MODEL, IMAGE_SETTINGS, LEARNED_POSITIONS, TextToLatents
from .progress import read_log
from .shapes import COLOURS, MOTIONS, SHAPES, SIZE, ShapeClip, all_subjects, draw_batch, sample_clip
from .ship import half, rows_of
from .tokens import Vocabulary
from .train_transformer import BATCH, CHECK_EVERY, LOG_EVERY, SAVE_EVERY, Sample, Sampler, Training, lr_at
from .training import Plan, train

MISNAMED = 0.5  # part of the captions with another colour and shape than the clip
GENTLE = 0.5  # of the learning rate that the transformer was trained with
WANDERING_PER_SUBJECT = 4
WANDERING_SEED = 20_000_000
UNSEEN_SEED = 30_000_000
GUIDANCE, STEPS = 2.0, 20  # of the checks
CHECKED = (  # name, clips that wander, captions that name another colour and shape
    ("through_the_middle", False, False),
    ("anywhere", True, False),
    ("told_otherwise", False, True),
)


def wander(clip: ShapeClip, seed: int) -> ShapeClip:
    """The clip with its path anywhere inside the frame, so that the start alone does not tell the motion."""
    dice = random.Random(seed)
    room = SIZE / 2 - 1.3 * clip.radius - 1  # a triangle's top is 1.3 radii from its centre
    along = [abs(step) * clip.path / 2 for step in MOTIONS[clip.motion]]
    x, y = (SIZE / 2 + dice.uniform(-1, 1) * (room - half_way) for half_way in along)
    return replace(clip, middle=(x, y))


def clips_of_each(first_seed: int, per_subject: int) -> list[ShapeClip]:
    """So many clips of each of the 90 subjects, seeds counting up; from FIRST_SEED those of the cached latents."""
    subjects = all_subjects() * per_subject
    return [sample_clip(first_seed + i, subject) for i, subject in enumerate(subjects)]


def wandering_clips() -> list[ShapeClip]:
    clips = clips_of_each(WANDERING_SEED, WANDERING_PER_SUBJECT)
    return [wander(clip, WANDERING_SEED + i) for i, clip in enumerate(clips)]


@torch.no_grad()
def encode_clips(vae: nn.Module, clips: list[ShapeClip], only_first: bool, batch: int = 6) -> Tensor:
    """Scaled latents (n, c, t, h, w) of clips, or of the first frame of each, alone."""
    parts = []
    for i in range(0, len(clips), batch):
        x = draw_batch(clips[i : i + batch])
        parts.append(vae.encode(x[:, :, :1] if only_first else x) * SCALE)
    return torch.cat(parts)


@dataclass(frozen=True)
class ImageWorld:
    """Clips and their first frames: latents (n, c, t, h, w), images (n, c, 1, h, w), both scaled."""

    clips: World
    images: Tensor


def open_images(out: Path, vae_run: Path) -> tuple[ImageWorld, nn.Module]:
    """The text-to-video clips and some that wander, with first frames; encoded on the first call."""
    world, vae = open_world(vae_run)
    wandering = wandering_clips()
    if not (out / "images.pt").exists():
        out.mkdir(parents=True, exist_ok=True)
        images = encode_clips(vae, clips_of_each(FIRST_SEED, CLIPS_PER_SUBJECT) + wandering, True)
        latents = encode_clips(vae, wandering, False)
        torch.save({"images": images, "wandering": latents}, out / "images.pt")
    stored = torch.load(out / "images.pt", weights_only=True)
    latents = torch.cat([world.latents, stored["wandering"]])
    captions = world.captions + [clip.caption for clip in wandering]
    return ImageWorld(World(latents, captions), stored["images"]), vae


def beside_noise(x_bcthw: Tensor, image_bcthw: Tensor) -> Tensor:
    """Noisy latents with the image behind them on the channel axis, silent after its first frame."""
    return torch.cat([x_bcthw, pad(image_bcthw, (0, 0, 0, 0, 0, x_bcthw.shape[2] - 1))], 1)


class ImageSampler(Sampler):
    """Half of a batch wanders, though few clips do. Half of the captions name another colour and shape, so that
    the picture is what tells those; the motion they name is always the clip's."""

    def __init__(self, world: ImageWorld, words: Vocabulary) -> None:
        super().__init__(world.clips, words)
        self.images = world.images

    def draw(self) -> Sample:
        pick = torch.randint(len(self.latents), (BATCH,))
        steady = len(self.latents) - 90 * WANDERING_PER_SUBJECT
        wandering = steady + pick % (90 * WANDERING_PER_SUBJECT)
        pick = torch.where(torch.rand(BATCH) < 0.5, pick % steady, wandering)
        other = torch.randint(90 // len(MOTIONS), (BATCH,)) * len(MOTIONS) + pick % len(MOTIONS)
        sample = self.noisy(pick, told=torch.where(torch.rand(BATCH) < MISNAMED, other, pick))
        return replace(sample, x_bcthw=beside_noise(sample.x_bcthw, self.images[pick]))


@torch.no_grad()
def start_from(training: Training, text_run: Path) -> None:
    """Take over a text-to-video run's running mean; image channels and learned positions start at zero."""
    state = torch.load(text_run / "state.pt", map_location="cpu", weights_only=True)["model"]
    own = {k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")}
    weight = own["transformer.patch_embed.proj.weight"]
    own["transformer.patch_embed.proj.weight"] = torch.cat([weight, torch.zeros_like(weight)], 1)
    table = torch.zeros(1, LEARNED_POSITIONS, weight.shape[0])
    own["transformer.patch_embed.pos_embedding"] = table
    training.model.load_state_dict(own)
    training.average.load_state_dict(own)


class FromImage:
    """A model that is shown the same images at every step."""

    def __init__(self, model: TextToLatents, images_bcthw: Tensor) -> None:
        self.model, self.images = model, images_bcthw

    def velocity(self, x_bcthw: Tensor, timestep_b: Tensor, context_bld: Tensor) -> Tensor:
        images = self.images.repeat(len(x_bcthw) // len(self.images), 1, 1, 1, 1)
        return self.model.velocity(beside_noise(x_bcthw, images), timestep_b, context_bld)


@torch.no_grad()
def go_on(
    model: TextToLatents, vae: nn.Module, words: Vocabulary, pictures_b3fhw: Tensor, captions: list[str]
) -> Tensor:
    """Frames (b, f, h, w, 3) in 0..1 of clips drawn from first frames (b, 3, 1, h, w) in -1..1."""
    images = vae.encode(pictures_b3fhw) * SCALE
    context, null = model.context(words.encode(captions)), model.context(words.encode([""]))
    z = sample_ddim(FromImage(model, images), context, null, GUIDANCE, STEPS, seed=1)
    assert z.shape[1:] == LATENT_SHAPE
    return decode(vae, z)


def psnr(frames_bhwc: Tensor, wanted_bhwc: Tensor) -> Tensor:
    """Decibels of each picture, both in 0..1."""
    pairs = zip(frames_bhwc, wanted_bhwc, strict=True)
    return torch.stack([-10 * mse_loss(got, wanted).clamp_min(1e-10).log10() for got, wanted in pairs])


def misname(clip: ShapeClip) -> ShapeClip:
    """The clip with the next colour and the next shape of their lists."""
    colours, shapes = list(COLOURS), list(SHAPES)
    colour = colours[(colours.index(clip.colour) + 1) % len(colours)]
    return replace(clip, colour=colour, shape=shapes[(shapes.index(clip.shape) + 1) % len(shapes)])


def check_images(
    model: TextToLatents, vae: nn.Module, words: Vocabulary, clips: list[ShapeClip], misnamed: bool = False
) -> tuple[dict[str, float], Tensor, Tensor]:
    """Figures of clips drawn from the first frames of true ones, their frames, and the true frames.

    Where `misnamed`, captions name another colour and another shape; right is still what the picture shows.
    """
    true = draw_batch(clips)
    told = [misname(clip) if misnamed else clip for clip in clips]
    frames = go_on(model, vae, words, true[:, :, :1], [clip.caption for clip in told])
    true_frames = true.permute(0, 2, 3, 4, 1) / 2 + 0.5
    first = psnr(frames[:, 0], true_frames[:, 0])
    figures = rate(frames, [(clip.colour, clip.shape, clip.motion) for clip in clips])
    figures |= {"first_frame_db": float(first.mean()), "first_frame_db_least": float(first.min())}
    return {name: round(value, 4) for name, value in figures.items()}, frames, true_frames


def unseen_clips(count: int, wandering: bool) -> list[ShapeClip]:
    """Clips of seeds that no training drew, always the same ones; every subject once before any twice."""
    subjects = random.Random(7).sample(all_subjects(), count)
    clips = [sample_clip(UNSEEN_SEED + i, subject) for i, subject in enumerate(subjects)]
    return [wander(clip, UNSEEN_SEED + i) for i, clip in enumerate(clips)] if wandering else clips


def train_image(out: Path, text_run: Path, vae_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    words = Vocabulary()
    world, vae = open_images(out, vae_run)
    sampler, training = ImageSampler(world, words), Training(words, IMAGE_SETTINGS)
    start_from(training, text_run)
    training.model.text.requires_grad_(False)

    def learn(step: int) -> dict[str, float]:
        lr = GENTLE * lr_at(step - 1, total)
        return {"lr": lr, **training.step(sampler.draw(), lr, step)}

    def look() -> dict[str, float]:
        return check_images(training.average, vae, words, unseen_clips(16, True))[0]

    train(out, training, Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY), learn, look)


def open_trained(out: Path) -> tuple[TextToLatents, Vocabulary, int]:
    """The running mean of a run's last saved step, its words, and that step."""
    words = Vocabulary()
    training = Training(words, IMAGE_SETTINGS)
    step = training.open(out)
    return training.average, words, step


def ship_image(out: Path, vae_run: Path, file: Path = IMAGE_MODEL, count: int = 32) -> None:
    """Running means of the last saved step to one file with its config inside, and figures beside it."""
    model, words, step = open_trained(out)
    metadata = {"format": "pt", "config": json.dumps(IMAGE_SETTINGS)}
    save_file(half(dict(model.transformer.state_dict())), file, metadata=metadata)
    _, vae = open_world(vae_run)
    figures = {
        name: check_images(model, vae, words, unseen_clips(count, wandering), misnamed)[0]
        for name, wandering, misnamed in CHECKED
    }
    losses = [row for row in read_log(out / "log.jsonl") if row["step"] <= step]
    head = {"step": step, "clips": count, "guidance": GUIDANCE, "sampling_steps": STEPS, **figures}
    lines = [f'  "{name}": {json.dumps(value)}' for name, value in head.items()]
    lines += [f'  "transformer": {rows_of(losses)}']
    file.with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
