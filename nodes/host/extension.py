"""The pack as the host sees it."""

from .api import ComfyExtension, io
from .files import register_folders


class KinetographExtension(ComfyExtension):
    """Registers the model folders, then hands over the nodes."""

    async def on_load(self) -> None:
        register_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .. import NODES

        return list(NODES)
