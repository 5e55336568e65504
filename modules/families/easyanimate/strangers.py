"""Later models of EasyAnimate and others that lie beside EasyAnimate v1's files, by keys that none of those has.

aigc-apps/EasyAnimate, easyanimate/models at v1 (the tag), V2 (fb0916f), V3 (f9eeabe), V4 (e4f1a4f), V5 (62de94e) and
V5.1 (9f34f7c).
"""

import re

from ...weights.part import Stranger

V1 = "easyanimate_v1_mm.safetensors on PixArt-XL-2-512x512"
FUN = f"Use {V1}, or a model of CogVideoX-Fun, by the same authors."
# between PixArt's blocks
SKIPS = r"(^|\.)long_connect_fc\.\d"
TEXT_LAYERS = r"(^|\.)transformer_blocks\.\d+\.txt_ff\."


def _unsupported(label: str, what: str, *signs: str, remedy: str = FUN) -> Stranger:
    return Stranger(
        label, f"{what}, which is not supported. {remedy}", tuple(re.compile(sign) for sign in signs)
    )


def _later(version: str, *signs: str) -> Stranger:
    label = f"EasyAnimate {version}"
    return _unsupported(label, f"a transformer of {label}", *signs)


# the first that fits counts
STRANGERS: tuple[Stranger, ...] = (
    # V3 added the pictures to start from, and was published with them alone
    _later("V3", SKIPS, r"(^|\.)clip_projection\.linear_1\."),
    _later("V2", SKIPS, r"(^|\.)caption_projection\."),
    # HunyuanDiT, and frames that it counts or pictures to start from
    _later("V4", r"(^|\.)text_embedding_padding$", r"(^|\.)blocks\.\d+\.(t_embed\.pe$|attn_clip\.)"),
    _later("V5.1", TEXT_LAYERS, r"(^|\.)text_proj\.1\."),
    _later("V5", TEXT_LAYERS, r"(^|\.)text_proj\.weight$"),
    _unsupported(
        "EasyAnimate VAE",
        "a video VAE of EasyAnimate V2 to V5.1 (MagViT, in slices or not)",
        r"(^|\.)(encoder\.down|decoder\.up)_blocks\.\d+\.convs\.\d",
        remedy="EasyAnimate v1 takes the VAE of Stable Diffusion, such as sd-vae-ft-ema.",
    ),
    _unsupported(
        "EasyAnimate v1, space-time attention",
        "a model of EasyAnimate v1 with attention over space and time at once (never published)",
        r"(^|\.)t_pos\.pe$",
        remedy=f"Use {V1}.",
    ),
    _unsupported(
        "EasyAnimate v1, patches over time",
        "a model of EasyAnimate v1 with patches over time (never published)",
        r"(^|\.)(pos_embed\.proj_t|unpatch1d)\.conv\.",
        remedy=f"Use {V1}.",
    ),
    _unsupported(
        "PixArt ControlNet",
        "a ControlNet for PixArt",
        r"(^|\.)controlnet\.\d+\.copied_block\.",
        remedy="Use a PixArt-XL-2 by itself.",
    ),
    _unsupported(
        "HunyuanDiT",
        "a model of HunyuanDiT, for pictures",
        r"(^|\.)text_embedding_padding$",
        remedy="Open its checkpoint with Load Checkpoint of ComfyUI, or use PixArt-XL-2.",
    ),
)
