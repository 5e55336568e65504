"""Decoding with the CogVideoX autoencoder: time on small pictures, peak memory at 480x720 in bfloat16.

The peak is counted on meta tensors, so nothing is computed; kernel workspaces and weights do not count. The
host's peer figure is its exact path (`_decode_batched`): its default path is another function.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from .. import peers
from ..harness import OURS, Row, Setting, assert_parity, compare
from ..memory import peak_live_bytes

FULL_WIDTHS = (128, 256, 256, 512)
HALF_WIDTHS = (64, 128, 128, 256)
TOLERANCE = 1e-5
GIB = 2**30

Decode = Callable[[Tensor], Tensor]


def run(setting: Setting) -> Iterator[Row]:
    """Time by number of frames, then peak memory by number of frames."""
    large = setting.full or setting.device == "cuda"
    decoders, absent = build(FULL_WIDTHS if large else HALF_WIDTHS, setting, torch.float32, setting.device)
    for latents, cells in ((3, 8), (5, 8), (13, 8)) if large else ((3, 6), (5, 4)):
        yield _time(decoders, absent, latents, cells, setting)
    if setting.device == "cuda":
        return  # what the allocator sees is another metric, still to be written on such a machine
    decoders, absent = build(FULL_WIDTHS, setting, torch.bfloat16, "meta")
    for latents in (3, 13, 33) if setting.full else (3, 5):
        yield _peak(decoders, absent, latents)


def build(
    widths: tuple[int, ...], setting: Setting, dtype: torch.dtype, device: str
) -> tuple[dict[str, Decode], dict[str, str]]:
    """Decoders with the same random weights, and the peers that are absent."""
    from ...modules.families.cogvideox.vae import CogVideoXVAE, VAEConfig

    model = CogVideoXVAE(VAEConfig(block_out_channels=widths), dtype=dtype, device=device)
    if device != "meta":
        generator = torch.Generator(device).manual_seed(0)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.05, generator=generator)
    decoders: dict[str, Decode] = {OURS: model.decode}
    makers = {"diffusers": _diffusers, "host": partial(_host, setting.device), "diffsynth": _diffsynth}
    made, absent = peers.build_present(makers, setting, widths, model.state_dict(), dtype, device)
    return {**decoders, **made}, absent


def _place(peer: nn.Module, weights: dict[str, Tensor], dtype: torch.dtype, device: str) -> nn.Module:
    peer = peer.to(device=device, dtype=dtype).eval()
    peer.load_state_dict(weights)
    return peer


def _diffusers(widths, weights, dtype, device) -> Decode:
    with torch.device(device):
        peer = peers.load_diffusers().AutoencoderKLCogVideoX(block_out_channels=widths)
    peer = _place(peer, weights, dtype, device)
    return lambda z: peer.decode(z).sample


def _host(real_device, widths, weights, dtype, device) -> Decode:
    module = peers.load_host("comfy.ldm.cogvideo.vae", real_device)
    if device == "meta":
        raise ImportError("its exact path moves every chunk to the CPU, which fake tensors cannot follow")
    peer = _place(module.AutoencoderKLCogVideoX(block_out_channels=widths), weights, dtype, device)
    return peer._decode_batched


def _diffsynth(widths, weights, dtype, device) -> Decode:
    module = peers.load_diffsynth("cog_vae")
    if widths != FULL_WIDTHS:
        raise ImportError("only builds the full width: see the full suite")
    with torch.device(device):
        peer = module.CogVAEDecoder()
    weights = peer.state_dict_converter().from_diffusers(weights)
    peer = _place(peer, weights, dtype, device)
    return lambda z: peer.decode_video(z * peer.scaling_factor, tiled=False)


def _time(decoders, absent, latents: int, cells: int, setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(latents)
    z = torch.randn(1, 16, latents, cells, cells, generator=generator).to(setting.device)
    with torch.inference_mode():
        pictures = {name: decode(z) for name, decode in decoders.items()}
    parity = assert_parity(pictures.pop(OURS), pictures, TOLERANCE)
    metric, samples = compare({name: partial(decode, z) for name, decode in decoders.items()}, setting)
    size = f"{4 * latents - 3} frames {cells * 8}x{cells * 8}"
    return Row(size, metric, samples, parity, dict(absent))


def _peak(decoders, absent, latents: int) -> Row:
    z = torch.empty(1, 16, latents, 60, 90, dtype=torch.bfloat16, device="meta")
    with torch.inference_mode():
        samples = {name: [peak_live_bytes(partial(decode, z)) / GIB] for name, decode in decoders.items()}
    return Row(f"{4 * latents - 3} frames 720x480", "peak GiB", samples, absent=dict(absent))
