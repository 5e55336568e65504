"""AnimateDiff (arXiv 2307.04725): motion modules for the host's SD1.5 and SDXL, whose network is not ours."""

from ...weights.part import NodeName
from ..family import AddOn, Family, Part
from .config import PUBLISHED, VERSIONS, check_fit, read_config
from .keys import DIFFUSERS, LORA_DIFFUSERS, LORA_DIRECTOR, LORA_ORIGINAL, ORIGINAL
from .model import MotionModules
from .releases import RELEASES
from .strangers import STRANGERS

NODE = NodeName("KinetographMotionModuleApply", "Motion Module Apply")
# the model folders of AnimateDiff-Evolved, which users know
FOLDER, LORA_FOLDER = "animatediff_models", "animatediff_motion_lora"

MOTION_MODULE = Part(
    kind="motion_module",
    signature=(
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
        "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
        "up_blocks.0.motion_modules.0.temporal_transformer.proj_out.weight",
    ),
    dialects={"original": ORIGINAL, "diffusers": DIFFUSERS},
    lora_names={
        "AnimateDiff": LORA_ORIGINAL,
        "MotionDirector": LORA_DIRECTOR,
        "diffusers' processors": LORA_DIFFUSERS,
    },
    published=PUBLISHED,
    read_config=read_config,
    variant=lambda config: config.version,
    build=MotionModules,
    folders=(FOLDER,),
    folder=FOLDER,
    node=NODE,
    lora_folder=LORA_FOLDER,
)
FAMILY = Family(
    id="animatediff",
    label="AnimateDiff",
    parts={"motion_module": MOTION_MODULE},
    strangers=STRANGERS,
    releases=RELEASES,
)
MODULES = AddOn(
    part=MOTION_MODULE,
    # of the host
    bases=("SD15", "SDXL"),
    check_fit=check_fit,
    limits=lambda config: config.limits,
    # how many frames fit is told by `limits`
    check_clip=lambda frames, cells_h, cells_w: None,
    insert=lambda modules: modules.items(),
    noise=lambda config: config.noise,
)

__all__ = ["FAMILY", "MODULES", "VERSIONS"]
