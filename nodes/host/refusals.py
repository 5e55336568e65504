"""What other nodes put on a MODEL that its network would never call: refused by name, before the first step.

A patch, a replacement, a ControlNet, a wrapper or an object patch acts as on the host's network of that kind, or
sampling does not start: none disappears. Other keys of `transformer_options` are notes, and pass.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import comfy.utils
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...modules.layers.hooks import Places
from ...modules.layers.network import Network

Options = dict[str, Any]

# what looks into a transformer, so that it has to work on whole tensors
INTO_TRANSFORMERS = frozenset(
    {"attn1_patch", "attn1_output_patch", "middle_patch", "attn2_patch", "attn2_output_patch"}
)
LAYERS = "forward_timestep_embed_patch"
BLOCKS = frozenset(
    {
        *("emb_patch", LAYERS, "input_block_patch", "input_block_patch_after_skip"),
        *("middle_block_after_patch", "output_block_patch"),
    }
)
ATTENTIONS = ("attn1", "attn2")
WRAPPERS = frozenset(value for name, value in vars(WrappersMP).items() if name.isupper())
# what a conditioning may carry that acts inside a network: the node that sets it, and the patch it becomes
CARRIED = {"control": ("Apply ControlNet", None), "gligen": ("GLIGENTextboxApply", "middle_patch")}


def before_sampling(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
    """An OUTER_SAMPLE wrapper: ValueError for the first thing on the MODEL that would not act."""
    guider = executor.class_obj
    for complaint in complaints(guider.model_patcher, guider.model_options, guider.conds):
        raise ValueError(complaint)
    return executor(*args, **kwargs)


def complaints(patcher: Any, model_options: Options, conds: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for everything on a MODEL and in the conditionings that its network would never call."""
    network = patcher.model.diffusion_model
    # hooks of a conditioning keep theirs in to_load_options
    for options in (model_options.get("transformer_options", {}), model_options.get("to_load_options", {})):
        yield from uncalled(network, options, injected=bool(patcher.injections))
        for place, wrappers in (options.get("wrappers") or {}).items():
            for wrapper in (each for kept in wrappers.values() for each in kept if place not in WRAPPERS):
                yield refusal(f"the wrapper {place}", wrapper)
    for name, patch in patcher.object_patches.items():
        if not _has_place(patcher, name, patch):
            yield refusal(f"the object patch {name}", patch)
    yield from _uncalled_conditions(network.places, conds)


def check_call(network: Network, options: Options, control: Mapping[str, Any]) -> None:
    """ValueError for the first entry of one call that a network would never call: guiders add some on their way."""
    for complaint in (*uncalled(network, options), *_uncalled_control(network.places, control)):
        raise ValueError(complaint)


def uncalled(network: Network, options: Options, injected: bool = False) -> Iterator[str]:
    """A sentence for each entry of `patches` and `patches_replace` that a network would never call.

    `injected`: layers will be added to the network before it runs, so that patches of layers cannot be judged.
    """
    for name, patches in (options.get("patches") or {}).items():
        if patches and name not in _called(network.places):
            yield refusal(f"the patch {name}", patches[0])
        elif name == LAYERS and not injected:
            present = tuple(network.numbered_layers())
            for kind, handler in patches:
                if not any(isinstance(layer, kind) for layer in present):
                    yield refusal(f"the patch {name} for layers of the class {kind.__name__}", handler)
    for name, patches in (options.get("patches_replace") or {}).items():
        keys = _replaceable(network.places) if name in ATTENTIONS else ()
        for key, patch in patches.items():
            if key not in keys:
                yield refusal(f"the replacement of {name} in block {key}", patch)


def _called(places: Places) -> frozenset[str]:
    return (BLOCKS if places.blocks else frozenset()) | (
        INTO_TRANSFORMERS if places.transformers else frozenset()
    )


def _replaceable(places: Places) -> frozenset[tuple]:
    """The keys by which the host finds what replaces an attention; each transformer has one block per way."""
    return places.transformers | {(*place, 0) for place in places.transformers}


def _uncalled_control(places: Places, control: Mapping[str, Any]) -> Iterator[str]:
    for stage, values in control.items():
        waiting = [value is not None for value in values or ()]
        count = places.blocks.get(stage, 0)  # type: ignore[call-overload]
        if any(waiting[: max(0, len(waiting) - count)]):
            yield (
                f"This model's network has {count or 'no'} {stage} blocks that a ControlNet could act on, and the "
                f"ControlNet has {len(waiting)}: take the Apply ControlNet node out of the conditioning, or use a "
                "ControlNet made for this model."
            )


def _uncalled_conditions(places: Places, conds: Mapping[str, Any]) -> Iterator[str]:
    for kind, entries in conds.items():
        for name, (node, patch) in CARRIED.items():
            called = bool(places.blocks) if patch is None else patch in _called(places)
            if not called and any(entry.get(name) is not None for entry in entries):
                yield (
                    f"This model's network does not call the {name} of the {kind} conditioning, which would change "
                    f"nothing: take the node {node} out of it, or use a model that it is made for."
                )


def _has_place(patcher: Any, name: str, patch: Any) -> bool:
    """Whether a MODEL has the place of an object patch and calls there what it is given.

    A network calls blocks and attention in its own way: only the like of a layer made of layers fits.
    """
    try:
        kept = patcher.object_patches_backup
        present = kept[name] if name in kept else comfy.utils.get_attr(patcher.model, name)
        # of a loaded MODEL the patch is in place already: what it took the place of counts
        owner = (
            comfy.utils.get_attr(patcher.model, name.removesuffix(".forward"))
            if name.endswith(".forward")
            else present
        )
    except AttributeError:
        return False
    # a place that a network keeps free for others, such as ExVideo's positions
    if present is None:
        return True
    if (
        not name.startswith("diffusion_model.")
        or not isinstance(owner, nn.Module)
        or not any(owner.children())
    ):
        return True
    return not name.endswith(".forward") and isinstance(patch, type(present))


def refusal(entry: str, patch: Any) -> str:
    """Why sampling does not start: what was asked, by whom, and what to do."""
    return (
        f"This model's network does not call {entry}, set by {maker_of(patch)}, which would change nothing: take that "
        "node out of the model's line, or use it with a model that it is made for."
    )


def maker_of(patch: Any) -> str:
    """The class and module that a patch comes from, as far as its name tells: nodes define theirs inside."""
    patch = patch[-1] if isinstance(patch, tuple) else patch  # a patch of layers comes with their class
    patch = patch.func if isinstance(patch, partial) else patch
    named = patch if hasattr(patch, "__qualname__") else type(patch)
    module = (getattr(named, "__module__", None) or "").replace("\\", "/").rsplit("/", 1)[-1]
    return f"{named.__qualname__.split('.')[0]} ({module})" if module else named.__qualname__
