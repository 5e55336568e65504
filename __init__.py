"""ComfyUI-Kinetograph: video-diffusion families behind one set of nodes, on ComfyUI's own sockets.

ComfyUI imports this folder by its location and asks `comfy_entrypoint` for the nodes. Importing it without
ComfyUI is harmless: nothing of the host is touched before that call.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> "ComfyExtension":
    """The host's entry point for V3 node packs: every node of `nodes.NODES`."""
    from .modules.videofile.orphans import sweep_below
    from .nodes.extension import KinetographExtension

    return KinetographExtension(tidy=sweep_below)
