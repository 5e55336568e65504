"""The real ComfyUI in this process, without its server: started as its main.py does, nodes called as its queue does.

`start` comes before torch is imported: the host chooses torch's allocator by the environment.
"""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from .steps import MODES

HOST_FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "comfyui-0.30.0"


def start(base: Path, mode: str) -> bool:
    """Import the host in one of MODES, with `base` as its base directory; whether dynamic VRAM is on.

    What main.py does before its first prompt, as far as models feel it (ComfyUI 0.30.0).
    """
    sys.path.insert(0, os.environ.get("COMFYUI_PATH", str(HOST_FOLDER)))
    sys.argv = ["main.py", "--base-directory", str(base), *MODES[mode]]
    importlib.import_module("comfy.options").enable_args_parsing()
    choices = importlib.import_module("comfy.cli_args")
    control = importlib.import_module("comfy_aimdo.control")
    dynamic = choices.enables_dynamic_vram()
    if dynamic:
        control.init(nvml_pressure=not choices.args.disable_nvml_pressure)
    importlib.import_module("cuda_malloc")
    management = importlib.import_module("comfy.model_management")
    importlib.import_module("nodes")
    return dynamic and management.is_nvidia() and _start_dynamic_vram(control, management)


def _start_dynamic_vram(control: Any, management: Any) -> bool:
    if not control.init_devices((device.index, 0) for device in management.get_all_torch_devices()):
        return False
    control.set_log_warning()  # it writes down every allocation otherwise
    patcher = importlib.import_module("comfy.model_patcher")
    patcher.CoreModelPatcher = patcher.ModelPatcherDynamic
    importlib.import_module("comfy.memory_management").aimdo_enabled = True
    return True


class Room:
    """Nodes by name, called one after another. Nothing is cached between calls."""

    def __init__(self) -> None:
        self._kinds = {**importlib.import_module("nodes").NODE_CLASS_MAPPINGS, **asyncio.run(_own_nodes())}
        self._run = importlib.import_module("kinetograph.tests.host.workbench").run

    def call(self, kind: str, **inputs: Any) -> tuple:
        """Outputs of a node; then what the queue does after every node under dynamic VRAM."""
        return self.work(lambda: self._run(self._kinds[kind], **inputs))

    def work(self, task: Any) -> Any:
        """The result of a task that stands for a node."""
        torch = importlib.import_module("torch")
        try:
            with torch.inference_mode():
                return task()
        finally:
            if importlib.import_module("comfy.memory_management").aimdo_enabled:
                importlib.import_module("comfy.model_management").reset_cast_buffers()
                importlib.import_module("comfy.model_prefetch").cleanup_prefetch_queues()
                importlib.import_module("comfy_aimdo.model_vbar").vbars_reset_watermark_limits()


async def _own_nodes() -> dict[str, type]:
    extension = await importlib.import_module("kinetograph").comfy_entrypoint()
    await extension.on_load()
    return {kind.__name__: kind for kind in await extension.get_node_list()}


def unload() -> None:
    """The Unload button."""
    importlib.import_module("comfy.model_management").unload_all_models()


def device() -> str:
    """Where the host puts models."""
    return str(importlib.import_module("comfy.model_management").get_torch_device())
