"""CogVideoX (arXiv 2408.06072): 2B, 5B, 5B-I2V, 1.5-5B, 1.5-5B-I2V; CogVideoX-Fun InP and Control."""

from ...encoders.t5 import t5_encoder
from ...noise import DiscreteNoise
from ...weights.part import NodeName
from ..family import Diffusion, Family, Part
from .conditions import conditions, inputs
from .config import GRID, PUBLISHED, CogVideoXConfig, read_config, untold
from .keys import COMFY, DIFFSYNTH, DIFFUSERS, VAE
from .model import CogVideoXTransformer
from .releases import RELEASES
from .vae import CogVideoXVAE, read_vae_config

LOADER = NodeName("KinetographCogVideoXLoader", "CogVideoX Loader")
# our model folder; earlier packs taught users its name
FOLDER = "CogVideo"


def noise(config: CogVideoXConfig) -> DiscreteNoise:
    """v-prediction with zero terminal SNR; only 2B also shifts the SNR (CogVideoX, sec. 3.3)."""
    return DiscreteNoise(
        prediction="v",
        beta_start=0.00085,
        beta_end=0.012,
        kind="scaled_linear",
        snr_shift=config.snr_shift,
        zero_terminal_snr=True,
    )


def memory_factor(config: CogVideoXConfig) -> float:
    """Activations of a step in the host's units (1 / 100 MiB a latent cell and byte): 0.37 measured at 5B.

    Benchmark cog_dit counts 1.02 GiB for 49 frames of 480x720 with both CFG halves in one batch; they grow
    with the width of a token.
    """
    return 0.5 * config.width / 3072


TRANSFORMER = Part(
    kind="diffusion_model",
    signature=(
        "patch_embed.proj.weight",
        "patch_embed.text_proj.weight",
        "time_embedding.linear_1.weight",
        "transformer_blocks.0.attn1.norm_q.weight",
        "proj_out.weight",
    ),
    dialects={"diffusers": DIFFUSERS, "comfy": COMFY},
    lora_names={"diffsynth": DIFFSYNTH},
    published=PUBLISHED,
    read_config=read_config,
    variant=lambda config: config.variant,
    build=CogVideoXTransformer,
    untold=untold,
    folders=("diffusion_models", "checkpoints", FOLDER),
    folder="diffusion_models",
    components=("transformer",),
    node=LOADER,
)
CAUSAL_VAE = Part(
    kind="vae",
    signature=(
        "encoder.conv_in.conv.weight",
        "encoder.conv_out.conv.weight",
        "decoder.conv_in.conv.weight",
        "decoder.up_blocks.0.resnets.0.norm1.conv_y.conv.weight",
    ),
    dialects={"diffusers": VAE},
    read_config=read_vae_config,
    variant=lambda config: "VAE",
    build=CogVideoXVAE,
    untold=lambda config: {"norm_num_groups": config.norm_groups},
    folders=("vae", "checkpoints", FOLDER),
    folder="vae",
    components=("vae",),
    node=LOADER,
)
FAMILY = Family(
    id="cogvideox",
    label="CogVideoX",
    parts={"diffusion_model": TRANSFORMER, "vae": CAUSAL_VAE, "text_encoder": t5_encoder(LOADER, FOLDER)},
    releases=RELEASES,
    diffusion=Diffusion(
        grid=GRID,
        noise=noise,
        latents=lambda config: config.latents,
        conditions=conditions,
        inputs=inputs,
        native_size=lambda config: config.native_size,
        memory_factor=memory_factor,
        takes=lambda config: config.takes,
        image_noise=lambda config: config.image_noise,
        limits=lambda config: config.limits,
        frame_rule=lambda config: config.frame_rule,
    ),
)
