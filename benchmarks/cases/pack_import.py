"""Importing the pack where PyTorch and the host are loaded: seconds, resident memory, and no diffusers."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .. import peers
from ..harness import OURS, Row, Setting

HOST_MODULES = ("comfy.sd", "comfy.samplers", "nodes", "comfy_api.latest")
PAGE_MIB = 4096 / 2**20


def run(setting: Setting) -> Iterator[Row]:
    """One sample each: a second import in the same process costs nothing."""
    try:
        for module in HOST_MODULES:
            peers.load_host(module, setting.device)
    except ImportError as error:
        raise RuntimeError(f"The pack's nodes need the host to be measured: {error}") from error
    pack = sys.modules["kinetograph"]
    before, cpu, wall = _resident_pages(), time.process_time(), time.perf_counter()
    nodes = asyncio.run(_nodes(pack))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    extra = (_resident_pages() - before) * PAGE_MIB
    if "diffusers" in sys.modules or "diffsynth" in sys.modules:
        raise AssertionError("The pack imports diffusers or diffsynth.")
    size = f"{len(nodes)} nodes"
    yield Row(size, "CPU s", {OURS: [cpu]})
    yield Row(size, "wall s", {OURS: [wall]})
    yield Row(size, "extra resident MiB", {OURS: [extra]})


async def _nodes(pack) -> list:
    extension = await pack.comfy_entrypoint()
    return await extension.get_node_list()


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])
