"""Decoding with the SVD autoencoder, by frames decoded at once: time on small pictures, peak memory at 1024x576.

Chunks of another length give another picture, so that every peer is compared at an equal chunk. The peak is
counted on meta tensors in float16, so nothing is computed; kernel workspaces and weights do not count.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, time_rows
from ..memory import peak_live_bytes

FULL_WIDTHS = (128, 256, 512, 512)
QUARTER_WIDTHS = (32, 64, 128, 128)
CHUNKS = (1, 4, 8)
TOLERANCE = 1e-5
GIB = 2**30

Decode = Callable[[Tensor], Tensor]
Weights = dict[str, Tensor]


def times(setting: Setting) -> Iterator[Row]:
    """By chunk, at a quarter of the width, or in the full suite at the published one."""
    large = setting.full or setting.device == "cuda"
    decoders, absent = build(FULL_WIDTHS if large else QUARTER_WIDTHS, setting, torch.float32, setting.device)
    for chunk in CHUNKS:
        yield from _times(decoders, absent, chunk, 8 if large else 16, setting)


def counts(setting: Setting) -> Iterator[Row]:
    """Peaks by chunk at full size."""
    decoders, absent = build(FULL_WIDTHS, setting, torch.float16, "meta")
    for chunk in CHUNKS:
        yield _peak(decoders, absent, chunk)


def build(
    widths: tuple[int, ...], setting: Setting, dtype: torch.dtype, device: str
) -> tuple[dict[str, Decode], dict[str, str]]:
    """Decoders with the same random weights, and the peers that are absent."""
    model = ours.network("svd", "vae", ours.config("svd", "vae", channels=widths), dtype, device)
    ours.draw(model)
    weights = {key: value for key, value in model.state_dict().items() if key.startswith("decoder.")}
    decoders: dict[str, Decode] = {OURS: model.decode}
    makers = {"diffusers": _diffusers, "host": _host, "diffsynth": _diffsynth}
    made, absent = peers.build_present(makers, setting, widths, weights, dtype, device)
    return {**decoders, **made}, absent


def _place(peer: nn.Module, weights: Weights, dtype: torch.dtype, device: str) -> nn.Module:
    peer = peer.to(device=device, dtype=dtype).eval()
    peer.load_state_dict(weights)
    return peer


def _diffusers(widths, weights: Weights, dtype, device) -> Decode:
    from ...modules.families.svd.keys import VAE_DIFFUSERS

    with torch.device(device):
        peer = peers.load_diffusers().AutoencoderKLTemporalDecoder(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            layers_per_block=2,
        )
    names = VAE_DIFFUSERS.reverse().rename(weights)
    renamed = {
        names[key]: value.flatten(1) if _is_attention(key) else value for key, value in weights.items()
    }
    rest = {key: value for key, value in peer.state_dict().items() if not key.startswith("decoder.")}
    peer = _place(peer, {**renamed, **rest}, dtype, device)
    return lambda z: peer.decode(z, num_frames=len(z)).sample


def _is_attention(key: str) -> bool:
    return ".attn_1." in key and key.endswith(".weight") and ".norm." not in key


def _host(widths, weights: Weights, dtype, device) -> Decode:
    module = peers.load_host("comfy.ldm.modules.temporal_ae", device)
    layers = peers.load_host("comfy.ldm.modules.diffusionmodules.model", device)
    with torch.device(device):
        peer = module.VideoDecoder(
            ch=widths[0],
            ch_mult=[width // widths[0] for width in widths],
            out_ch=3,
            z_channels=4,
            in_channels=3,
            num_res_blocks=2,
            attn_resolutions=[],
            resolution=256,
            video_kernel_size=[3, 1, 1],
        )
    # What it chooses on accelerators, and faster on a CPU than its choice there.
    peer.mid.attn_1.optimized_attention = layers.pytorch_attention
    weights = {key.removeprefix("decoder."): value for key, value in weights.items()}
    return _place(peer, weights, dtype, device)


def _diffsynth(widths, weights: Weights, dtype, device) -> Decode:
    module = peers.load_diffsynth("svd_vae_decoder")
    if widths != FULL_WIDTHS:
        raise ImportError("only builds the full width: see the full suite")
    with torch.device(device):
        peer = module.SVDVAEDecoder()
    for block in peer.blocks:
        if isinstance(block, module.TemporalResnetBlock):
            block.norm1.eps = block.norm2.eps = 1e-5  # the original's; its own are 1e-6
    peer.conv_norm_out.eps = 1e-6  # its own is 1e-5
    weights = {f"first_stage_model.{key}": value for key, value in weights.items()}
    peer = _place(peer, peer.state_dict_converter().from_civitai(weights), dtype, device)
    return lambda z: peer((z * peer.scaling_factor).transpose(0, 1)).transpose(0, 1)


def _times(decoders, absent, chunk: int, cells: int, setting: Setting) -> Iterator[Row]:
    z = ours.noise(chunk, torch.float32, setting.device, chunk, 4, cells, cells)
    with torch.inference_mode():
        pictures = {name: decode(z) for name, decode in decoders.items()}
    parity = assert_parity(pictures.pop(OURS), pictures, TOLERANCE)
    works = {name: partial(decode, z) for name, decode in decoders.items()}
    yield from time_rows(f"chunk {chunk}, {8 * cells}x{8 * cells}", works, setting, parity, absent)


def _peak(decoders, absent, chunk: int) -> Row:
    z = torch.empty(chunk, 4, 72, 128, dtype=torch.float16, device="meta")
    with torch.inference_mode():
        samples = {name: [peak_live_bytes(partial(decode, z)) / GIB] for name, decode in decoders.items()}
    return Row(f"chunk {chunk}, 1024x576", "peak GiB", samples, absent=dict(absent))
