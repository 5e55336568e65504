"""Good checkpoints to spoil: the headers of the pocket models over holes, so that a copy takes no disk."""

import json
import struct
from dataclasses import dataclass

from kinetograph.tools.commands import ROOT

POCKET = ROOT / "pocket" / "models"
PLACES = {  # name -> (weights, how often it is taken, loader's class and input)
    "transformer": ("CogVideo/pocket-cogvideox/transformer", 6, ("KinetographCogVideoXLoader", "model")),
    "text_encoder": (
        "CogVideo/pocket-cogvideox/text_encoder",
        6,
        ("KinetographCogVideoXLoader", "text_encoder"),
    ),
    "vae": ("CogVideo/pocket-cogvideox/vae", 4, ("KinetographCogVideoXLoader", "vae")),
    "svd": ("SVD/pocket-svd.safetensors", 1, ("KinetographSVDLoader", "model")),
    "exvideo": ("SVD/pocket-exvideo.safetensors", 1, ("KinetographExVideoPatch", "exvideo")),
}


@dataclass(frozen=True)
class Source:
    """One good file: its header as a dictionary, the size of its data, and its config.json."""

    name: str
    header: dict
    size: int
    config: dict

    @property
    def keys(self):
        return [key for key in self.header if key != "__metadata__"]

    def copy(self):
        return json.loads(json.dumps(self.header))

    def write(self, path, head=None, size=None):
        """A file of this header, or of other bytes in its place, over a hole; returns its path."""
        head = pack(self.header) if head is None else head
        with path.open("wb") as stream:
            stream.write(head)
            stream.truncate(len(head) + (self.size if size is None else size))
        return path


def pack(header):
    """A header as it stands in a file: its length, then JSON. Text is taken as it is."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text


def read_sources():
    """{name: Source} of the pocket models."""
    return {name: _read(name, POCKET / place) for name, (place, *_) in PLACES.items()}


def _read(name, path):
    config = json.loads((path / "config.json").read_text()) if path.is_dir() else {}
    file = next(path.glob("*.safetensors")) if path.is_dir() else path
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return Source(name, header, file.stat().st_size - 8 - length, config)


def choose(sources, rng):
    return rng.choices(list(sources.values()), [PLACES[name][1] for name in sources])[0]
