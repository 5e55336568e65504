"""One of AnimateDiff's motion modules beside its peers: time and peak memory by number of frames.

All get the same weights. diffusers' norm is had over each frame alone, as the release was trained; its own sees the whole
clip. Memory is that of a CPU in float32, counted on fake tensors.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, time_rows
from ..memory import peak_live_bytes

TOLERANCE = 1e-4
GIB = 2**30
CHANNELS, HEADS, SIDE = 320, 8, 24
FRAMES = (16, 32)
PLACE = "down_blocks.0.motion_modules.0.temporal_transformer."
Module = Callable[[Tensor], Tensor]


def times(setting: Setting) -> Iterator[Row]:
    """The widest level that most of the time goes into."""
    for frames in FRAMES:
        x = ours.noise(frames, torch.float32, setting.device, frames, CHANNELS, SIDE, SIDE)
        models, absent = build(setting, frames)
        with torch.inference_mode():
            outputs = {name: module(x) for name, module in models.items()}
        parity = assert_parity(outputs.pop(OURS), outputs, TOLERANCE)
        works = {name: partial(module, x) for name, module in models.items()}
        yield from time_rows(f"{frames} frames, {SIDE}x{SIDE} cells", works, setting, parity, absent)


def counts(setting: Setting) -> Iterator[Row]:
    """Bytes alive at the peak."""
    for frames in FRAMES:
        with FakeTensorMode(), torch.inference_mode():
            models, absent = build(setting, frames)
            x = torch.empty(frames, CHANNELS, SIDE, SIDE)
            samples = {name: [peak_live_bytes(partial(module, x)) / GIB] for name, module in models.items()}
        yield Row(f"{frames} frames, {SIDE}x{SIDE} cells", "peak GiB", samples, absent=absent)


def build(setting: Setting, frames: int) -> tuple[dict[str, Module], dict[str, str]]:
    """Modules with the same random weights, and the peers that are absent."""
    from ...modules.families.animatediff.config import MotionConfig
    from ...modules.families.animatediff.model import MotionTransformer
    from ...modules.layers.attention import attend
    from ...modules.layers.operations import TorchOperations

    config = MotionConfig((CHANNELS,), tables=1)
    module = MotionTransformer(CHANNELS, config, TorchOperations, attend, device=setting.device)  # type: ignore[arg-type]
    module = module.eval().requires_grad_(False)
    ours.draw(module)
    for table in module.buffers():
        nn.init.normal_(table)
    weights = {PLACE + key: value for key, value in module.state_dict().items()}
    made, absent = peers.build_present(
        {"diffusers": _diffusers, "diffsynth": _diffsynth}, setting, weights, frames
    )
    return {OURS: lambda x: module(x, frames), **made}, absent


class _ByFrame(nn.Module):
    """A norm that is called with clips (b, c, t, h, w), over each frame alone."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x_bcthw: Tensor) -> Tensor:
        x = self.norm(x_bcthw.transpose(1, 2).flatten(0, 1))
        return x.unflatten(0, (len(x_bcthw), -1)).transpose(1, 2)


def _diffusers(weights: dict[str, Tensor], frames: int) -> Module:
    peers.load_diffusers()
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    from ...modules.families.animatediff.keys import DIFFUSERS

    told: dict[str, Any] = {"positional_embeddings": "sinusoidal", "num_positional_embeddings": 32}
    peer = AnimateDiffTransformer3D(HEADS, CHANNELS // HEADS, CHANNELS, activation_fn="geglu", **told)
    renames = DIFFUSERS.reverse().rename(weights)
    peer.load_state_dict({str(renames[key]).split(".", 4)[-1]: value for key, value in weights.items()})
    peer.norm = _ByFrame(peer.norm)
    peer = peer.eval().requires_grad_(False)
    return lambda x: peer(x, num_frames=frames)


def _diffsynth(weights: dict[str, Tensor], frames: int) -> Module:
    peer = peers.load_diffsynth("sd_motion").TemporalBlock(HEADS, CHANNELS // HEADS, CHANNELS, eps=1e-6)
    table = "transformer_blocks.0.attention_blocks.{}.pos_encoder.pe"
    # its converter counts the modules of a whole file; one table for both attentions
    whole = {**weights, PLACE + table.format(1): weights[PLACE + table.format(0)]}
    module = peers.load_diffsynth("sd_motion").SDMotionModel
    named = module.state_dict_converter().from_civitai(whole)
    peer.load_state_dict({key.removeprefix("motion_modules.0."): value for key, value in named.items()})
    peer = peer.eval().requires_grad_(False)
    return lambda x: peer(x, None, None, None)[0]
