"""Clips of the pocket and tiny models through our nodes, on the card in every mode of the host and on the CPU.

`make` keeps tensors, `compare` holds those of every mode against the CPU's float32.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from . import host
from .report import Report
from .steps import MODES

ROOT = Path(__file__).resolve().parents[2]
DTYPES = ("fp32", "fp16", "bf16", "fp8_e4m3fn")
VARIANTS = ("2B", "5B-I2V", "1.5-5B", "1.5-5B-I2V")
OWN_FOLDER, OWN_FILE = "from the model's folder", "from the checkpoint"
STEPS, SVD_SIZE, SVD_FRAMES = 4, 128, 8
Clip = dict[str, Any]  # name -> tensor


def make(report: Report, mode: str) -> None:
    """Every clip in one mode of the host, saved as `mode`.pt."""
    base = report.folder / f"base {mode}"
    with nullcontext() if mode == "cpu" else report.beside_others():
        dynamic = host.start(base, mode)
        import torch

        torch.set_num_threads(8)  # of a CPU that other steps use, too
        torch.backends.cudnn.allow_tf32 = False  # convolutions would lose digits that the CPU keeps
        write_models(base)
        room, clips = host.Room(), Clip()
        report.add("started", dynamic=dynamic, device=host.device())
        dtypes = DTYPES[:1] if mode == "cpu" else DTYPES
        works: dict[str, Callable[[], Clip]] = {
            f"cogvideox {d}": lambda d=d: cogvideox(room, d) for d in dtypes
        }
        works |= {f"tiny {variant}": lambda v=variant: tiny(room, v) for variant in VARIANTS}
        works |= {f"svd {d}": lambda d=d: svd(room, d) for d in dtypes[:3]}
        works["exvideo"] = lambda: exvideo(report, room, base)
        for name, work in works.items():
            with report.guarded(name):
                start = time.monotonic()
                clips |= {f"{name} {part}": value.cpu() for part, value in work().items()}
                torch.save(clips, report.folder / f"{mode}.pt")
                report.add(f"made: {name}", wall_seconds=round(time.monotonic() - start, 1))


def write_models(base: Path) -> None:
    """The pocket models and tiny CogVideoX pipelines below models/."""
    from ...tests import tiny

    shutil.copytree(ROOT / "pocket" / "models", base / "models", dirs_exist_ok=True)
    (base / "models" / "loras").mkdir(exist_ok=True)
    for variant in VARIANTS:
        tiny_folder = base / "models" / "CogVideo" / f"tiny-{variant}"
        tiny.write_pipeline(tiny_folder, variant)


def cogvideox(room: host.Room, dtype: str) -> Clip:
    """Latents and frames of the pocket CogVideoX."""
    return text_to_video(room, "CogVideo/pocket-cogvideox", dtype, 0, 0)


def tiny(room: host.Room, variant: str) -> Clip:
    """Latents of a tiny random pipeline in float32."""
    return text_to_video(room, f"CogVideo/tiny-{variant}", "fp32", 64, 17)


def text_to_video(room: host.Room, name: str, dtype: str, size: int, frames: int) -> Clip:
    """Latents and frames of a prompt, and of a picture where the checkpoint wants one."""
    parts = {"text_encoder": OWN_FOLDER, "vae": OWN_FOLDER, "weight_dtype": dtype}
    model, clip, vae = room.call("CogVideoXLoader", model=name, **parts)
    prompts = [
        room.call("CLIPTextEncode", clip=clip, text=text)[0] for text in ("a red circle moving left", "")
    ]
    asked = {"width": size, "height": size, "num_frames": frames, "batch_size": 1, "model": model}
    (latent,) = room.call("VideoLatent", family="cogvideox", **asked)
    if model.model.recipe.config.image_to_video:
        first = {"image": picture(size), "fit": "crop", "posterior": {"posterior": "mean"}}
        first |= {"positive": prompts[0], "negative": prompts[1], "latent_gain": 1.0}
        prompts = room.call("ImageToVideoConditioning", vae=vae, latent=latent, **first)
    samples = sample(room, model, latent, *prompts, sampler_name="cogvideox_ddim", scheduler="simple")
    (frames_fhwc, _) = room.call("VAEDecodeChunked", vae=vae, latent=samples, chunk=0, overlap=2)
    return {"latents": samples["samples"], "frames": frames_fhwc}


def picture(size: int) -> Any:
    """The picture of the workflows, (1, size, size, 3) in 0..1."""
    import numpy as np
    import torch
    from PIL import Image

    file = ROOT / "workflows" / "input" / "kinetograph_svd_image.png"
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB").resize((size, size)), dtype=np.float32)
    return torch.from_numpy(pixels / 255)[None]


def sample(room: host.Room, model: Any, latent: Any, positive: Any, negative: Any, **changes: Any) -> Any:
    """The LATENT that Video Sampler makes."""
    chosen = {"seed": 7, "steps": STEPS, "guidance": {"guidance": "constant", "cfg": 2.0}}
    chosen |= {"sampler_name": "euler", "scheduler": "edm", "denoise": 1.0, "preview": False}
    inputs = {"model": model, "latent": latent, "positive": positive, "negative": negative}
    return room.call("VideoSampler", **inputs, **{**chosen, **changes})[0]


def load_svd(room: host.Room, dtype: str, name: str = "SVD/pocket-svd.safetensors") -> tuple:
    """(MODEL, CLIP_VISION, VAE)."""
    parts = {"image_encoder": OWN_FILE, "vae": OWN_FILE, "weight_dtype": dtype}
    return room.call("SVDLoader", model=name, **parts)


def condition(room: host.Room, vision: Any, vae: Any, latent: Any, size: int) -> tuple:
    """(positive, negative) of the picture."""
    numbers = {"fps": 7, "motion_bucket_id": 127, "noise_aug_strength": 0.02, "seed": 3, "fit": "crop"}
    given = {"clip_vision": vision, "vae": vae, "image": picture(size), "latent": latent}
    return room.call("SVDConditioning", **given, **numbers)


def svd_clip(room: host.Room, parts: tuple, model: Any) -> tuple[Any, Any]:
    """(latents, frames) of `model`, conditioned with the encoder and VAE of `parts`."""
    _, vision, vae = parts
    asked = {"width": SVD_SIZE, "height": SVD_SIZE, "num_frames": SVD_FRAMES, "batch_size": 1}
    (latent,) = room.call("VideoLatent", family="svd", **asked)
    samples = sample(room, model, latent, *condition(room, vision, vae, latent, SVD_SIZE))
    (frames_fhwc, _) = room.call("VAEDecodeChunked", vae=vae, latent=samples, chunk=8, overlap=0)
    return samples["samples"], frames_fhwc


def svd(room: host.Room, dtype: str) -> Clip:
    """Latents and frames of the pocket SVD."""
    parts = load_svd(room, dtype)
    latents, frames = svd_clip(room, parts, parts[0])
    return {"latents": latents, "frames": frames}


def exvideo(report: Report, room: host.Room, base: Path) -> Clip:
    """Plain, patched, plain, patched with a LoRA, unloaded, plain, patched: what each run leaves behind is a row."""
    from ...tests.host.state import write_lora

    parts = load_svd(room, "fp32")
    model = parts[0]
    (longer,) = room.call("ExVideoPatch", model=model, exvideo="SVD/pocket-exvideo.safetensors")
    network = model.model.diffusion_model
    write_lora(network.state_dict(), base / "models" / "loras" / "all.safetensors")
    lora = {"lora_name": "all.safetensors", "strength_model": 0.1}
    (tuned,) = room.call("LoraLoaderModelOnly", model=longer, **lora)
    runs = {
        name: None
        for name in ("plain", "patched", "plain again", "tuned", "plain at last", "patched at last")
    }
    for name in runs:
        chosen = {"plain": model, "patched": longer, "tuned": tuned}[name.split()[0]]
        runs[name] = svd_clip(room, parts, chosen)[0]
        if name == "tuned":
            host.unload()
    _report_traces(report, runs)
    return {name: value for name, value in runs.items() if " " not in name}


def _report_traces(report: Report, runs: dict[str, Any]) -> None:
    for name, first in (("plain", "plain again"), ("plain", "plain at last"), ("patched", "patched at last")):
        gap = float((runs[first] - runs[name]).abs().max())
        report.add(f"trace: {first}", max_difference=gap)
    for name in ("patched", "tuned"):
        report.add(f"effect: {name}", max_difference=float((runs[name] - runs["plain"]).abs().max()))


def compare(report: Report) -> None:
    """Every tensor of every mode beside the CPU's float32."""
    import torch

    reference = torch.load(report.folder / "cpu.pt", weights_only=True)
    made = [mode for mode in MODES if mode != "cpu" and (report.folder / f"{mode}.pt").exists()]
    for mode in made:
        with report.guarded(mode):
            for name, ours in torch.load(report.folder / f"{mode}.pt", weights_only=True).items():
                report.add(f"{mode}: {name}", **gaps(ours, reference[in_fp32(name)]))


def in_fp32(name: str) -> str:
    """The name of the clip that float32 gives."""
    for dtype in DTYPES:
        name = name.replace(dtype, "fp32")
    return name


def gaps(ours: Any, theirs: Any) -> dict[str, Any]:
    """How far a tensor is from the CPU's: finite, relative norm, largest difference, and PSNR of pictures."""
    import torch

    gap = (ours.float() - theirs.float()).abs()
    figures = {"finite": bool(ours.isfinite().all()), "largest": round(float(gap.max()), 7)}
    figures["relative"] = float(f"{float(gap.norm() / theirs.float().norm()):.2e}")
    if ours.ndim == 4 and ours.shape[-1] == 3:
        figures["psnr_db"] = round(float(-10 * torch.log10((gap**2).mean().clamp_min(1e-12))), 1)
    return figures
