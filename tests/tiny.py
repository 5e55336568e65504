"""Tiny random checkpoints in the published CogVideoX layout, written by the reference's own classes.

A folder holds transformer, vae, text_encoder and scheduler, each with the config.json that diffusers
writes. Weights are N(0, 0.2) so that no path is dead; 64x64 pixels and 17 frames are their native size.
"""

import json

import torch

FRAMES, HEIGHT, WIDTH = 17, 64, 64
TEXT_TOKENS = 32
TEXT_WIDTH = 16

TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "time_embed_dim": 8,
    "text_embed_dim": TEXT_WIDTH,
    "sample_width": WIDTH // 8,
    "sample_height": HEIGHT // 8,
    "sample_frames": FRAMES,
    "max_text_seq_length": TEXT_TOKENS,
}
ROTARY = {"use_rotary_positional_embeddings": True}
IMAGE = {"in_channels": 32, "out_channels": 16}
LEARNED = {"use_learned_positional_embeddings": True}
# 1.5 cuts its patches with a Linear; sample sizes there are those of the published configs, which only the
# reference's RoPE reads, never ours.
NEWER = {**ROTARY, "patch_size_t": 2, "patch_bias": False}
VARIANTS = {
    "2B": {},
    "5B": ROTARY,
    "5B-I2V": {**ROTARY, **IMAGE, **LEARNED},
    "1.5-5B": NEWER,
    "1.5-5B-I2V": {**NEWER, **IMAGE, "ofs_embed_dim": 8},
}
# CogVideoX-Fun: 17 channels of a mask and a clip beside the noise, or 16 of a clip to follow.
INPAINT = {"in_channels": 33, "out_channels": 16}
FUN = {
    "2B-InP": INPAINT,
    "5B-InP": {**ROTARY, **INPAINT},
    "1.5-5B-InP": {**NEWER, **INPAINT},
    "5B-Control": {**ROTARY, **IMAGE},
}
VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_height": HEIGHT,
    "sample_width": WIDTH,
}
TEXT_ENCODER = {
    "vocab_size": 32128,
    "d_model": TEXT_WIDTH,
    "d_kv": 8,
    "num_heads": 2,
    "d_ff": 32,
    "num_layers": 2,
    "feed_forward_proj": "gated-gelu",
}


def randomise(model, seed):
    """Every weight from N(0, 0.2), in the order of the state dict."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.state_dict().values():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def transformer(variant, seed=0, **changes):
    from diffusers import CogVideoXTransformer3DModel

    told = {**TRANSFORMER, **{**VARIANTS, **FUN}[variant], **changes}
    return randomise(CogVideoXTransformer3DModel(**told), seed)


def vae(variant="5B", seed=1):
    from diffusers import AutoencoderKLCogVideoX

    scale = 1.15258426 if variant.startswith("2B") else 0.7
    return randomise(AutoencoderKLCogVideoX(**VAE, scaling_factor=scale), seed)


def text_encoder(seed=2):
    from transformers import T5Config, T5EncoderModel

    return randomise(T5EncoderModel(T5Config(**TEXT_ENCODER)), seed)


def scheduler(variant):
    from diffusers import CogVideoXDDIMScheduler

    return CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=3.0 if variant == "2B" else 1.0,
    )


def write_pipeline(folder, variant, seed=0, max_shard_size="10GB"):
    """A whole diffusers folder of one variant; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    transformer(variant, seed).save_pretrained(folder / "transformer", max_shard_size=max_shard_size)
    vae(variant, seed + 1).save_pretrained(folder / "vae")
    text_encoder(seed + 2).save_pretrained(folder / "text_encoder")
    scheduler(variant).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "CogVideoXPipeline"}))
    return folder


def weights_of(folder):
    """The one safetensors file of a component folder."""
    (path,) = folder.glob("*.safetensors")
    return path
