"""What takes the place of published files in the templates: pocket and tiny models under the published names.

A pocket file brings its config along, so that one file stands for one file; folders are those that Model Download makes.
"""

import json
import shutil

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kinetograph.modules.families.svd import keys
from kinetograph.pocket import datasets
from kinetograph.tests import tiny_pixart
from kinetograph.tests.host import motion_stand_ins
from kinetograph.tests.saved import loras
from kinetograph.tools import demo
from kinetograph.tools.commands import ROOT

COG, SVD = demo.MODELS / "CogVideo", demo.MODELS / "SVD" / "pocket-svd.safetensors"
NETWORK = "diffusion_pytorch_model.safetensors"
TEXT = demo.POCKET / "text_encoder" / "model.safetensors"
# below models: what lies there in its place
FILES = {
    "text_encoders/t5xxl_fp16.safetensors": TEXT,
    "diffusion_models/CogVideoX_1_0_5b_I2V_bf16.safetensors": COG / "pocket-cogvideox-i2v.safetensors",
    "diffusion_models/CogVideoX_Fun_1_1_5b_Control_bf16.safetensors": COG
    / "pocket-cogvideox-fun-control.safetensors",
    "diffusion_models/model.fp16.safetensors": SVD.with_name("pocket-exvideo.safetensors"),
    "checkpoints/svd.safetensors": SVD,
    "checkpoints/svd_xt.safetensors": SVD,
}
FOLDERS = {
    "CogVideoX-5b": None,
    "CogVideoX-2b": None,
    "CogVideoX-Fun-V1.1-5b-InP": "pocket-cogvideox-fun-inp",
}
CLIPS = 2
# small pictures and clips under the names of large ones
SAMPLES = {
    "kinetograph_rocket.jpg": "kinetograph_first_frame.png",
    "kinetograph_rocket_high.jpg": "kinetograph_last_frame.png",
    "kinetograph_rocket.mp4": "kinetograph_clip.mp4",
    "kinetograph_rocket_lines.mp4": "kinetograph_control.mp4",
    "kinetograph_rocket_mask.mp4": "kinetograph_inpaint_mask.mp4",
    "kinetograph_rocket_square.mp4": "kinetograph_exvideo.mp4",
}
UNET = "model.diffusion_model."
# of the pocket CogVideoX-Fun: what a template needs to draw with it, by the titles of its nodes
STEADY = {"guidance": "constant", "guidance.cfg": 2.0, "steps": 20}
DRAWN = {
    "cogvideox_fun_text_to_video": {"Prompt": {"text": "a blue square moving up"}},
    "cogvideox_fun_image_to_video": {
        "Prompt": {"text": "a red circle moving right"},
        "Start image": {"image": "kinetograph_first_frame.png"},
    },
    "cogvideox_fun_inpaint_video": {
        "Prompt": {"text": "a red circle moving right"},
        "Clip": {"file": "kinetograph_inpaint_clip.mp4"},
        "Mask clip": {"file": "kinetograph_inpaint_mask.mp4"},
    },
    "cogvideox_fun_control_video": {
        "Prompt": {"text": "a yellow triangle moving up"},
        "Control clip": {"file": "kinetograph_control.mp4"},
    },
    "cogvideox_fun_video_to_video": {
        "Prompt": {"text": "a blue square moving left"},
        "Your video": {"file": "kinetograph_own_clip.mp4"},
        "Fit Video": {"width": 64, "height": 64, "num_frames": 17},
    },
    "cogvideox_long_clip": {
        **{
            f"Prompt {number}": {"text": f"a {colour} circle moving {way}"}
            for number, (colour, way) in enumerate(
                zip(("red", "green", "blue", "yellow"), ("right", "left") * 2, strict=True), 1
            )
        },
        "Video Latent": {"num_frames": 65},
        "Video Sampler": {"sampler_name": "cogvideox_ddim"},
    },
}


