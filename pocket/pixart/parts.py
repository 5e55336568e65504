"""The pocket PixArt's sizes, and how to build it for training from the pack's own classes."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..parts import pack
from ..sd.parts import FOLDER
from ..svd.latents import preview_factors
from .text import TEXT_WIDTH

if TYPE_CHECKING:
    from ...modules.families.pixart.config import PixArtConfig

# what no shape tells, in the words of the shipped file
SETTINGS: dict[str, Any] = {"num_attention_heads": 4, "sample_size": 64}
WIDTH, LAYERS = 96, 6
MODEL = FOLDER / "Diffusion_Transformer" / "pocket-pixart.safetensors"
MOTION = FOLDER / "Motion_Module" / "pocket-easyanimate.safetensors"
STYLE = FOLDER / "Personalized_Model" / "pocket-chalk-lora.safetensors"
CELLS = 8  # latent cells on a side
# what unit noise is in a token at first, its position having a length of (WIDTH / 2) ** 0.5
NOISE_GAIN = 0.5
SMALL_BRANCH = 0.05
TIME_GAIN = 0.05


def model_settings() -> dict[str, Any]:
    """The words that the pack reads from the file's metadata beside its shapes."""
    factors, bias = preview_factors()
    return SETTINGS | {"latent_rgb_factors": factors, "latent_rgb_bias": bias}


def attend_to_words(
    q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, transformer_options: Tensor | None = None
) -> Tensor:
    """Attention; `transformer_options` (g, l) tells which of the l text features there are.

    Written out: for so few tokens a CPU's own kernel takes twice as long, and nine times in bfloat16.
    """
    words = transformer_options
    scores_bhlm = q_bhld @ k_bhld.mT * q_bhld.shape[-1] ** -0.5
    if words is not None and words.shape == k_bhld.shape[:3:2]:
        scores_bhlm = scores_bhlm.masked_fill(~words[:, None, None], -torch.inf)
    return (scores_bhlm.softmax(-1) @ v_bhld).transpose(1, 2).flatten(2)


def pixart_config() -> "PixArtConfig":
    """Sizes in the words of the family."""
    pack()
    from kinetograph.modules.families.pixart.config import PixArtConfig

    heads = SETTINGS["num_attention_heads"]
    return PixArtConfig(LAYERS, heads, WIDTH // heads, text_dim=TEXT_WIDTH)


class TextToPicture(nn.Module):
    """The transformer, told which text features are padding."""

    def __init__(self) -> None:
        super().__init__()
        config = pixart_config()
        from kinetograph.modules.families.pixart.model import PixArtTransformer

        self.transformer = PixArtTransformer(config, attention=attend_to_words, dtype=torch.float32)

    def forward(self, x_nchw: Tensor, timestep_n: Tensor, context_gld: Tensor, frames: int = 1) -> Tensor:
        """Epsilon of pictures, or of clips whose frames lie side by side on the batch axis."""
        words = context_gld.any(-1)
        # with gradients, wanted or not: the transformer then works on all pictures at once
        with torch.enable_grad():
            return self.transformer(x_nchw, timestep_n, context_gld, words, num_video_frames=frames)


@torch.no_grad()
def start_weights(model: TextToPicture) -> None:
    """Start as a network that says "all of it is noise", with small branches and a timestep that is hardly told."""
    small = ("to_out.0.", "net.2.", "adaln_single.linear.")
    for name, p in model.named_parameters():
        if name.endswith("bias") or name.endswith("scale_shift_table"):
            nn.init.zeros_(p)
        else:
            gain = SMALL_BRANCH if any(part in name for part in small) else 1.0
            nn.init.normal_(p, std=gain * p[0].numel() ** -0.5)
    net = model.transformer
    for block in net.transformer_blocks:
        block.scale_shift_table[2::3] = 1.0
    net.adaln_single.emb.timestep_embedder.linear_2.weight.mul_(TIME_GAIN)
    _pass_noise(net)


def _pass_noise(net: Any) -> None:
    """Carry each token's noise to the closing layer, along directions that no position has and no norm takes away."""
    like = torch.zeros(1, 4, CELLS, CELLS)
    from kinetograph.modules.families.pixart.blocks import Layout

    side = CELLS // 2
    positions_ld = net._positions(Layout(1, side, side), like)
    taken = torch.cat([torch.ones(1, WIDTH), positions_ld])
    free = torch.linalg.svd(taken, full_matrices=True).Vh[len(taken) :]
    directions = free[: net.pos_embed.proj.weight[0].numel()]
    spread = (positions_ld - positions_ld.mean(1, keepdim=True)).square().mean(1).sqrt().mean()
    net.pos_embed.proj.weight.copy_(NOISE_GAIN * directions.T.view_as(net.pos_embed.proj.weight))
    net.proj_out.weight.zero_()
    # a token's numbers come in as (c, p, q) and go out as (p, q, c), epsilon before the variance
    c = 4
    out = net.proj_out.weight.view(2, 2, 2 * c, WIDTH)
    out[:, :, :c] = (spread / NOISE_GAIN) * directions.view(c, 2, 2, WIDTH).permute(1, 2, 0, 3)
