"""Decoding with the CogVideoX autoencoder: time on small pictures, peak memory at 480x720 in bfloat16.

The peak is counted on meta tensors, so nothing is computed; kernel workspaces and weights do not count. The
host's peer figure is its exact path (`_decode_batched`): its default path is another function. diffusers' tiling
needs less memory and changes the picture: it stands in a table of its own, with its distance to our picture.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, psnr, time_rows
from ..memory import peak_live_bytes

FULL_WIDTHS = (128, 256, 256, 512)
HALF_WIDTHS = (64, 128, 128, 256)
TOLERANCE = 1e-5
GIB = 2**30
TILED = "diffusers, tiled"
ROOT = Path(__file__).resolve().parents[2]
POCKET = (
    ROOT / "pocket" / "models" / "CogVideo" / "pocket-cogvideox" / "vae"
)  # trained, at an eighth of the width
CLIP_HW = (96, 160)  # whose halves its tiling cuts evenly: a sixth and a fifth of 6 and 10 cells overlap
PICTURE = ROOT / "workflows" / "input" / "kinetograph_svd_image.png"

Decode = Callable[[Tensor], Tensor]


def times(setting: Setting) -> Iterator[Row]:
    """By number of frames, at half the width, or in the full suite at the published one."""
    large = setting.full or setting.device == "cuda"
    decoders, absent = build(FULL_WIDTHS if large else HALF_WIDTHS, setting, torch.float32, setting.device)
    for latents, cells in ((3, 8), (5, 8), (13, 8)) if large else ((3, 6), (5, 4)):
        yield from _times(decoders, absent, latents, cells, setting)


def counts(setting: Setting) -> Iterator[Row]:
    """Peaks by number of frames at full size, then those of modes that change the picture."""
    decoders, absent = build(FULL_WIDTHS, setting, torch.bfloat16, "meta")
    for latents in (3, 13, 33) if setting.full else (3, 5):
        yield _peak(decoders, absent, latents)
    yield from _inexact(setting)


def build(
    widths: tuple[int, ...],
    setting: Setting,
    dtype: torch.dtype,
    device: str,
    makers: Mapping[str, Callable[..., Decode]] | None = None,
) -> tuple[dict[str, Decode], dict[str, str]]:
    """Decoders with the same random weights, and the peers that are absent; `makers` names other peers."""
    config = ours.config("cogvideox", "vae", block_out_channels=widths)
    model = ours.network("cogvideox", "vae", config, dtype, device)
    ours.draw(model)
    decoders: dict[str, Decode] = {OURS: model.decode}
    makers = makers or {"diffusers": _diffusers, "host": _host, "diffsynth": _diffsynth}
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


def _host(widths, weights, dtype, device) -> Decode:
    module = peers.load_host("comfy.ldm.cogvideo.vae", device)
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


def _times(decoders, absent, latents: int, cells: int, setting: Setting) -> Iterator[Row]:
    z = ours.noise(latents, torch.float32, setting.device, 1, 16, latents, cells, cells)
    with torch.inference_mode():
        pictures = {name: decode(z) for name, decode in decoders.items()}
    parity = assert_parity(pictures.pop(OURS), pictures, TOLERANCE)
    works = {name: partial(decode, z) for name, decode in decoders.items()}
    size = f"{4 * latents - 3} frames {cells * 8}x{cells * 8}"
    yield from time_rows(size, works, setting, parity, absent)


def _peak(decoders, absent, latents: int) -> Row:
    z = torch.empty(1, 16, latents, 60, 90, dtype=torch.bfloat16, device="meta")
    with torch.inference_mode():
        samples = {name: [peak_live_bytes(partial(decode, z)) / GIB] for name, decode in decoders.items()}
    return Row(f"{4 * latents - 3} frames 720x480", "peak GiB", samples, absent=dict(absent))


def _inexact(setting: Setting) -> Iterator[Row]:
    """diffusers' tiles of half the picture: the peak at full size, the picture with trained weights."""
    decoders, absent = build(FULL_WIDTHS, setting, torch.bfloat16, "meta", {TILED: _diffusers_tiled})
    row = _peak(decoders, absent, 13)
    row.exact = False
    if TILED in decoders:
        row.psnr = {TILED: _psnr_of_tiles()}
    yield row


def _diffusers_tiled(widths, weights, dtype, device) -> Decode:
    with torch.device(device):
        peer = peers.load_diffusers().AutoencoderKLCogVideoX(block_out_channels=widths)
    peer.enable_tiling()
    peer = _place(peer, weights, dtype, device)
    return lambda z: peer.decode(z).sample


@torch.inference_mode()
def _psnr_of_tiles() -> float:
    """dB between a clip that we decode and the same in four tiles, by the pocket weights."""
    from safetensors.torch import load_file

    weights = load_file(POCKET / "diffusion_pytorch_model.safetensors")
    sizes = {"block_out_channels": (8, 16, 32, 64), "layers_per_block": 1, "norm_groups": 4}
    config = ours.config("cogvideox", "vae", **sizes)
    model = ours.network("cogvideox", "vae", config, torch.float32, "cpu")
    model.load_state_dict(weights)
    peer = peers.load_diffusers().AutoencoderKLCogVideoX.from_pretrained(POCKET)
    peer.enable_tiling(tile_sample_min_height=CLIP_HW[0] // 2, tile_sample_min_width=CLIP_HW[1] // 2)
    z = model.encode(_sliding_clip())
    return psnr(model.decode(z), peer.decode(z).sample)


def _sliding_clip() -> Tensor:
    """Nine frames of a picture that moves to the right, (1, 3, 9, *CLIP_HW) in [-1, 1]."""
    import numpy as np
    from PIL import Image

    with Image.open(PICTURE) as image:
        pixels = np.array(image.convert("RGB").resize(CLIP_HW[::-1]), dtype=np.float32)
    pixels_hwc = torch.from_numpy(pixels) / 127.5 - 1
    frames = [pixels_hwc.permute(2, 0, 1).roll(4 * number, dims=2) for number in range(9)]
    return torch.stack(frames, dim=1)[None]