def write(models):
    """Every file and folder that a template names, below a models folder, but for the host's checkpoints of SD."""
    for place, original in FILES.items():
        copy(original, models / place)
    vae = demo.POCKET / "vae"
    (models / "vae").mkdir(exist_ok=True)
    config = {"config": (vae / "config.json").read_text(encoding="utf-8")}
    save_file(load_file(vae / NETWORK), models / "vae" / "cogvideox_vae_bf16.safetensors", config)
    for name, network in FOLDERS.items():
        folder = models / "CogVideo" / name
        shutil.copytree(demo.POCKET, folder, ignore=shutil.ignore_patterns("text_encoder", "*.png"))
        if network:
            copy(COG / f"{network}.safetensors", folder / "transformer" / NETWORK)
            # a folder is in the lists by its network's settings
            with safe_open(folder / "transformer" / NETWORK, framework="pt") as file:
                (folder / "transformer" / "config.json").write_text(file.metadata()["config"])
    _write_loras(models / "loras")
    _write_animatelcm_svd(models / "diffusion_models")
    motion_stand_ins.write(models)
    _write_pixart(models)


def write_samples(folder):
    """The templates' pictures and clips in an input folder, large ones small."""
    for sample in (ROOT / "workflows" / "input").glob("*.*"):
        copy(sample.with_name(SAMPLES.get(sample.name, sample.name)), folder / sample.name)
    # the user's own clips, in trainings
    datasets.write_folder("pan-left", folder / "my_clips", CLIPS)


def as_drawn(graph, name):
    """A template's prompt with what the pocket model draws well, 20 steps at guidance 2."""
    changes = {"Negative prompt": {"text": ""}, **DRAWN.get(name, {})}
    for node in graph.values():
        if node["class_type"] == "KinetographVideoSampler":
            node["inputs"].pop("guidance.clock", None)
            node["inputs"].update(STEADY)
        node["inputs"].update(changes.pop(node["_meta"]["title"], {}))
    assert not changes, f"no such nodes: {list(changes)}"
    return graph


def copy(original, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(original, place)


def _write_loras(folder):
    """LoRAs of no training for the pocket CogVideoX."""
    folder.mkdir(exist_ok=True)
    shapes = loras.shapes_of(demo.POCKET / "transformer" / NETWORK)
    linears = {key: shape for key, shape in shapes.items() if len(shape) == 2 and key.endswith(".weight")}
    blocks = {key: shape for key, shape in linears.items() if "transformer_blocks" in key}
    size = {"config": json.dumps({"sample_width": 8, "sample_height": 8, "sample_frames": 33})}
    exvideo = loras.pairs(blocks, "transformer.", ("lora_A", "lora_B"), 1)
    save_file(exvideo, folder / "ExVideo-CogVideoX-LoRA-129f-v1.safetensors", size)
    reward = loras.pairs(linears, "lora_unet__", ("lora_down", "lora_up"), 2)
    save_file(reward, folder / "CogVideoX-Fun-V1.1-5b-InP-HPS2.1.safetensors")
    tdm = loras.pairs(linears, "transformer.", ("lora_A", "lora_B"), 3)
    save_file(tdm, folder / "TDM_CogVideoX-2B_LoRA.safetensors")


def _write_animatelcm_svd(folder):
    """The UNet of the pocket SVD alone with diffusers' keys, as AnimateLCM-SVD's file is."""
    with safe_open(SVD, framework="pt") as file:
        metadata = file.metadata()
        names = {key.removeprefix(UNET): key for key in file.keys() if key.startswith(UNET)}  # noqa: SIM118
        renames = keys.DIFFUSERS.reverse().rename(names)
        tensors = {renames[name]: file.get_tensor(key) for name, key in names.items()}
    save_file(tensors, folder / "AnimateLCM-SVD-xt-1.1.safetensors", metadata)


def _write_pixart(models):
    """Tiny files of EasyAnimate v1 that take the text encoder of the others."""
    text = loras.shapes_of(TEXT)
    width = text["shared.weight"][1]
    tiny_pixart.write_published(models, caption_channels=width)
    copy(TEXT, models / "text_encoders" / "t5xxl_fp16.safetensors")
    linears = {key: shape for key, shape in text.items() if len(shape) == 2 and "DenseReluDense" in key}
    tensors = tiny_pixart.lora_weights(text=False, caption_channels=width)
    tensors |= loras.pairs(linears, "lora_te_", ("lora_down", "lora_up"), 5)
    save_file(tensors, models / "Personalized_Model" / "easyanimate_portrait_lora.safetensors")
