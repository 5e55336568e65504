"""Imports the pack once where PyTorch and the host are loaded: `python benchmarks/import_probe.py FOLDER DEVICE`.

Bytecode of what the pack imports is read from and written to FOLDER, whatever the shell says of it. What PyTorch and
the host left is collected before: a full collection over their objects takes 0.25 s, and which import tips it over
is chance. Prints CPU and wall seconds, MiB of resident memory and the number of nodes as JSON.
"""

import asyncio
import gc
import importlib
import json
import sys
import time
from pathlib import Path

from worker import register_pack

HOST_MODULES = ("comfy.sd", "comfy.samplers", "nodes", "comfy_api.latest")
PAGE_MIB = 4096 / 2**20


def main(folder: str, device: str) -> None:
    register_pack()
    peers = importlib.import_module("kinetograph.benchmarks.peers")
    for module in HOST_MODULES:
        peers.load_host(module, device)
    gc.collect()
    sys.pycache_prefix, sys.dont_write_bytecode = folder, False
    pages, cpu, wall = resident_pages(), time.process_time(), time.perf_counter()
    nodes = asyncio.run(nodes_of(sys.modules["kinetograph"]))
    figures = {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "mib": (resident_pages() - pages) * PAGE_MIB,
        "nodes": len(nodes),
        "strangers": sorted({"diffusers", "diffsynth"} & set(sys.modules)),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


async def nodes_of(pack) -> list:
    extension = await pack.comfy_entrypoint()
    return await extension.get_node_list()


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
