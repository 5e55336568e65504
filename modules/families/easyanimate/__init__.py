"""EasyAnimate v1 (aigc-apps/EasyAnimate, tag v1): motion modules for PixArt, whose network makes the pictures."""

from ...weights.part import NodeName
from ..family import AddOn, Family, Part
from ..pixart import FAMILY as PIXART
from ..pixart import FOLDERS
from .config import GridConfig, check_fit, read_config
from .keys import ORIGINAL
from .model import GridModules
from .releases import RELEASES
from .strangers import STRANGERS

NODE = NodeName("KinetographMotionModuleApply", "Motion Module Apply")
# the seed's name for the folder; the module is known by its keys in the others, too
FOLDER = "Motion_Module"

MOTION_MODULE = Part(
    kind="motion_module",
    signature=tuple(
        f"transformer_blocks.0.attn_temporal.temporal_transformer.{name}.weight"
        for name in ("norm", "proj_in", "proj_out")
    ),
    dialects={"original": ORIGINAL},
    published=(GridConfig(),),
    read_config=read_config,
    variant=lambda config: "v1 motion module",
    build=GridModules,
    untold=lambda config: {"block_size": config.cell},
    folders=("animatediff_models", *(name for name in FOLDERS if name != FOLDER), FOLDER),
    folder=FOLDER,
    node=NODE,
    # the seed has its portrait LoRA here, too
    lora_folder=FOLDER,
)
FAMILY = Family(
    id="easyanimate",
    label="EasyAnimate",
    parts={"motion_module": MOTION_MODULE},
    strangers=STRANGERS,
    releases=RELEASES,
)
GRID_MODULES = AddOn(
    part=MOTION_MODULE,
    bases=(PIXART.id,),
    check_fit=check_fit,
    limits=lambda config: config.limits,
    check_clip=GridConfig().check_clip,
    insert=lambda modules: modules.items(),
)

__all__ = ["FAMILY", "GRID_MODULES"]
