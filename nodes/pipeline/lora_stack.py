"""LoRA files onto a MODEL and a CLIP: all of them read and checked before the first one is put on.

A file may be for the network, for the text encoder, for AnimateDiff's motion modules, or for several of these.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ...modules.families.animatediff import MOTION_MODULE
from ...modules.families.animatediff.adapter import find_adapter
from ...modules.families.animatediff.config import MotionConfig
from ...modules.lora_origin import FOLDER, find_origin
from ...modules.weights.errors import CheckpointError, shown
from ...modules.weights.lora import check_match, match_lora
from ...modules.weights.lora_names import names_of
from ..host import injection
from ..host import lora as host_lora
from . import models
from .lora import Loaded, LoRAFile, Network, Row, loader, patches_of, read_file
from .lora_report import Told, report

# in the name of every module that a LoRA of motion modules changes, also where underscores stand for dots
MOTION = re.compile(r"motion_modules[._]\d")
MIDDLE = re.compile(r"mid_block[._]motion_modules")
LEVEL = re.compile(r"(?:down|up)_blocks[._](\d+)[._]motion_modules")
Load = Callable[[Row, LoRAFile], Loaded]


@dataclass(frozen=True)
class Wish:
    """What a stack is beside its rows."""

    # whether a file of which a part fits is taken
    allow_partial: bool
    # of AnimateDiff's domain adapter
    adapter_alpha: float


def stack(model: Any, clip: Any, rows: Iterable[Row], wish: Wish) -> tuple[Any, Any, str]:
    """(MODEL, CLIP, report): clones with the LoRAs of all rows; what comes in stays as it is.

    CheckpointError for a file that cannot be read, is damaged, or changes nothing; for one that fits in part unless
    that is allowed; for one of motion modules on a MODEL that has none.
    """
    load = loader(model, clip, wish.allow_partial)
    loaded = [_load(row, read_file(models.find_lora(row.name)), model, load, wish) for row in rows]
    for base, motion in loaded:
        if base is not None:
            model = host_lora.add(model, base.model, base.row.strength)
            clip = None if clip is None else host_lora.add(clip, base.clip, base.row.text_strength)
        if motion is not None:
            model = injection.change_motion(
                model, partial(host_lora.add, patches=motion.model, strength=motion.row.strength)
            )
    return model, clip, "\n".join(one.report for both in loaded for one in both if one is not None)


def _load(
    row: Row, file: LoRAFile, model: Any, load: Load, wish: Wish
) -> tuple[Loaded | None, Loaded | None]:
    """(what a file changes in the MODEL and the CLIP, what in the motion modules)."""
    keys = [key for key in file.keys if MOTION.search(key)]
    others = file.only(key for key in file.keys if not MOTION.search(key))
    motion = _for_motion(row, file.only(keys), model, wish.allow_partial) if keys else None
    if find_adapter(others.header.shapes):
        return _adapter(row, others, load, wish.adapter_alpha), motion
    return (load(row, others) if others.keys or not keys else None), motion


def _adapter(row: Row, file: LoRAFile, load: Load, alpha: float) -> Loaded:
    """AnimateDiff's domain adapter (arXiv 2307.04725, sec. 4.1): Q = W z + alpha A B z, alpha 0 where nobody asks for it."""
    loaded = load(replace(row, strength=row.strength * alpha), file)
    note = (
        f"  AnimateDiff's v3 domain adapter: on the UNet, at {row.strength:g} times adapter_alpha {alpha:g}"
    )
    if alpha == 0:
        note += ": 0 leaves it out, and with it the look of its training videos"
    return replace(loaded, report=f"{loaded.report}\n{note}{_place(row, FOLDER)}")


def _for_motion(row: Row, file: LoRAFile, model: Any, allow_partial: bool) -> Loaded:
    """A MotionLoRA, or the part of MotionDirector over time, for the motion modules of a MODEL."""
    name = shown(file.header.name)
    if not injection.has_motion(model):
        if injection.picture_unet(model) is None:
            check_match(name, 0, file.keys, allow_partial, find_origin(file.header.shapes).remark)
        raise CheckpointError(
            f"{name} changes AnimateDiff's motion modules ({len(file.keys)} keys), and this model has none: put Motion "
            "Module Apply in front of LoRA Stack."
        )
    config = injection.motion_patcher(model).model.config
    fitting = _fitting(name, file, config)
    names = names_of(MOTION_MODULE, MOTION_MODULE.shapes(config))
    lora = match_lora(fitting.header.shapes, names, place="")
    if lora.unmatched or not lora.matched:
        remark = f"It changes motion modules; those of this model are AnimateDiff {config.version}."
        check_match(name, len(lora.renames), lora.unmatched, allow_partial, remark)
    network = Network(names, "", {module: f"{module}.weight" for module in names.weights})
    said = report(
        fitting.header, Told(row.strength, 0.0, lora, None, lora.unmatched, "motion modules"), file.tensors
    )
    if spare := len(file.keys) - len(fitting.keys):
        said += f"\n  left out: {spare} keys for the middle of the UNet, where {config.version} has no module"
    said += _place(row, MOTION_MODULE.lora_folder)
    return Loaded(row, patches_of(fitting, lora, network), {}, said, lora.modules)


def _fitting(name: str, file: LoRAFile, config: MotionConfig) -> LoRAFile:
    """The file without its middle, where the motion modules have none: MotionLoRAs of v2 go with v3 all the same.

    CheckpointError for a file that is for a UNet of more levels, of which some layers have the same shapes.
    """
    levels = 1 + max((int(fit.group(1)) for key in file.keys if (fit := LEVEL.search(key))), default=-1)
    if levels > len(config.channels):
        remark = f"{find_origin(file.header.shapes).remark} Choose a LoRA made for them.".strip()
        raise CheckpointError(
            f"{name} changes motion modules on {levels} levels of a UNet: those of this model are AnimateDiff "
            f"{config.version}, on {len(config.channels)}. {remark}"
        )
    if config.mid:
        return file
    fitting = file.only(key for key in file.keys if not MIDDLE.search(key))
    if not fitting.keys:
        raise CheckpointError(
            f"{name} changes the middle of the UNet alone, where AnimateDiff {config.version} has no motion module. Choose "
            "a LoRA made for it."
        )
    return fitting


def _place(row: Row, folder: str) -> str:
    """A line of the report on a file that lies among those for the other network; else nothing."""
    others = [other for other in models.LORAS if other != FOLDER and row.name.startswith(f"{other}/")]
    lies = others[0] if others else FOLDER
    return (
        ""
        if lies == folder
        else f"\n  it lies in {lies} and goes where it belongs; such files go into {folder}"
    )
