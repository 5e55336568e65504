"""Stable Video Diffusion (arXiv 2311.15127) and its extension to 128 frames, ExVideo (arXiv 2406.14130)."""

from ..family import EDMSchedule, Family, Part
from .conditions import conditions
from .config import GRID, LATENT_SCALE, SIGMA_MAX, SIGMA_MIN, SVDConfig, read_config, read_extension_config
from .exvideo import ExVideoBranches
from .image_encoder import key_shapes, variant
from .image_encoder import read_config as read_image_encoder_config
from .keys import (
    CLIP_COMFY,
    CLIP_HUGGING_FACE,
    CLIP_ORIGINAL,
    DIFFUSERS,
    EXVIDEO,
    IMAGE_VAE,
    ORIGINAL,
    VAE_DIFFUSERS,
    VAE_ORIGINAL,
)
from .model import SVDUNet
from .vae import SVDVAE, KLEncoder, read_vae_config

LOADER = "KinetographSVDLoader"


def memory_factor(config: SVDConfig) -> float:
    """Activations of a step in the host's units (1 / 100 MiB a latent cell and byte); they grow with the width."""
    return 2.8 * config.channels[0] / 320


# Telling keys are of the temporal layers alone: the rest is named as in image models.
UNET = Part(
    kind="diffusion_model",
    signature=(
        "input_blocks.1.0.time_stack.in_layers.2.weight",
        "input_blocks.1.1.time_stack.0.norm_in.weight",
        "middle_block.1.time_pos_embed.0.weight",
        "middle_block.1.time_mixer.mix_factor",
    ),
    dialects={"original": ORIGINAL, "diffusers": DIFFUSERS},
    read_config=read_config,
    variant=lambda config: config.variant,
    build=SVDUNet,
    folder="checkpoints",
    node=LOADER,
)
VAE = Part(
    kind="vae",
    signature=(
        "decoder.mid.block_1.mix_factor",
        "decoder.mid.block_1.time_stack.in_layers.2.weight",
        "decoder.conv_out.time_mix_conv.weight",
    ),
    dialects={"original": VAE_ORIGINAL, "diffusers": VAE_DIFFUSERS},
    read_config=read_vae_config,
    variant=lambda config: "VAE",
    build=SVDVAE,
    folder="vae",
    node=LOADER,
    pointwise=True,
)
PICTURE_VAE = Part(
    kind="image_vae",
    signature=("encoder.conv_in.weight", "encoder.conv_out.weight", "quant_conv.weight"),
    dialects={"original": IMAGE_VAE},
    read_config=read_vae_config,
    variant=lambda config: "image VAE",
    build=KLEncoder,
    folder="checkpoints",
    node=LOADER,
    prefixes=("conditioner.embedders.3.encoder.",),  # elsewhere it is the VAE of an image model
    pointwise=True,
)
IMAGE_ENCODER = Part(
    kind="image_encoder",
    signature=(
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.encoder.layers.0.layer_norm1.weight",
        "visual_projection.weight",
    ),
    dialects={"original": CLIP_ORIGINAL, "huggingface": CLIP_HUGGING_FACE, "comfy": CLIP_COMFY},
    read_config=read_image_encoder_config,
    variant=variant,
    build=None,
    folder="clip_vision",
    node=LOADER,
    host_shapes=key_shapes,
)
EXTENSION = Part(
    kind="extension",
    signature=(
        "input_blocks.1.1.positional.embeddings",
        "input_blocks.1.1.positional.conv.weight",
        "middle_block.1.positional.embeddings",
        "middle_block.1.time_stack.0.norm_in.weight",
    ),
    dialects={"diffsynth": EXVIDEO},
    read_config=read_extension_config,
    variant=lambda config: "ExVideo",
    build=ExVideoBranches,
    folder="SVD",
    node="KinetographExVideoPatch",
)
FAMILY = Family(
    id="svd",
    label="SVD",
    parts={
        "diffusion_model": UNET,
        "vae": VAE,
        "image_vae": PICTURE_VAE,
        "image_encoder": IMAGE_ENCODER,
        "extension": EXTENSION,
    },
    grid=GRID,
    schedule=lambda config: EDMSchedule(SIGMA_MIN, SIGMA_MAX),
    latent_scale=lambda config: LATENT_SCALE,
    memory_factor=memory_factor,
    conditions=conditions,
)
