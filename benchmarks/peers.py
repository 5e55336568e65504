"""Reaching the peers that tests and benchmarks compare with. None of them is needed to run the pack."""

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .harness import Setting

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
HOST_FOLDER = ROOT / ".cache" / "comfyui-0.30.0"


def hide_broken_extensions() -> None:
    """Let an unusable torchvision or torchaudio count as absent, as it is to every user of it.

    A build for another PyTorch raises while it is imported, and takes diffusers and transformers with it.
    """
    for name in ("torchvision", "torchaudio"):
        if name in sys.modules or importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception:
            for key in [key for key in sys.modules if key.split(".")[0] == name]:
                del sys.modules[key]
            sys.modules[name] = None  # type: ignore[assignment]


def load_diffusers() -> types.ModuleType:
    """The diffusers package; ImportError where it is absent."""
    hide_broken_extensions()
    return importlib.import_module("diffusers")


def load_diffsynth(module: str) -> types.ModuleType:
    """One module of diffsynth's `models` folder, without its package's dependencies.

    ImportError where it is absent.
    """
    spec = importlib.util.find_spec("diffsynth")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("diffsynth is not installed.")
    name = "peer_diffsynth_models"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "models")]
        sys.modules[name] = package
    return importlib.import_module(f"{name}.{module}")


def host_folder() -> Path | None:
    """The ComfyUI folder to compare with: COMFYUI_PATH, else the cached release, else None."""
    folder = Path(os.environ.get("COMFYUI_PATH", HOST_FOLDER))
    return folder if (folder / "comfy").is_dir() else None


def load_host(module: str, device: str = "cpu") -> types.ModuleType:
    """A module of ComfyUI, such as "comfy.ldm.cogvideo.vae"; ImportError where the host is absent.

    Puts the host's folder on `sys.path` of this process, so use it in a process of its own.
    """
    folder = host_folder()
    if folder is None:
        raise ImportError("No ComfyUI folder: set COMFYUI_PATH.")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        options = importlib.import_module("comfy.options")
        arguments, sys.argv = sys.argv, [sys.argv[0], *([] if device == "cuda" else ["--cpu"])]
        try:
            options.enable_args_parsing()
            importlib.import_module("comfy.cli_args")
        finally:
            sys.argv = arguments
    return importlib.import_module(module)


def build_present(
    makers: Mapping[str, Callable[..., T]], setting: Setting, *arguments: Any
) -> tuple[dict[str, T], dict[str, str]]:
    """What the makers of the wanted peers give for these arguments, and why the others are absent."""
    made: dict[str, T] = {}
    absent: dict[str, str] = {}
    for name, make in makers.items():
        if not setting.wants(name):
            absent[name] = "not asked for"
            continue
        try:
            made[name] = make(*arguments)
        except ImportError as error:
            absent[name] = str(error).splitlines()[0]
    return made, absent


def place(
    build: Callable[[], nn.Module], weights: Mapping[str, Tensor], dtype: torch.dtype, device: str
) -> nn.Module:
    """A peer's module made in a dtype and on a device, with these very tensors as its weights.

    It is made on the meta device, so that no second copy of the weights exists even for a moment; one that
    also makes tables of its own is made again where they are computed.
    """
    peer = _built(build, dtype, "meta")
    if device != "meta" and any(buffer.is_meta for buffer in peer.buffers()):
        peer = _built(build, dtype, device)
    peer.load_state_dict(weights, assign=True)
    return peer


def _built(build: Callable[[], nn.Module], dtype: torch.dtype, device: str) -> nn.Module:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return build().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(usual)
