"""Torch checkpoints for tests, put together byte by byte: what torch.save writes, and what it never would."""

import io
import struct
import zipfile
from pathlib import Path


def text(word):
    encoded = word.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value):
    """LONG1, which holds any number of up to 255 bytes."""
    length = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def row(*parts):
    return b"(" + b"".join(parts) + b"t"


def name(module, word):
    return f"c{module}\n{word}\n".encode()


def storage(count=6, key="0", kind="FloatStorage"):
    return row(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


HOOKS = name("collections", "OrderedDict") + b")R"
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def tensor(shape=(2, 3), stride=(3, 1), offset=0, of=None):
    sizes, steps = (row(*map(number, values)) for values in (shape, stride))
    return REBUILD + row(of or storage(), number(offset), sizes, steps, b"\x89", HOOKS) + b"R"


def entries(**values):
    """A pickle of a dict."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


def whole(value):
    """A pickle of a dict with a good tensor and something else."""
    return entries(a=tensor(), b=value)


def container(content, members=None, folder="archive", method=zipfile.ZIP_STORED, order=b"little"):
    """The bytes of a torch checkpoint with this list of tensors."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        archive.writestr(f"{folder}/data.pkl", content)
        if order is not None:
            archive.writestr(f"{folder}/byteorder", order)
        for key, numbers in (members or {"0": bytes(range(24))}).items():
            archive.writestr(f"{folder}/data/{key}", numbers)
    return held.getvalue()


def write(path, content, **options):
    """A torch checkpoint with this list of tensors."""
    Path(path).write_bytes(container(content, **options))
    return path
