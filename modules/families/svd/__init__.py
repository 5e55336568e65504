"""Stable Video Diffusion (arXiv 2311.15127) and its extension to 128 frames, ExVideo (arXiv 2406.14130)."""

import dataclasses

from ...encoders.clip_vision import clip_vision_encoder
from ...weights.part import NodeName
from ..family import EDMSchedule, Family, Part
from .conditions import conditions
from .config import (
    GRID,
    LATENT_SCALE,
    SIGMA_MAX,
    SIGMA_MIN,
    SVDConfig,
    read_config,
    read_extension_config,
    untold,
)
from .exvideo import ExVideoBranches
from .keys import (
    DIFFUSERS,
    EXVIDEO,
    IMAGE_VAE,
    ORIGINAL,
    VAE_DIFFUSERS,
    VAE_ORIGINAL,
)
from .model import SVDUNet
from .vae import SVDVAE, KLEncoder, read_vae_config

LOADER = NodeName("KinetographSVDLoader", "SVD Loader")
PATCH = NodeName("KinetographExVideoPatch", "ExVideo Patch")


def memory_factor(config: SVDConfig) -> float:
    """Activations of a step in the host's units (1 / 100 MiB a latent cell and byte): 0.31 measured at full width.

    Benchmark svd_unet counts them for 25 frames of 1024x576; they grow with the width.
    """
    return 0.45 * config.channels[0] / 320


# Telling keys are of the temporal layers alone: the rest is named as in image models.
UNET = Part(
    node=LOADER,
    folder="checkpoints",
    kind="diffusion_model",
    build=SVDUNet,
    untold=untold,
    read_config=read_config,
    variant=lambda config: config.variant,
    dialects={"original": ORIGINAL, "diffusers": DIFFUSERS},
    signature=(
        "input_blocks.1.0.time_stack.in_layers.2.weight",
        "input_blocks.1.1.time_stack.0.norm_in.weight",
        "middle_block.1.time_pos_embed.0.weight",
        "middle_block.1.time_mixer.mix_factor",
    ),
)
VAE = Part(
    node=LOADER,
    folder="vae",
    kind="vae",
    build=SVDVAE,
    read_config=read_vae_config,
    variant=lambda config: "VAE",
    dialects={"original": VAE_ORIGINAL, "diffusers": VAE_DIFFUSERS},
    signature=(
        "decoder.mid.block_1.mix_factor",
        "decoder.mid.block_1.time_stack.in_layers.2.weight",
        "decoder.conv_out.time_mix_conv.weight",
    ),
    pointwise=True,
)
PICTURE_VAE = dataclasses.replace(
    VAE,
    folder="checkpoints",
    kind="image_vae",
    build=KLEncoder,
    variant=lambda config: "image VAE",
    dialects={"original": IMAGE_VAE},
    signature=("encoder.conv_in.weight", "encoder.conv_out.weight", "quant_conv.weight"),
    prefixes=("conditioner.embedders.3.encoder.",),  # elsewhere it is the VAE of an image model
)
EXTENSION = Part(
    node=PATCH,
    folder="SVD",
    kind="extension",
    build=ExVideoBranches,
    untold=untold,
    read_config=read_extension_config,
    variant=lambda config: "ExVideo",
    dialects={"diffsynth": EXVIDEO},
    signature=(
        "input_blocks.1.1.positional.embeddings",
        "input_blocks.1.1.positional.conv.weight",
        "middle_block.1.positional.embeddings",
        "middle_block.1.time_stack.0.norm_in.weight",
    ),
)
FAMILY = Family(
    id="svd",
    label="SVD",
    parts={
        "diffusion_model": UNET,
        "vae": VAE,
        "image_vae": PICTURE_VAE,
        "image_encoder": clip_vision_encoder(LOADER),
        "extension": EXTENSION,
    },
    grid=GRID,
    schedule=lambda config: EDMSchedule(SIGMA_MIN, SIGMA_MAX),
    latent_scale=lambda config: LATENT_SCALE,
    memory_factor=memory_factor,
    conditions=conditions,
)
