"""Patches of other nodes, as the host keeps them in `transformer_options`, and ControlNet, on networks of this pack.

A network calls the hooks of `modules/layers/hooks.py`; here they ask the patches in the order, with the tensors
and with the notes of the host's own UNet (comfy/ldm/modules/diffusionmodules/openaimodel.py and attention.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ...modules.layers.hooks import Hooks, Inputs, Instead, Places, Stage
from ...modules.layers.network import Network
from . import refusals
from .refusals import ATTENTIONS, INTO_TRANSFORMERS, LAYERS, Options

# the host computes the attention of its own SVD so where its kernel has a choice (comfy/supported_models.py)
ATTENTION_PRECISION = torch.float32


def hooks_for(network: Network, options: Options, control: Any) -> "PatchHooks | None":
    """The hooks that ask the patches of one call of a network; None where there are none.

    Raises ValueError for the first entry that the network would never call.
    """
    if not (options.get("patches") or options.get("patches_replace") or control):
        return None
    refusals.check_call(network, options, control or {})
    return PatchHooks(network.places, options, control or {}) if network.places.blocks else None


class PatchHooks(Hooks):
    """Hooks of a UNet that ask the host's patches, and add what a ControlNet gives."""

    def __init__(self, places: Places, options: Options, control: Mapping[str, Any]):
        self.places, self.options = places, options
        self.patches: Mapping[str, Any] = options.get("patches") or {}
        self.replacements: Mapping[str, Any] = options.get("patches_replace") or {}
        self.control = {stage: list(values or ()) for stage, values in control.items()}
        inside = INTO_TRANSFORMERS | {LAYERS}
        self.into_transformers = any(self.patches.get(name) for name in inside) or any(
            self.replacements.get(name) for name in ATTENTIONS
        )

    def begin(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.options["original_shape"] = list(inputs.x_nchw.shape)
        self.options["transformer_index"] = 0

    def time_embedding(self, emb_nd: Tensor) -> Tensor:
        for patch in self.patches.get("emb_patch", ()):
            emb_nd = patch(emb_nd, self.places.width, self.options)
        return emb_nd

    def embedding(self, emb_bte: Tensor) -> None:
        self.emb_ne = emb_bte.expand(-1, self.inputs.frames, -1).flatten(0, 1)

    def enter(self, stage: Stage, number: int) -> None:
        self.options["block"] = (stage, number)

    def instead_of(self, layer: nn.Module) -> Instead | None:
        for kind, handler in self.patches.get(LAYERS, ()):
            if isinstance(layer, kind):
                return self._handled(layer, handler)
        return None

    def _handled(self, layer: nn.Module, handler: Callable[..., Tensor]) -> Instead:
        given = self.inputs

        def instead(x_nchw: Tensor, next_shape: Any) -> Tensor:
            # output shape, time context, frames per clip and frames that are images only, as the host hands them on
            more = (next_shape or None, None, given.frames, given.image_only_bt)
            return handler(layer, x_nchw, self.emb_ne, given.context_nld, self.options, *more)

        return instead

    def after_input(self, x_nchw: Tensor) -> Tensor:
        return self._asked("input_block_patch", self._controlled("input", x_nchw))

    def after_skip(self, x_nchw: Tensor) -> Tensor:
        return self._asked("input_block_patch_after_skip", x_nchw)

    def after_middle(self, x_nchw: Tensor) -> Tensor:
        x_nchw, given = self._controlled("middle", x_nchw), self.inputs
        for patch in self.patches.get("middle_block_after_patch", ()):
            told = {"x": given.x_nchw, "emb": self.emb_ne, "context": given.context_nld, "y": given.y_nd}
            told |= {"timesteps": given.timestep_n, "transformer_options": self.options}
            x_nchw = patch({"h": x_nchw, **told})["h"]
        return x_nchw

    def before_output(self, x_nchw: Tensor, skip_nchw: Tensor) -> tuple[Tensor, Tensor | None]:
        both = x_nchw, self._controlled("output", skip_nchw)
        for patch in self.patches.get("output_block_patch", ()):
            both = patch(*both, self.options)
        return both

    def enter_transformer(self, x_nchw: Tensor) -> None:
        self.options["activations_shape"] = list(x_nchw.shape)
        self.options["block_index"] = 0

    def leave_transformer(self) -> None:
        self.options["transformer_index"] += 1

    def enter_tokens(self, heads: int, head_dim: int) -> None:
        told = {
            key: value for key, value in self.options.items() if key not in ("patches", "patches_replace")
        }
        precision = {"attn_precision": ATTENTION_PRECISION}
        self.told = {**told, "n_heads": heads, "dim_head": head_dim, **precision}

    def attend(self, name: str, layer: Any, y_bld: Tensor, context_bld: Tensor | None) -> Tensor:
        """Tokens and context pass the patches, then attention or what replaces it, then the patches of its output."""
        context_bld = y_bld if context_bld is None else context_bld
        asks, keys, values = y_bld, context_bld, context_bld
        for patch in self.patches.get(f"{name}_patch", ()):
            asks, keys, values = patch(asks, keys, values, self.told)
        keys = asks if keys is None else keys
        values = keys if values is None else values
        qkv = layer.to_q(asks), layer.to_k(keys), layer.to_v(values)
        replacement = self._replacement(name)
        y_bld = self._kernel(*qkv) if replacement is None else replacement(*qkv, self.told)
        return self._asked(f"{name}_output_patch", layer.to_out[0](y_bld), self.told)

    def between(self, x_bld: Tensor) -> Tensor:
        return self._asked("middle_patch", x_bld, self.told)

    def _asked(self, name: str, x: Tensor, told: Options | None = None) -> Tensor:
        for patch in self.patches.get(name, ()):
            x = patch(x, self.options if told is None else told)
        return x

    def _replacement(self, name: str) -> Callable[..., Tensor] | None:
        replacements, block = self.replacements.get(name) or {}, self.options["block"]
        return replacements.get((*block, self.options["block_index"]), replacements.get(block))

    def _kernel(self, q_bld: Tensor, k_bld: Tensor, v_bld: Tensor) -> Tensor:
        """The host cuts heads itself: a patch may have given queries other rows than keys and values."""
        told, precision = self.options, ATTENTION_PRECISION
        heads = self.told["n_heads"]
        return optimized_attention(
            q_bld, k_bld, v_bld, heads, attn_precision=precision, transformer_options=told
        )

    def _controlled(self, stage: Stage, x_nchw: Tensor) -> Tensor:
        """With what a ControlNet adds here; its lists run from the last block of a stage to the first."""
        waiting = self.control.get(stage)
        added = waiting.pop() if waiting else None
        if added is None:
            return x_nchw
        if added.ndim != x_nchw.ndim or any(
            have not in (1, want) for have, want in zip(added.shape, x_nchw.shape, strict=True)
        ):
            raise ValueError(
                f"The ControlNet gives {tuple(added.shape)} to {' block '.join(map(str, self.options['block']))} of "
                f"this model, which has {tuple(x_nchw.shape)} there: use a ControlNet made for this model, and no "
                "node that changes sizes inside it beside one."
            )
        return (x_nchw + added).to(x_nchw.dtype)
