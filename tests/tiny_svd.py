"""Tiny random SVD checkpoints in the published layouts: a diffusers folder, and one file as svd_xt.safetensors.

The single file holds two encoders, as the published one: that of `first_stage_model` has weights of its own,
so that a test can tell which one was used. 128x128 pixels and 6 frames are the native size.
"""

import json

import torch
from safetensors.torch import save_file

from kinetograph.modules.encoders.clip_vision import OPEN_CLIP
from kinetograph.modules.families.svd import keys

FRAMES, HEIGHT, WIDTH = 6, 128, 128
CONTEXT = 32
SETTINGS = {"head_dim": 16, "num_frames": FRAMES, "width": WIDTH, "height": HEIGHT, "image_encoder_heads": 2}
UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64, 64),
    "num_attention_heads": (2, 4, 4, 4),
    "cross_attention_dim": CONTEXT,
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 48,
    "layers_per_block": 2,
    "num_frames": FRAMES,
}
VAE = {
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 128,
}
IMAGE_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": CONTEXT,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}


def randomise(model, seed):
    """Weights with unit gain, so that no path is dead and none drowns the others; norms near 1, biases small."""
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter, spread, middle=0.0):
        parameter.copy_(middle + spread * torch.randn(parameter.shape, generator=generator))

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embedding" not in name:
                draw(parameter, parameter[0].numel() ** -0.5)
            elif "norm" in name and name.endswith("weight"):
                draw(parameter, 0.3, 1.0)
            else:
                draw(parameter, 0.3)
    return model.eval()


def unet(seed=0):
    """The reference with the epsilon of the original (spec, 1.1): its own is another in most ResBlocks."""
    from diffusers import UNetSpatioTemporalConditionModel

    model = randomise(UNetSpatioTemporalConditionModel(**UNET), seed)
    for name, module in model.named_modules():
        if "_res_block" in name and isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-5
    return model


def vae(seed=1):
    from diffusers import AutoencoderKLTemporalDecoder

    return randomise(AutoencoderKLTemporalDecoder(**VAE), seed)


def image_encoder(seed=2):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return randomise(CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_ENCODER)), seed)


def scheduler():
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
        steps_offset=1,
    )


def pipeline(seed=0):
    """diffusers' whole pipeline around the tiny models."""
    from diffusers import StableVideoDiffusionPipeline
    from transformers import CLIPImageProcessor

    parts = {"unet": unet(seed), "vae": vae(seed + 1), "image_encoder": image_encoder(seed + 2)}
    made = StableVideoDiffusionPipeline(
        **parts, scheduler=scheduler(), feature_extractor=CLIPImageProcessor()
    )
    made.set_progress_bar_config(disable=True)
    return made


def write_pipeline(folder, seed=0):
    """A diffusers folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    unet(seed).save_pretrained(folder / "unet")
    vae(seed + 1).save_pretrained(folder / "vae")
    image_encoder(seed + 2).save_pretrained(folder / "image_encoder")
    scheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableVideoDiffusionPipeline"}))
    return folder


def renamed(model, table):
    """A reference's weights under our names, which are the original's."""
    state = model.state_dict()
    return {ours: state[key] for key, ours in table.rename(state).items() if ours is not None}


def as_convolutions(tensors):
    """The attention of a VAE as the original stores it: matrices are convolutions of one pixel."""
    return {
        key: value[..., None, None] if ".attn_1." in key and value.ndim == 2 else value
        for key, value in tensors.items()
    }


def open_clip(model):
    """The image encoder in OpenCLIP's layout: q, k and v in one matrix, the projection transposed."""
    state = {key: value for key, value in model.state_dict().items() if "position_ids" not in key}
    back = OPEN_CLIP.reverse()
    for kind in ("weight", "bias"):
        for i in range(IMAGE_ENCODER["num_hidden_layers"]):
            place = f"vision_model.encoder.layers.{i}.self_attn."
            apart = [state.pop(f"{place}{name}_proj.{kind}") for name in "qkv"]
            state[f"{place}in_proj_{kind}"] = torch.cat(apart)
    state["visual_projection.weight"] = state["visual_projection.weight"].T
    return {theirs: state[key] for key, theirs in back.rename(state).items()}


def single_file(seed=0):
    """Every tensor of a checkpoint in svd_xt's layout."""
    image_vae = as_convolutions(renamed(vae(seed + 1), keys.VAE_DIFFUSERS))
    other = as_convolutions(renamed(vae(seed + 100), keys.VAE_DIFFUSERS))
    own_encoder = {key: value for key, value in other.items() if key.startswith("encoder.")}
    decoder = {key: value for key, value in image_vae.items() if key.startswith("decoder.")}
    picture = {key: value for key, value in image_vae.items() if not key.startswith("decoder.")}
    groups = {
        "model.diffusion_model.": renamed(unet(seed), keys.DIFFUSERS),
        "first_stage_model.": {**own_encoder, **decoder},
        "conditioner.embedders.3.encoder.": picture,
        "conditioner.embedders.0.open_clip.model.": open_clip(image_encoder(seed + 2)),
    }
    return {
        prefix + key: value.contiguous().clone()
        for prefix, group in groups.items()
        for key, value in group.items()
    }


def write_file(path, seed=0, dtype=torch.float32):
    """One file as svd_xt.safetensors; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.to(dtype) for key, value in single_file(seed).items()}
    save_file(tensors, path, metadata={"config": json.dumps(SETTINGS)})
    return path


def exvideo(seed=5):
    """Random ExVideo branches for the tiny UNet, in our naming; near the identity, so that nothing explodes."""
    from kinetograph.modules.families.svd.config import SVDConfig
    from kinetograph.modules.families.svd.exvideo import ExVideoBranches

    config = SVDConfig(channels=UNET["block_out_channels"], head_dim=16, context_dim=CONTEXT)
    return randomise(ExVideoBranches(config), seed)


def write_exvideo(path, seed=5, dtype=torch.float32):
    """An ExVideo file in its published names; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = exvideo(seed).state_dict()
    back = keys.EXVIDEO.reverse().rename(ours)
    tensors = {back[key]: value.to(dtype).contiguous() for key, value in ours.items()}
    save_file(tensors, path, metadata={"config": json.dumps(SETTINGS)})
    return path
