"""LoRA files onto a MODEL and a CLIP: all of them read and checked before the first one is put on.

A file may be for the network, for the text encoder, for AnimateDiff's motion modules, or for several of these.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ...modules.families.animatediff import MOTION_MODULE
from ...modules.lora_origin import is_domain_adapter
from ...modules.weights.errors import CheckpointError, shown
from ...modules.weights.lora import check_match, match_lora
from ...modules.weights.lora_names import names_of
from ..host import injection
from ..host import lora as host_lora
from . import models
from .lora import Loaded, LoRAFile, Network, Row, loader, patches_of, read_file
from .lora_report import Told, report

# in the name of every module that a LoRA of motion modules changes
MOTION = "motion_modules."
MIDDLE = "mid_block."
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
    keys = [key for key in file.keys if MOTION in key]
    others = [key for key in file.keys if MOTION not in key]
    motion = _for_motion(row, file.only(keys), model, wish.allow_partial) if keys else None
    if is_domain_adapter(others):
        return _adapter(row, file.only(others), load, wish.adapter_alpha), motion
    return (load(row, file.only(others)) if others or not keys else None), motion


def _adapter(row: Row, file: LoRAFile, load: Load, alpha: float) -> Loaded:
    """AnimateDiff's domain adapter (arXiv 2307.04725, sec. 4.1): Q = W z + alpha A B z, alpha 0 where nobody asks for it."""
    loaded = load(replace(row, strength=row.strength * alpha), file)
    note = f"  AnimateDiff's v3 domain adapter: on the UNet, at alpha {alpha:g} of adapter_alpha"
    if alpha == 0:
        note += "; 0 leaves it out, which takes the look of its training videos off"
    return replace(loaded, report=f"{loaded.report}\n{note}")


def _for_motion(row: Row, file: LoRAFile, model: Any, allow_partial: bool) -> Loaded:
    """A MotionLoRA, or the part of MotionDirector over time, for the motion modules of a MODEL."""
    name = shown(file.header.name)
    if not injection.has_motion(model):
        raise CheckpointError(
            f"{name} changes AnimateDiff's motion modules ({len(file.keys)} keys), and this model has none: put Motion "
            "Module Apply in front of LoRA Stack."
        )
    config = injection.motion_patcher(model).model.config
    # of v2 alone; published MotionLoRAs go with v3 all the same
    spare = [] if config.mid else [key for key in file.keys if MIDDLE in key]
    fitting = file.only(key for key in file.keys if key not in spare)
    names = names_of(MOTION_MODULE, MOTION_MODULE.shapes(config))
    lora = match_lora(fitting.header.shapes, names, place="")
    if lora.unmatched or not lora.matched:
        remark = f"It changes motion modules; those of this model are AnimateDiff {config.version}."
        check_match(name, len(lora.renames), lora.unmatched, allow_partial, remark)
    network = Network(names, "", {module: f"{module}.weight" for module in names.weights})
    said = report(
        fitting.header, Told(row.strength, 0.0, lora, None, lora.unmatched, "motion modules"), file.tensors
    )
    if spare:
        said += f"\n  left out: {len(spare)} keys for the middle of the UNet, where {config.version} has no module"
    return Loaded(row, patches_of(fitting, lora, network), {}, said, lora.modules)
