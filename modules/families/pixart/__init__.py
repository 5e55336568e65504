"""PixArt-alpha (arXiv 2310.00426): pictures from text, the base of EasyAnimate v1."""

import dataclasses

from ...encoders.t5 import t5_encoder
from ...noise import DiscreteNoise
from ...weights.part import NodeName
from ..family import Diffusion, Family, Part
from .conditions import conditions, inputs
from .config import GRID, PUBLISHED, PixArtConfig, read_config, untold
from .keys import DIFFUSERS, ORIGINAL
from .model import PixArtTransformer
from .releases import RELEASES
from .vae import DIFFUSERS as VAE_DIFFUSERS
from .vae import ORIGINAL as VAE_ORIGINAL
from .vae import TINY, kl_shapes, read_kl_config, read_tiny_config, tiny_shapes

LOADER = NodeName("KinetographPixArtLoader", "PixArt Loader")
# EasyAnimate v1's model folders, where each kind of its files may lie; the last is the network's own
FOLDERS = ("Motion_Module", "Personalized_Model", "Diffusion_Transformer")
FOLDER = FOLDERS[-1]
# ours, for picture models: the pocket SD's file holds an autoencoder and a text encoder, too
PICTURES = "SD"
# linear in beta
NOISE = DiscreteNoise("epsilon", 0.0001, 0.02, "linear")


def memory_factor(config: PixArtConfig) -> float:
    """Activations of a step in the host's units (1 / 100 MiB a latent cell and byte): 0.042 measured with motion modules.

    Benchmark pixart_easyanimate counts 0.53 GiB for 80 frames of 512x512 with both CFG halves in one batch; they grow
    with the width of a token.
    """
    return 0.06 * config.width / 1152


TRANSFORMER = Part(
    kind="diffusion_model",
    signature=(
        "pos_embed.proj.weight",
        "adaln_single.linear.weight",
        "caption_projection.linear_1.weight",
        "transformer_blocks.0.scale_shift_table",
        "transformer_blocks.0.attn2.to_q.weight",
        "proj_out.weight",
    ),
    dialects={"diffusers": DIFFUSERS, "original": ORIGINAL},
    published=PUBLISHED,
    read_config=read_config,
    variant=lambda config: config.variant,
    build=PixArtTransformer,
    untold=untold,
    folders=("diffusion_models", "checkpoints", *FOLDERS),
    folder=FOLDER,
    components=("transformer",),
    node=LOADER,
    lora_folder="Personalized_Model",
)
VAE = Part(
    kind="vae",
    signature=(
        "encoder.down.0.block.0.conv1.weight",
        "decoder.conv_in.weight",
        "decoder.up.0.block.0.conv1.weight",
        "post_quant_conv.weight",
    ),
    dialects={"original": VAE_ORIGINAL, "diffusers": VAE_DIFFUSERS},
    read_config=read_kl_config,
    variant=lambda config: "VAE",
    build=None,
    host_shapes=kl_shapes,
    folders=("vae", "checkpoints", FOLDER),
    folder="vae",
    components=("vae",),
    node=LOADER,
    pointwise=True,
)
TINY_VAE = dataclasses.replace(
    VAE,
    kind="tiny_vae",
    signature=("taesd_encoder.0.weight", "taesd_decoder.1.weight", "vae_scale"),
    dialects={"comfy": TINY},
    read_config=read_tiny_config,
    variant=lambda config: "TAESD",
    host_shapes=tiny_shapes,
    folders=("vae", PICTURES),
    pointwise=False,
)
TEXT = t5_encoder(LOADER, FOLDER)
FAMILY = Family(
    id="pixart",
    label="PixArt",
    parts={
        "diffusion_model": TRANSFORMER,
        "vae": VAE,
        "tiny_vae": TINY_VAE,
        "text_encoder": dataclasses.replace(TEXT, folders=(*TEXT.folders, PICTURES)),
    },
    releases=RELEASES,
    diffusion=Diffusion(
        grid=GRID,
        noise=lambda config: NOISE,
        latents=lambda config: config.latents,
        conditions=conditions,
        inputs=inputs,
        native_size=lambda config: config.native_size,
        memory_factor=memory_factor,
        takes=lambda config: "nothing",
        image_noise=lambda config: 0.0,
    ),
)
