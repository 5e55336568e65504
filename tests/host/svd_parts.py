"""Tiny parts of Stable Video Diffusion for the host, and our conditioning nodes called on them."""

from dataclasses import dataclass

import torch

from kinetograph.tests import tiny
from kinetograph.tests.host.workbench import run

FRAMES, HEIGHT, WIDTH = 3, 64, 128
VAE = {
    "block_out_channels": (32, 32, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
HOST_VAE = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}


@dataclass(frozen=True)
class Sizes:
    """A tiny image encoder, in the words that `load_clip_vision` reads."""

    hidden_size: int = 32
    num_layers: int = 3
    num_heads: int = 4
    intermediate: int = 80
    patch: int = 14
    image_size: int = 224
    projection: int = 16


def make_image_encoder():
    """A random encoder of transformers whose norms let the picture through."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = Sizes()
    config = CLIPVisionConfig(
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        intermediate_size=sizes.intermediate,
        patch_size=sizes.patch,
        image_size=sizes.image_size,
        projection_dim=sizes.projection,
        hidden_act="gelu",
    )
    encoder = tiny.randomise(CLIPVisionModelWithProjection(config), 3)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight += 1
    return encoder


def make_image_vae():
    from diffusers import AutoencoderKL

    return tiny.randomise(AutoencoderKL(**VAE), 4)


def hf_weights(encoder):
    return {key: value.clone() for key, value in encoder.state_dict().items() if "position_ids" not in key}


def make_vision(image_encoder):
    from kinetograph.nodes.host import clip_vision

    recipe = clip_vision.VisionRecipe(Sizes(), lambda: hf_weights(image_encoder), "tiny")
    return clip_vision.load_clip_vision(recipe)


def make_vae(image_vae):
    import comfy.sd

    weights = {key: value.clone() for key, value in image_vae.state_dict().items()}
    return comfy.sd.VAE(sd=weights, config={"params": HOST_VAE})


def make_host_svd():
    """The host's own SVD at tiny sizes, as a MODEL."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SVD_img2vid(
        {
            **{"image_size": 32, "in_channels": 8, "out_channels": 4, "model_channels": 64, "legacy": False},
            **{"num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1]},
            **{"transformer_depth_output": [1] * 4, "transformer_depth_middle": 1, "context_dim": 16},
            **{
                "use_spatial_transformer": True,
                "use_linear_in_transformer": True,
                "extra_ff_mix_layer": True,
            },
            **{"num_classes": "sequential", "adm_in_channels": 768, "use_spatial_context": True},
            **{"use_temporal_attention": True, "use_temporal_resblock": True, "video_kernel_size": [3, 1, 1]},
            **{"merge_strategy": "learned_with_images", "merge_factor": 0.0},
            **{"disable_temporal_crossattention": False},
        }
    )
    config.unet_config["dtype"] = torch.float32
    model = config.get_model({}, device="cpu")
    tiny.randomise(model.diffusion_model, 5)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def pictures(count=1, height=HEIGHT, width=WIDTH, seed=0):
    """8-bit pictures, as PIL holds them, in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator).float() / 255


def latent(frames=FRAMES, clips=1, height=HEIGHT, width=WIDTH):
    return {"samples": torch.zeros(frames * clips, 4, height // 8, width // 8), "num_frames": frames}


def condition(bench, vision, vae, image, **changes):
    chosen = {
        "clip_vision": vision,
        "vae": vae,
        "image": image,
        "latent": latent(),
        "fps": 7,
        "motion_bucket_id": 127,
        "noise_aug_strength": 0.02,
        "seed": 0,
        "fit": "crop",
    }
    return run(bench.ours["SVDConditioning"], **{**chosen, **changes})


def pin(bench, vae, images, frames, **changes):
    chosen = {"latent": latent(5), "vae": vae, "images": images, "frames": frames, "fit": "crop"}
    return run(bench.ours["PinFrames"], **{**chosen, **changes})[0]
