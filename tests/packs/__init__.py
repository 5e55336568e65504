"""Node packs for tests, which a server has beside this one where a test asks for them."""

import os
from pathlib import Path

from kinetograph.tools.server import PACK

TINY_PICTURES = "tiny_pictures"


def link(base, name=TINY_PICTURES):
    """Put a pack into a ComfyUI base directory; returns the arguments with which a server takes it."""
    place = base / "custom_nodes" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        os.symlink(Path(__file__).parent / name, place, target_is_directory=True)
    return ["--whitelist-custom-nodes", PACK, name]
