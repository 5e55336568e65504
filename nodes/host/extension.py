"""The pack as the host sees it."""

from collections.abc import Callable, Iterable
from pathlib import Path

from .api import ComfyExtension, io
from .files import register_folders, result_directories


class KinetographExtension(ComfyExtension):
    """Registers the model folders, lets `tidy` clear what a killed server left behind, then hands over the nodes."""

    def __init__(self, tidy: Callable[[Iterable[Path]], object]):
        self._tidy = tidy

    async def on_load(self) -> None:
        register_folders()
        self._tidy(result_directories())

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .. import NODES

        return list(NODES)
