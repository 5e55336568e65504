"""The pocket SD's sizes, and how to build its parts for training from the host's own classes."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..parts import MODEL_FOLDER, build_text_encoder
from ..tokens import Vocabulary, tokenizer_folder

UNET_SETTINGS: dict[str, Any] = {  # in the words of the host's UNetModel
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "channel_mult": (1, 1),
    "num_res_blocks": [1, 1],
    "num_heads": 8,
    "use_spatial_transformer": True,
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": 32,
    "use_linear_in_transformer": False,
}
TEXT_FILE = MODEL_FOLDER / "text_encoder" / "model.safetensors"
# what the parts' keys start with in the shipped file
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
REFERENCE = 8.0  # what the two channels of a group stand apart at first


def host_class(module: str, name: str) -> Any:
    """A class of the host, which is opened by its path: on the CPU and with torch's own attention, if nobody did yet."""
    if "comfy" not in sys.modules:
        sys.path.insert(0, str(tokenizer_folder().parents[2]))
        chosen = import_module("comfy.cli_args").args
        chosen.cpu = chosen.use_pytorch_cross_attention = True
    return getattr(import_module(module), name)


def build_unet() -> nn.Module:
    """The host's SD1.5 UNet at pocket size, weights unset."""
    return host_class("comfy.ldm.modules.diffusionmodules.openaimodel", "UNetModel")(**UNET_SETTINGS)


def build_taesd() -> nn.Module:
    """The host's TAESD, weights unset."""
    return host_class("comfy.taesd.taesd", "TAESD")()


def open_text(words: Vocabulary, stored: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A T5 over the rows that captions use: that of the CogVideoX pocket model, or of these weights."""
    text = build_text_encoder(len(words.rows))
    stored = stored or load_file(TEXT_FILE)
    table = stored["shared.weight"].float()[words.rows]
    rest = {key: value.float() for key, value in stored.items()}
    text.load_state_dict({**rest, "shared.weight": table, "encoder.embed_tokens.weight": table})
    return text


class TextToStill(nn.Module):
    """Text encoder and UNet, trained as one."""

    def __init__(self, words: Vocabulary) -> None:
        super().__init__()
        self.text, self.unet = open_text(words), build_unet()

    def context(self, ids_bl: Tensor) -> Tensor:
        """Features of padded captions: (b, l, d). No mask: padding is seen, as in the published models."""
        return self.text(ids_bl).last_hidden_state


def open_base(words: Vocabulary) -> TextToStill:
    """The shipped text encoder and UNet, frozen."""
    base = TextToStill(words)
    base.text = open_text(words, part_of_file(MODEL, TEXT))
    base.unet.load_state_dict(part_of_file(MODEL, UNET))
    return base.requires_grad_(False).eval()


@torch.no_grad()
def start_unet(unet: nn.Module) -> None:
    """Start as a network that says "all of it is noise".

    With 32 groups over 64 channels a norm of two channels would take the noise's own strength away, which epsilon at
    high noise must tell to a percent. So the two channels of a group start at plus and minus `REFERENCE`, against
    which their spread is small, and norms give back what came in.
    """
    small = ("out_layers.3.", "proj_out.", "to_out.0.", "net.2.")
    for name, p in unet.named_parameters():
        if p.dim() >= 2:
            gain = 0.3 if any(part in name for part in small) else 1.0
            nn.init.normal_(p, std=gain * p[0].numel() ** -0.5)
        elif name.endswith("weight"):
            nn.init.ones_(p)
        else:
            nn.init.zeros_(p)
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.constant_(module.weight, (REFERENCE**2 + 1) ** 0.5)
            module.bias.copy_(-_signs(module.num_channels) * REFERENCE)
    for name, p in unet.named_parameters():
        if name.endswith(
            ("in_layers.2.bias", "skip_connection.bias", ".op.bias", "1.conv.bias", "2.conv.bias")
        ):
            p.copy_(_signs(len(p)) * REFERENCE)
    _pass_noise(unet)


def _signs(count: int) -> Tensor:
    return 1 - 2 * (torch.arange(count) % 2).float()


def _pass_noise(unet: nn.Module) -> None:
    """Carry the input from the first convolution to the last one: silu(x) - silu(-x) is x."""
    first, last = unet.input_blocks[0][0], unet.out[2]
    skip = unet.output_blocks[-1][0].skip_connection
    first.bias.copy_(_signs(len(first.bias)) * REFERENCE)
    channels = UNET_SETTINGS["in_channels"]
    kept = 2 * channels
    first.weight[:kept] = 0.0
    skip.weight[:kept] = 0.0
    skip.bias[:kept] = 0.0
    closing = unet.output_blocks[-1]
    for weight in (last.weight, closing[0].out_layers[3].weight, closing[1].proj_out.weight):
        nn.init.zeros_(weight)
    for out in range(kept):
        sign = 1.0 - 2.0 * (out % 2)
        first.weight[out, out // 2, 1, 1] = sign
        skip.weight[out, skip.weight.shape[1] // 2 + out] = 1.0
        last.weight[out // 2, out, 1, 1] = sign


def part_of_file(file: Path, prefix: str) -> dict[str, Tensor]:
    """The weights below a prefix, float32."""
    weights = load_file(file)
    return {k.removeprefix(prefix): weights[k].float() for k in weights if k.startswith(prefix)}


def count_values(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


FOLDER = Path(__file__).resolve().parents[1] / "models"
MODEL = FOLDER / "SD" / "pocket-sd.safetensors"
MOTION = FOLDER / "animatediff_models" / "pocket-motion.safetensors"
LORA_FOLDER = FOLDER / "animatediff_motion_lora"
PAN_LEFT, PAN_RIGHT = (LORA_FOLDER / f"pocket-pan-{way}.safetensors" for way in ("left", "right"))
