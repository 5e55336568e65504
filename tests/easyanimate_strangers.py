"""Later models of EasyAnimate and others beside EasyAnimate v1, in shapes alone, under their references' names."""

from functools import cache

import torch

from kinetograph.benchmarks import peers
from kinetograph.tests.checkpoints import BY_NAME

PIXART, MODULES = BY_NAME["easyanimate-portrait"].shapes, BY_NAME["easyanimate-v1-mm"].shapes
HUNYUAN = {"num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 8}


def _handful(*keys):
    """Shapes of a few keys."""
    return dict.fromkeys(keys, (2, 2))


@cache
def _of_diffusers(name, **arguments):
    """Keys and shapes of a model of diffusers."""
    with torch.device("meta"):
        model = getattr(peers.load_diffusers(), name)(**arguments)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def hunyuan():
    return dict(_of_diffusers("HunyuanDiT2DModel", in_channels=4, patch_size=2, num_layers=2, **HUNYUAN))


def v2():
    """PixArt with motion modules, and a layer for every block from which another skips: a U-ViT."""
    skips = {
        f"long_connect_fc.{i}.{word}": (1152,) * axes
        for i in range(13)
        for word, axes in (("weight", 2), ("bias", 1))
    }
    return {**PIXART, **MODULES, **skips}


def v3():
    """V2, with noise, mask and clip, and the picture to start from as CLIP sees it."""
    clip = {
        f"clip_projection.linear_{n}.{word}": (2,) * axes
        for n in (1, 2)
        for word, axes in (("weight", 2), ("bias", 1))
    }
    return {**v2(), **clip, "pos_embed.proj.weight": (1152, 12, 2, 2)}


def v4():
    """HunyuanDiT that counts frames."""
    return {**hunyuan(), **{f"blocks.{i}.t_embed.pe": (1, 512, 16) for i in range(2)}}


def v4_inpaint():
    """HunyuanDiT that looks at a picture with CLIP, without what counts frames."""
    picture = _handful(
        *(
            f"blocks.0.{name}.weight"
            for name in ("attn_clip.to_q", "norm_clip", "gate_clip.proj", "norm_clip_out")
        ),
        *("clip_padding", "clip_projection.query", "clip_projection.kv_proj.weight"),
    )
    return {**hunyuan(), **picture, "pos_embed.proj.weight": (16, 12, 2, 2)}


def v5_1(norm=True, t5=None):
    """As diffusers has it; EasyAnimate's own file has the same names."""
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "text_embed_dim": 8}
    return dict(
        _of_diffusers(
            "EasyAnimateTransformer3DModel",
            **{"in_channels": 16, "out_channels": 16, "patch_size": 2, **sizes},
            **{"add_norm_text_encoder": norm, "text_embed_dim_t5": t5},
        )
    )


def v5():
    """With two text encoders, whose tokens are not normalised."""
    return v5_1(norm=False, t5=8)


def v5_inpaint():
    return {**v5(), "proj.weight": (16, 33, 2, 2), **_handful("clip_proj.weight", "clip_proj.bias")}


def vae():
    return dict(
        _of_diffusers(
            "AutoencoderKLMagvit",
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=2,
            latent_channels=4,
        )
    )


def under(prefix, shapes):
    return {f"{prefix}.{key}": shape for key, shape in shapes.items()}


LATER = (
    "is a transformer of EasyAnimate {}, which is not supported. Use easyanimate_v1_mm.safetensors on PixArt"
)
# label -> (shapes of a file, words of the error)
STRANGERS = {
    "EasyAnimate V2": (v2, LATER.format("V2")),
    "EasyAnimate V3": (v3, LATER.format("V3")),
    "EasyAnimate V4": (v4, LATER.format("V4")),
    "EasyAnimate V4 (pictures)": (v4_inpaint, LATER.format("V4")),
    "EasyAnimate V5": (v5, LATER.format("V5")),
    "EasyAnimate V5 (pictures)": (v5_inpaint, LATER.format("V5")),
    "EasyAnimate V5.1": (v5_1, LATER.format("V5.1")),
    "EasyAnimate V5.1 (wrapped)": (lambda: under("module", v5_1()), LATER.format("V5.1")),
    "EasyAnimate VAE": (vae, "is a video VAE of EasyAnimate V2 to V5.1"),
    "EasyAnimate v1, space-time attention": (
        lambda: {**PIXART, "t_pos.pe": (1, 4096, 1152)},
        "is a model of EasyAnimate v1 with attention over space and time at once (never published), which is not",
    ),
    "EasyAnimate v1, patches over time": (
        lambda: {
            **PIXART,
            **{f"{name}.conv.weight": (1152, 1152, 2) for name in ("pos_embed.proj_t", "unpatch1d")},
        },
        "is a model of EasyAnimate v1 with patches over time (never published), which is not supported. Use easyanimate_v1_mm",
    ),
    "PixArt ControlNet": (
        lambda: _handful(
            *("controlnet.0.before_proj.weight", "controlnet.0.after_proj.bias"),
            *("controlnet.0.copied_block.attn.qkv.weight", "controlnet.1.copied_block.scale_shift_table"),
        ),
        "is a ControlNet for PixArt, which is not supported",
    ),
    "HunyuanDiT": (hunyuan, "is a model of HunyuanDiT, for pictures, which is not supported. Open"),
    # in the names of its own files
    "HunyuanDiT (original)": (
        lambda: _handful(
            *("mlp_t5.0.weight", "text_embedding_padding", "blocks.0.default_modulation.1.weight"),
            *("blocks.0.attn1.Wqkv.weight", "blocks.0.attn2.kv_proj.weight", "extra_embedder.0.weight"),
        ),
        "is a model of HunyuanDiT",
    ),
}
