"""What the host gives our models to compute with: its layer classes, its attention, its casts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor, nn

# Asked before weights are used: ValueError when their file was rewritten since they were loaded.
Check = Callable[[], None]


def unchecked() -> None:
    """A Check of weights that no file can change."""


def maps_weights() -> bool:
    """Whether weights may stay mapped from disk; not so with the host's --disable-mmap."""
    return not args.disable_mmap


class HostOperations:
    """The host's layer classes in the shape that `modules/layers/operations.py` asks for.

    `layers` is one of the classes of `comfy.ops` (plain, manual cast, fp8 or mixed precision), as the
    host picks it for a dtype and device.
    """

    def __init__(self, layers: Any):
        self.Linear = layers.Linear
        self.Conv2d = layers.Conv2d
        self.Conv3d = layers.Conv3d
        self.LayerNorm = layers.LayerNorm
        self.GroupNorm = layers.GroupNorm
        self.Embedding = layers.Embedding

    @staticmethod
    @contextmanager
    def weights(module: nn.Module, like: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Weight and bias with the host's casts, offload and low-VRAM patches applied, lent for a `with` block."""
        weight, bias, lent = comfy.ops.cast_bias_weight(module, like, offloadable=True)
        try:
            yield weight, bias
        finally:
            comfy.ops.uncast_bias_weight(module, weight, bias, lent)

    @staticmethod
    def cast(parameter: Tensor, like: Tensor) -> Tensor:
        return comfy.model_management.cast_to(parameter, like.dtype, like.device)


def new_patcher(model: nn.Module, load_device: Any, offload_device: Any, disable_dynamic: bool) -> Any:
    """The host's patcher around a model.

    Its usual class is looked up at the call, not at import: with dynamic VRAM the host replaces it at start.
    """
    static, usual = comfy.model_patcher.ModelPatcher, comfy.model_patcher.CoreModelPatcher
    kind = static if disable_dynamic else usual
    return kind(model, load_device=load_device, offload_device=offload_device)


@torch.inference_mode(False)
def load_layers(
    build: Callable[[Any, torch.dtype], nn.Module],
    fill: Callable[[nn.Module, torch.dtype], None],
    weight_dtype: torch.dtype,
    compute: torch.dtype,
    disable_dynamic: bool = False,
) -> Any:
    """A patcher of what `build` makes on the meta device of the host's layer classes and a dtype, filled from a file.

    Weights wider than what is computed in are narrowed, others stay mapped.
    """
    device = comfy.model_management.get_torch_device()
    dtype = weight_dtype if weight_dtype.itemsize <= compute.itemsize else compute
    layers = comfy.ops.pick_operations(dtype, compute, load_device=device, disable_fast_fp8=True)
    network = build(layers, dtype).eval()
    comfy.model_management.archive_model_dtypes(network)
    patcher = new_patcher(network, device, comfy.model_management.unet_offload_device(), disable_dynamic)
    fill(network, dtype)
    network.device = patcher.offload_device
    return patcher


def attend(q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, transformer_options: Any = None) -> Tensor:
    """The attention kernel the user chose for the host; (b, heads, l, d) in, (b, l, heads * d) out."""
    return _by(optimized_attention, q_bhld, k_bhld, v_bhld, transformer_options)


def attend_short(q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, transformer_options: Any = None) -> Tensor:
    """The same for many sequences of a few tokens each: by PyTorch's kernel, the only one of the host's that copies none."""
    return _by(attention_pytorch, q_bhld, k_bhld, v_bhld, transformer_options)


def _by(
    kernel: Callable[..., Tensor], q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, options: Any
) -> Tensor:
    """Attention by a kernel of the host."""
    dtype, more = q_bhld.dtype, {"heads": q_bhld.shape[1], "skip_reshape": True}
    if q_bhld.device.type == "cpu" and dtype != torch.float32 and torch.is_grad_enabled():
        # with gradients PyTorch's kernel takes several times as long in 16 bit on a CPU
        with torch.autocast("cpu", enabled=False):
            q_bhld, k_bhld, v_bhld = (x.float() for x in (q_bhld, k_bhld, v_bhld))
            return kernel(q_bhld, k_bhld, v_bhld, transformer_options=options or {}, **more).to(dtype)
    return kernel(q_bhld, k_bhld, v_bhld, transformer_options=options or {}, **more)


def machine_memory() -> int:
    """Bytes of main memory, in which latents travel between nodes."""
    return comfy.model_management.get_total_memory(torch.device("cpu"))
