"""Files of other projects that lie beside AnimateDiff's, by keys that no file of AnimateDiff has."""

import re

from ...weights.part import Stranger

MODULES = re.compile(r"(^|\.)motion_modules\.\d")
CHECKPOINT = "Open it with Load Checkpoint of ComfyUI, and put Motion Module Apply behind its MODEL."
# in the host's layout, without SVD's layers over time
IMAGE = re.compile(r"(^|\.)input_blocks\.\d+\.1\.transformer_blocks\.\d")
VIDEO = re.compile(r"\.time_stack\.|\.temporal_transformer\.")


def _unsupported(label: str, what: str, *signs: str | re.Pattern[str], instead: str = "") -> Stranger:
    remedy = instead or "Use a motion module of AnimateDiff, AnimateDiff-Lightning or AnimateLCM."
    return Stranger(
        label, f"{what}, which is not supported. {remedy}", tuple(re.compile(sign) for sign in signs)
    )


def _image_model(label: str, sign: str) -> Stranger:
    return Stranger(label, f"a checkpoint of {label}. {CHECKPOINT}", (IMAGE, re.compile(sign)), VIDEO)


# the first that fits counts
STRANGERS = (
    _unsupported(
        "HotshotXL",
        "a motion module of HotshotXL (for SDXL)",
        r"(^|\.)temporal_attentions\.\d",
        instead="For SDXL there is AnimateDiff SDXL beta.",
    ),
    _unsupported(
        "CameraCtrl",
        "a file of CameraCtrl (camera poses for a motion module)",
        r"\.processor\.qkv_merge\.|(^|\.)encoder_down_conv_blocks\.\d",
        instead="MotionLoRAs move the camera, with LoRA Stack.",
    ),
    Stranger(
        "ControlNet",
        "a ControlNet for pictures, without motion modules for key frames. Load it with Load ControlNet Model of ComfyUI.",
        (re.compile(r"(^|\.)(input_hint_block|controlnet_cond_embedding)\."),),
        MODULES,
    ),
    _unsupported("FancyVideo", "a motion module of FancyVideo", r"(^|\.)(fps|motion)_embedding\.linear\."),
    _unsupported(
        "AnimateLCM-I2V",
        "a motion module of AnimateLCM-I2V (from a picture)",
        r"(^|\.)img_encoder\.",
        instead="AnimateLCM without a picture is supported.",
    ),
    # the other layers of a UNet are in a file of its training, not in PIA's
    Stranger(
        "PIA",
        "a motion module of PIA, which starts from a picture and is not supported. Use one of AnimateDiff.",
        (MODULES, re.compile(r"^conv_in\.weight$")),
        re.compile(r"\.resnets\.\d"),
    ),
    _unsupported(
        "HelloMeme",
        "a file of HelloMeme (a face that moves as in a video)",
        r"^(motion_(down|up)\.\d|reference_modules_(down|mid|up)\.)|(^|\.)(exp|face|emo)(_pre)?_proj\.linear_\d",
    ),
    _image_model("SD1.x", r"^cond_stage_model\.transformer\.text_model\."),
    _image_model("SD2.x", r"^cond_stage_model\.model\.transformer\."),
    _image_model("SDXL", r"^conditioner\.embedders\.\d\.model\.transformer\."),
    Stranger(
        "SD UNet",
        "the UNet of an image model, without text encoder and VAE. Open it with Load Diffusion Model of ComfyUI, and put "
        "Motion Module Apply behind its MODEL.",
        (IMAGE,),
        VIDEO,
    ),
)
