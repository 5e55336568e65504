"""The pocket models' sizes, in the words of their config.json, and how to build them for training."""

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import T5EncoderModel

    from ..modules.layers.attention import Attention

ROOT = Path(__file__).resolve().parents[1]
MODEL_FOLDER = Path(__file__).resolve().parent / "models" / "CogVideo" / "pocket-cogvideox"
INPAINT_MODEL = MODEL_FOLDER.with_name("pocket-cogvideox-fun-inp.safetensors")
CONTROL_MODEL = MODEL_FOLDER.with_name("pocket-cogvideox-fun-control.safetensors")
IMAGE_MODEL = MODEL_FOLDER.with_name("pocket-cogvideox-i2v.safetensors")
TEXT_TOKENS = 16

VAE_SETTINGS: dict[str, Any] = {
    "_class_name": "AutoencoderKLCogVideoX",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["CogVideoXDownBlock3D"] * 4,
    "up_block_types": ["CogVideoXUpBlock3D"] * 4,
    "block_out_channels": [8, 16, 32, 64],
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "act_fn": "silu",
    "pad_mode": "first",
    "temporal_compression_ratio": 4,
    "sample_height": 64,
    "sample_width": 64,
    "scaling_factor": 0.7,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TRANSFORMER_SETTINGS: dict[str, Any] = {
    "_class_name": "CogVideoXTransformer3DModel",
    "num_layers": 5,
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "time_embed_dim": 128,
    "text_embed_dim": 32,
    "max_text_seq_length": TEXT_TOKENS,
    "patch_size": 2,
    "sample_width": 8,  # latent cells: 64x64 pixels, and the base grid of the positions
    "sample_height": 8,
    "sample_frames": 17,
    "temporal_compression_ratio": 4,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": False,
    "activation_fn": "gelu-approximate",
    "timestep_activation_fn": "silu",
    "attention_bias": True,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-5,
    "norm_elementwise_affine": True,
    "dropout": 0.0,
    # Latents times the scale to RGB in -1..1, for previews: least squares over 48 clips, 4 % of the variance left.
    "latent_rgb_factors": [
        [0.1704, -0.0695, -0.0563],
        [-0.0695, 0.1583, -0.0401],
        [-0.0271, -0.0358, 0.1051],
        [-0.0072, 0.1065, 0.0326],
        [0.0327, -0.0371, 0.0297],
        [-0.0196, 0.1002, -0.0323],
        [0.0344, -0.0313, 0.0139],
        [0.0742, 0.0713, 0.123],
        [-0.0148, 0.0107, 0.0268],
        [-0.0176, -0.0228, 0.0098],
        [0.0033, 0.0084, 0.0034],
        [-0.0644, -0.0325, -0.003],
        [0.0464, 0.0561, -0.006],
        [0.0072, -0.0493, 0.054],
        [0.0611, -0.0358, 0.0502],
        [0.0322, 0.0082, 0.0142],
    ],
    "latent_rgb_bias": [-0.7325, -0.7375, -0.6801],
}
IMAGE_SETTINGS: dict[str, Any] = {  # as 5B-I2V: image channels, and learned positions beside RoPE
    **TRANSFORMER_SETTINGS,
    "in_channels": 32,
    "use_learned_positional_embeddings": True,
}
INPAINT_SETTINGS: dict[str, Any] = {  # as CogVideoX-Fun InP: a mask and a clip beside the noise
    **TRANSFORMER_SETTINGS,
    "in_channels": 33,
    "add_noise_in_inpaint_model": False,
}
CONTROL_SETTINGS: dict[str, Any] = {  # as CogVideoX-Fun Control: a clip to follow beside the noise
    **TRANSFORMER_SETTINGS,
    "in_channels": 32,
}
LEARNED_POSITIONS = TEXT_TOKENS + 5 * 4 * 4  # text, then latent frames times the 4x4 tokens of each
TEXT_SETTINGS: dict[str, Any] = {
    "architectures": ["T5EncoderModel"],
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 32,
    "num_layers": 1,
    "num_heads": 4,
    "d_kv": 16,
    "d_ff": 64,
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}
SCHEDULER_SETTINGS: dict[str, Any] = {
    "_class_name": "CogVideoXDPMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
    "steps_offset": 0,
}


def pack() -> None:
    """Make the pack importable as `kinetograph`, the way ComfyUI imports it."""
    runpy.run_path(str(ROOT / "tools" / "pack.py"))["register"]()


def build_vae() -> nn.Module:
    """The pack's own autoencoder at pocket size, weights unset."""
    pack()
    from kinetograph.modules.families.cogvideox.vae import CogVideoXVAE, VAEConfig

    config = VAEConfig(
        block_out_channels=tuple(VAE_SETTINGS["block_out_channels"]),
        layers_per_block=VAE_SETTINGS["layers_per_block"],
        latent_channels=VAE_SETTINGS["latent_channels"],
        norm_groups=VAE_SETTINGS["norm_num_groups"],
    )
    return CogVideoXVAE(config, dtype=torch.float32)


def build_transformer(
    settings: dict[str, Any] = TRANSFORMER_SETTINGS, attention: "Attention | None" = None
) -> nn.Module:
    """The pack's own transformer at pocket size, weights unset; with the pack's own attention if none is told."""
    pack()
    from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
    from kinetograph.modules.families.cogvideox.model import CogVideoXTransformer
    from kinetograph.modules.layers.attention import attend

    config = CogVideoXConfig(
        num_layers=settings["num_layers"],
        num_heads=settings["num_attention_heads"],
        in_channels=settings["in_channels"],
        time_embed_dim=settings["time_embed_dim"],
        text_dim=settings["text_embed_dim"],
        learned_positions=LEARNED_POSITIONS if settings["use_learned_positional_embeddings"] else 0,
        max_text_tokens=TEXT_TOKENS,
        sample_width=settings["sample_width"],
        sample_height=settings["sample_height"],
        sample_frames=settings["sample_frames"],
    )
    return CogVideoXTransformer(config, attention=attention or attend, dtype=torch.float32)


def build_text_encoder(vocabulary: int) -> "T5EncoderModel":
    """T5 with a table of only the `vocabulary` rows that captions use."""
    from transformers import T5Config, T5EncoderModel

    derived = ("architectures", "model_type", "dense_act_fn", "is_gated_act")
    settings = {key: value for key, value in TEXT_SETTINGS.items() if key not in derived}
    return T5EncoderModel(T5Config(**{**settings, "vocab_size": vocabulary}))


class TextToLatents(nn.Module):
    """Text encoder and transformer, trained as one."""

    def __init__(self, vocabulary: int, settings: dict[str, Any] = TRANSFORMER_SETTINGS) -> None:
        super().__init__()
        self.text = build_text_encoder(vocabulary)
        self.transformer = build_transformer(settings)

    def context(self, ids_bl: Tensor) -> Tensor:
        """Features of padded captions: (b, l, d). No mask: padding is seen, as in the published models."""
        return self.text(ids_bl).last_hidden_state

    def velocity(self, x_bcthw: Tensor, timestep_b: Tensor, context_bld: Tensor) -> Tensor:
        return self.transformer(x_bcthw, timestep_b, context_bld)
