"""Files of other projects that lie beside AnimateDiff's, in shapes alone."""

from kinetograph.modules.families.animatediff import MOTION_MODULE
from kinetograph.tests.motion_files import CONFIGS


def _handful(*keys):
    """Shapes of a few keys."""
    return dict.fromkeys(keys, (2, 2))


def _modules(config=CONFIGS["v3"], **more):
    return {**MOTION_MODULE.shapes(config), **more}


def hotshot():
    """HotshotXL's names for SDXL's modules (AnimateDiff-Evolved, motion_module_ad.py)."""
    shapes = MOTION_MODULE.shapes(CONFIGS["SDXL beta"])
    return {
        key.replace("motion_modules", "temporal_attentions")
        .replace("temporal_transformer.", "")
        .replace("pos_encoder.pe", "pos_encoder.positional_encoding"): shape
        for key, shape in shapes.items()
    }


def pose_encoder():
    """Of CameraCtrl: a PixelUnshuffle by 8 of six channels, then convolutions and attention over time."""
    return {
        "encoder_conv_in.weight": (32, 384, 3, 3),
        "encoder_down_conv_blocks.0.0.block1.weight": (32, 32, 3, 3),
        "encoder_down_attention_blocks.0.0.attention_blocks.0.to_q.weight": (32, 32),
    }


def merges():
    """Of CameraCtrl: what adds a pose in front of the first attention of every module."""
    return {
        f"{key.removesuffix('to_q.weight')}processor.qkv_merge.{end}": shape[:axes]
        for key, shape in MOTION_MODULE.shapes(CONFIGS["v3"]).items()
        if key.endswith("attention_blocks.0.to_q.weight")
        for end, axes in (("weight", 2), ("bias", 1))
    }


def under(prefix, shapes):
    return {f"{prefix}.{key}": shape for key, shape in shapes.items()}


UNET = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
# label -> (shapes of a file, words of the error); keys of AnimateDiff-Evolved's readers and of the projects
STRANGERS = {
    "HotshotXL": (hotshot, "is a motion module of HotshotXL (for SDXL), which is not supported"),
    "CameraCtrl": (
        lambda: {
            **under("pose_encoder_state_dict", pose_encoder()),
            **under("attention_processor_state_dict", merges()),
        },
        "is a file of CameraCtrl",
    ),
    "CameraCtrl, pruned": (lambda: {**pose_encoder(), **merges()}, "is a file of CameraCtrl"),
    "CameraCtrl for SVD": (
        lambda: _handful(
            "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.processor.qkv_merge.weight",
            "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.processor.qkv_merge.bias",
        ),
        "is a file of CameraCtrl",
    ),
    "ControlNet": (
        lambda: _handful(
            "control_model.input_hint_block.0.weight", UNET.replace("model.diffusion", "control")
        ),
        "is a ControlNet for pictures, without motion modules for key frames",
    ),
    "ControlNet, diffusers": (
        lambda: _handful("controlnet_cond_embedding.conv_in.weight", "controlnet_down_blocks.0.weight"),
        "is a ControlNet for pictures",
    ),
    "FancyVideo": (
        lambda: {
            **_modules(),
            **_handful(
                "fps_embedding.linear.weight", "motion_embedding.linear.bias", "conv_in.weight", "FancyVideo"
            ),
        },
        "is a motion module of FancyVideo, which is not supported",
    ),
    "AnimateLCM-I2V": (
        lambda: {
            **_modules(CONFIGS["AnimateLCM"]),
            **_handful("img_encoder.conv_in.weight", "img_encoder.body.0.block1.weight"),
        },
        "is a motion module of AnimateLCM-I2V",
    ),
    "PIA": (
        lambda: {**_modules(CONFIGS["v2"]), "conv_in.weight": (32, 9, 3, 3), "conv_in.bias": (32,)},
        "is a motion module of PIA",
    ),
    "HelloMeme, motion": (
        lambda: _handful("motion_down.0.norm.weight", "motion_up.3.proj_in.weight"),
        "is a file of HelloMeme",
    ),
    "HelloMeme, reference": (
        lambda: _handful("reference_modules_up.0.norm.weight"),
        "is a file of HelloMeme",
    ),
    "HelloMeme, control": (
        lambda: _handful("conv_in.weight", "exp_proj.linear_1.weight"),
        "is a file of HelloMeme",
    ),
    "SD1.x": (
        lambda: _handful(UNET, "cond_stage_model.transformer.text_model.final_layer_norm.weight"),
        "is a checkpoint of SD1.x. Open it with Load Checkpoint of ComfyUI",
    ),
    "SD2.x": (
        lambda: _handful(UNET, "cond_stage_model.model.transformer.x"),
        "is a checkpoint of SD2.x. Open it",
    ),
    "SDXL": (
        lambda: _handful(UNET, "conditioner.embedders.1.model.transformer.x"),
        "is a checkpoint of SDXL. Open it",
    ),
    "SD UNet": (
        lambda: _handful(UNET.removeprefix("model.diffusion_model.")),
        "is the UNet of an image model, without text encoder and VAE",
    ),
}
