"""Stable Video Diffusion (arXiv 2311.15127) and its extension to 128 frames, ExVideo (arXiv 2406.14130)."""

import dataclasses

from ...encoders.clip_vision import clip_vision_encoder
from ...noise import EDMNoise
from ...weights.part import NodeName
from ..family import AddOn, Diffusion, Family, Limits, Part
from .conditions import conditions, inputs
from .config import (
    EXVIDEO_SIZE,
    GRID,
    SIGMA_MAX,
    SIGMA_MIN,
    SVDConfig,
    read_config,
    read_extension_config,
    untold,
)
from .exvideo import ExVideoBranches, check_clip, check_fit
from .keys import (
    DIFFUSERS,
    IMAGE_VAE,
    ORIGINAL,
    VAE_DIFFUSERS,
    VAE_ORIGINAL,
)
from .keys import (
    EXVIDEO as EXVIDEO_KEYS,
)
from .model import SVDUNet
from .releases import RELEASES
from .vae import SVDVAE, KLEncoder, read_vae_config

LOADER = NodeName("KinetographSVDLoader", "SVD Loader")
PATCH = NodeName("KinetographExVideoPatch", "ExVideo Patch")
# our model folder
FOLDER = "SVD"


def memory_factor(config: SVDConfig) -> float:
    """Activations of a step in the host's units (1 / 100 MiB a latent cell and byte): 0.31 measured at full width.

    Benchmark svd_unet counts them for 25 frames of 1024x576; they grow with the width.
    """
    return 0.45 * config.channels[0] / 320


# Telling keys are of the temporal layers alone: the rest is named as in image models.
UNET = Part(
    node=LOADER,
    folders=("diffusion_models", "checkpoints", FOLDER),
    folder="checkpoints",
    components=("unet",),
    kind="diffusion_model",
    build=SVDUNet,
    untold=untold,
    read_config=read_config,
    variant=lambda config: config.variant,
    dialects={"original": ORIGINAL, "diffusers": DIFFUSERS},
    published=(SVDConfig(),),
    signature=(
        "input_blocks.1.0.time_stack.in_layers.2.weight",
        "input_blocks.1.1.time_stack.0.norm_in.weight",
        "middle_block.1.time_pos_embed.0.weight",
        "middle_block.1.time_mixer.mix_factor",
    ),
)
VAE = Part(
    node=LOADER,
    folders=("vae", "checkpoints", FOLDER),
    folder="vae",
    components=("vae",),
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
    folders=("checkpoints", FOLDER),
    folder="checkpoints",
    components=(),
    kind="image_vae",
    build=KLEncoder,
    variant=lambda config: "image VAE",
    dialects={"original": IMAGE_VAE},
    signature=("encoder.conv_in.weight", "encoder.conv_out.weight", "quant_conv.weight"),
    prefixes=("conditioner.embedders.3.encoder.",),  # elsewhere it is the VAE of an image model
)
EXTENSION = Part(
    node=PATCH,
    folders=("diffusion_models", "checkpoints", FOLDER),
    folder=FOLDER,
    kind="extension",
    build=ExVideoBranches,
    untold=untold,
    read_config=read_extension_config,
    variant=lambda config: "ExVideo",
    dialects={"diffsynth": EXVIDEO_KEYS},
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
        "image_encoder": clip_vision_encoder(LOADER, FOLDER),
        "extension": EXTENSION,
    },
    releases=RELEASES,
    diffusion=Diffusion(
        grid=GRID,
        noise=lambda config: EDMNoise(SIGMA_MIN, SIGMA_MAX),
        latents=lambda config: config.latents,
        conditions=conditions,
        inputs=inputs,
        native_size=lambda config: config.native_size,
        memory_factor=memory_factor,
        takes=lambda config: "image",
        # of diffusers' pipeline; ExVideo was trained without
        image_noise=lambda config: 0.0 if config.exvideo else 0.02,
        limits=lambda config: config.limits,
    ),
)
EXVIDEO = AddOn(
    part=EXTENSION,
    bases=(FAMILY.id,),
    check_fit=check_fit,
    limits=lambda config: Limits(max_frames=EXVIDEO_SIZE[2]),
    check_clip=check_clip,
    insert=lambda branches: branches.items(),
)
