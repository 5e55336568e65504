"""AnimateDiff (arXiv 2307.04725): motion modules for the host's SD1.5 and SDXL, whose network is not ours."""

from ...weights.part import NodeName
from ..family import AddOn, Family, Part
from .config import PUBLISHED, VERSIONS, check_fit, read_config
from .keys import DIFFUSERS, LORA_DIFFUSERS, LORA_DIRECTOR, LORA_ORIGINAL, ORIGINAL
from .model import MotionModules
from .releases import RELEASES
from .sparse import MOTION, TEXT, shapes_of
from .sparse import PUBLISHED as PUBLISHED_SPARSE
from .sparse import check_fit as check_sparse_fit
from .sparse import read_config as read_sparse_config
from .sparse_keys import SPARSE_COMFY, SPARSE_DIFFUSERS, SPARSE_ORIGINAL
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
SPARSE_CONTROL = Part(
    kind="sparse_control",
    signature=(
        f"{MOTION}down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
        f"{MOTION}down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
        f"{MOTION}down_blocks.0.motion_modules.0.temporal_transformer.proj_out.weight",
        "zero_convs.0.0.weight",
        TEXT,
    ),
    dialects={"original": SPARSE_ORIGINAL, "diffusers": SPARSE_DIFFUSERS, "comfy": SPARSE_COMFY},
    published=PUBLISHED_SPARSE,
    read_config=read_sparse_config,
    variant=lambda config: f"SparseCtrl {config.condition}",
    # the host builds the rest
    build=MotionModules,
    host_shapes=shapes_of,
    folders=("controlnet", FOLDER),
    folder="controlnet",
    node=NodeName("KinetographSparseCtrlLoader", "SparseCtrl Loader"),
)
FAMILY = Family(
    id="animatediff",
    label="AnimateDiff",
    parts={"motion_module": MOTION_MODULE, "sparse_control": SPARSE_CONTROL},
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
SPARSE = AddOn(
    part=SPARSE_CONTROL,
    # of the host
    bases=("SD15",),
    check_fit=check_sparse_fit,
    limits=lambda config: config.limits,
    # how many frames fit is told by `limits`
    check_clip=lambda frames, cells_h, cells_w: None,
    insert=lambda modules: modules.items(),
)

__all__ = ["FAMILY", "MODULES", "SPARSE", "VERSIONS"]
