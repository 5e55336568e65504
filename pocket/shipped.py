"""The parts of the shipped CogVideoX that the models beside it share or start from, in float32."""

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .latents import SCALE
from .parts import MODEL_FOLDER, build_text_encoder, build_vae
from .shapes import all_subjects, sample_clip
from .ship import WEIGHTS
from .tokens import Vocabulary


def captions() -> list[str]:
    """Every caption in the order of `all_subjects`, then the empty one."""
    return [sample_clip(0, subject).caption for subject in all_subjects()] + [""]


@torch.no_grad()
def caption_features() -> Tensor:
    """Text features (n, l, d) of `captions()`."""
    words = Vocabulary()
    stored = {k: v.float() for k, v in load_file(MODEL_FOLDER / "text_encoder" / "model.safetensors").items()}
    stored["shared.weight"] = stored["shared.weight"][words.rows]
    encoder = build_text_encoder(len(words.rows)).eval()
    encoder.load_state_dict(stored, strict=False)
    return encoder(words.encode(captions())).last_hidden_state


def shipped_vae() -> nn.Module:
    """The autoencoder."""
    vae = build_vae()
    vae.load_state_dict({k: v.float() for k, v in load_file(MODEL_FOLDER / "vae" / WEIGHTS).items()})
    return vae.eval()


@torch.no_grad()
def encode(vae: nn.Module, frames_nfhwc: Tensor) -> Tensor:
    """Scaled latents (n, 16, t, h, w) of frames in 0..1."""
    return vae.encode((frames_nfhwc * 2 - 1).permute(0, 4, 1, 2, 3)) * SCALE


def start_weights(channels: int) -> dict[str, Tensor]:
    """The transformer's; the channels beside the noise, of `channels` in all, start at zero."""
    own = {k: v.float() for k, v in load_file(MODEL_FOLDER / "transformer" / WEIGHTS).items()}
    weight = own["patch_embed.proj.weight"]
    more = torch.zeros(len(weight), channels - weight.shape[1], *weight.shape[2:])
    own["patch_embed.proj.weight"] = torch.cat([weight, more], 1)
    return own
