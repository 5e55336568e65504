"""The pack as the host sees it."""

from collections.abc import Callable, Iterable
from pathlib import Path

from . import NODES
from .host.api import ComfyExtension, io
from .host.files import result_directories, supply_samples
from .pipeline.models import MODELS


class KinetographExtension(ComfyExtension):
    """Registers the model folders, supplies the templates' samples, lets `tidy` clear what a killed server left behind,
    then hands over the nodes."""

    def __init__(self, tidy: Callable[[Iterable[Path]], object]):
        self._tidy = tidy

    async def on_load(self) -> None:
        MODELS.register()
        supply_samples()
        self._tidy(result_directories())

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
