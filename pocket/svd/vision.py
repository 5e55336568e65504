"""The tiny CLIP vision model: its sizes, how it is taught what a picture shows, its names in OpenCLIP's words."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, mse_loss

from ..progress import RunLog, load_run, save_run
from ..shapes import COLOURS, MOTIONS, SHAPES
from ..training import ramp
from .world import SIZE, SlidingClip, draw_frames, sample_clip

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

HEADS = 4
WIDTH = 64
TOKEN = 32  # of the projected token, the UNet's context
SIDE = 224  # pixels
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's normalisation
STD = (0.26862954, 0.26130258, 0.27577711)
STEPS, BATCH = 700, 24
FIRST_SEED = 1_000_000


def build_vision() -> "CLIPVisionModelWithProjection":
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=TOKEN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=14,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
    )
    return CLIPVisionModelWithProjection(config)


def prepare(pictures_n3hw: Tensor) -> Tensor:
    """Pictures in -1..1 squashed to 224x224 and normalised; enlarging, so that nothing is to be smoothed."""
    squashed = interpolate(pictures_n3hw, (SIDE, SIDE), mode="bicubic", align_corners=True)
    return (squashed / 2 + 0.5 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class Taught(nn.Module):
    """The vision model with a linear reading of what it should know."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = build_vision()
        self.reading = nn.Linear(TOKEN, len(COLOURS) + len(SHAPES) + len(MOTIONS) + 2)

    def forward(self, pictures_n3hw: Tensor) -> tuple[Tensor, ...]:
        """Scores of colour, shape and motion, and the place in units of half the frame."""
        token = self.vision(prepare(pictures_n3hw)).image_embeds
        return self.reading(token).split([len(COLOURS), len(SHAPES), len(MOTIONS), 2], 1)


def targets(clips: list[SlidingClip]) -> tuple[Tensor, ...]:
    kinds = ((COLOURS, "colour"), (SHAPES, "shape"), (MOTIONS, "motion"))
    named = [torch.tensor([list(kind).index(getattr(c, name)) for c in clips]) for kind, name in kinds]
    return *named, torch.tensor([c.start for c in clips]) / (SIZE / 2) - 1


def train_vision(out: Path) -> None:
    """Teach for STEPS steps, going on from the last saved one."""
    torch.manual_seed(0)
    model = Taught()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    done = load_run(out, model, optimizer)
    log = RunLog(out / "log.jsonl", every=25)
    for step in range(done + 1, STEPS + 1):
        clips = [sample_clip(FIRST_SEED + step * BATCH + i) for i in range(BATCH)]
        said = model(torch.cat([draw_frames(clip, 1) for clip in clips]))
        colour, shape, motion, place = targets(clips)
        losses = [cross_entropy(s, t) for s, t in zip(said[:3], (colour, shape, motion), strict=True)]
        loss = sum(losses) + 5 * mse_loss(said[3], place)
        optimizer.param_groups[0]["lr"] = 1e-3 * ramp(step - 1, STEPS, warm_up=50, least=0.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        seen = dict(zip(("colour", "shape", "motion"), (x.item() for x in losses), strict=True))
        log.add(step, loss=loss.item(), place=mse_loss(said[3], place).item(), **seen)
        if step % 100 == 0 or step == STEPS:
            save_run(out, step, model, optimizer)


def open_vision(out: Path) -> "CLIPVisionModelWithProjection":
    """The taught model, frozen."""
    model = Taught()
    model.load_state_dict(torch.load(out / "state.pt", weights_only=True)["model"])
    return model.vision.requires_grad_(False).eval()


def open_clip_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Transformers' names to OpenCLIP's (mlfoundations/open_clip, `visual.`), q, k and v fused."""
    plain = {key.removeprefix("vision_model."): value for key, value in weights.items()}
    named = {
        "class_embedding": plain["embeddings.class_embedding"],
        "conv1.weight": plain["embeddings.patch_embedding.weight"],
        "positional_embedding": plain["embeddings.position_embedding.weight"],
        "proj": plain["visual_projection.weight"].T,
    }
    for end in ("weight", "bias"):
        named[f"ln_pre.{end}"] = plain[f"pre_layrnorm.{end}"]
        named[f"ln_post.{end}"] = plain[f"post_layernorm.{end}"]
    layer = 0
    while f"encoder.layers.{layer}.layer_norm1.weight" in plain:
        named |= _layer(plain, f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}.")
        layer += 1
    return {f"visual.{key}": value for key, value in named.items()}


def _layer(plain: dict[str, Tensor], source: str, goal: str) -> dict[str, Tensor]:
    pairs = (
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn.out_proj", "attn.out_proj"),
    )
    named: dict[str, Tensor] = {}
    for end in ("weight", "bias"):
        named |= {f"{goal}{there}.{end}": plain[f"{source}{here}.{end}"] for here, there in pairs}
        parts = [plain[f"{source}self_attn.{letter}_proj.{end}"] for letter in "qkv"]
        named[f"{goal}attn.in_proj_{end}"] = torch.cat(parts)
    return named
