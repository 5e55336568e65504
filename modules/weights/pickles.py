"""Torch checkpoints (.ckpt, .pt, .pth, .bin): a zip file that holds a list of tensors as a pickle, and their numbers.

The list is read by `unpickling`, which runs nothing. Numbers are mapped from disk where they are stored plain and
aligned, as torch stores them, and read otherwise.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType

import torch

from .errors import CheckpointError, shown, unreadable
from .stored import DamagedError, Storage, StoredTensor, damaged
from .unpickling import read_tensors

ZIP_START = b"PK\x03\x04"
LIST = re.compile(r"[^/]+/data\.pkl")
MAX_LIST_BYTES = 4 * 2**20  # SVD's 2446 tensors take a tenth of it
READ_BYTES = 4 * 2**20  # at once: a zip's directory comes in one piece, and a hostile one has no end
LOCAL_HEADER = struct.Struct("<4s22xHH")
# Of all that is compressed in a file, beside the file's size. Weights hardly become smaller; what unpacks to a thousand
# times its size is no set of weights.
MAX_UNPACKED, SMALL_BYTES = 16, 2**20
ENCRYPTED = 1  # a member's flag
# All tensors, beside what is stored: some share their numbers, or repeat them.
MAX_SHARED, SHARED_BYTES = 8, 2**26
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
    EOFError,
)


def is_torch_file(file: Path) -> bool:
    """Whether a file begins as the zip files of torch.save, and as every zip; OSError when it cannot be read."""
    with file.open("rb") as stream:
        return stream.read(len(ZIP_START)) == ZIP_START


class _SmallReads(io.FileIO):
    """A file that gives little at once."""

    def read(self, size: int | None = -1) -> bytes:
        wanted = READ_BYTES if size is None or size < 0 else size
        if wanted > READ_BYTES:
            raise zipfile.BadZipFile
        return super().read(wanted) or b""


class TorchFile:
    """An open torch checkpoint, which answers as the handle of the safetensors parser does.

    Of the file only its directory and the list of tensors are read before a tensor is asked for. CheckpointError says
    what is wrong with it.
    """

    def __init__(self, file: Path):
        # torch maps no file under a name that is no text
        str(file).encode()
        self._file, self._name = file, shown(file.name)
        self._storages: dict[str, torch.UntypedStorage] = {}
        with self._complaints():
            self._stream = _SmallReads(file)
            try:
                self._open()
            except BaseException:
                self._stream.close()
                raise

    def _open(self) -> None:
        self._size = self._stream.seek(0, io.SEEK_END)
        self._archive = zipfile.ZipFile(self._stream)
        self._prefix = self._find_list()
        self._members = _members(self._archive.infolist(), self._size)
        if self._small("byteorder", b"little").strip() != b"little":
            raise CheckpointError(
                f"{self._name} was written on a machine that writes numbers the other way round (big-endian), which is "
                "not supported. Save it again on a common one."
            )
        self._tensors = read_tensors(self._small("data.pkl", b""), self._name)
        self._check_storages()

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()
        self._stream.close()

    def metadata(self) -> None:
        """Nothing: torch.save writes none."""

    def keys(self) -> list[str]:
        return [*self._tensors]

    def get_slice(self, key: str) -> StoredTensor:
        return self._tensors[key]

    def get_tensor(self, key: str) -> torch.Tensor:
        """A tensor whose numbers lie in a row: mapped, unless they are stored otherwise."""
        stored = self._tensors[key]
        dtype = stored.storage.dtype
        if not stored.numel:
            return torch.empty(stored.shape, dtype=dtype)
        with self._complaints():
            storage = self._storage(stored.storage)
            view = torch.empty(0, dtype=dtype).set_(storage, stored.offset, stored.shape, stored.stride)
            return view.contiguous()

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        """CheckpointError for whatever the zip file's readers stumble over."""
        try:
            yield
        except CheckpointError:
            raise
        except OSError as problem:
            raise unreadable(self._file, problem) from None
        except DamagedError as error:
            raise damaged(self._name, str(error)) from None
        except DAMAGE:
            raise damaged(self._name, "its directory or a member of it is cut off or changed") from None

    def _find_list(self) -> str:
        """The folder in the zip file that everything lies in, with a slash."""
        lists = [entry.filename for entry in self._archive.infolist() if LIST.fullmatch(entry.filename)]
        if not lists:
            raise CheckpointError(
                f"{self._name} is a zip archive without a torch checkpoint in it. Unpack it and choose the file inside."
            )
        if len(lists) > 1:
            raise DamagedError("it holds several lists of tensors")
        return lists[0].removesuffix("data.pkl")

    def _small(self, name: str, absent: bytes) -> bytes:
        """A small member."""
        entry = self._members.get(self._prefix + name)
        if entry is None:
            return absent
        if entry.file_size > MAX_LIST_BYTES:
            raise DamagedError(
                f"its {name} takes {entry.file_size} bytes, and {MAX_LIST_BYTES} at most are read"
            )
        with self._archive.open(entry) as content:
            return content.read(entry.file_size)

    def _member(self, storage: Storage) -> zipfile.ZipInfo:
        entry = self._members.get(f"{self._prefix}data/{storage.key}")
        if entry is None:
            raise DamagedError(f"the numbers of some tensors (data/{storage.key}) are not in it")
        return entry

    def _check_storages(self) -> None:
        """DamagedError unless every storage is there, whole and of one dtype, and tensors are no more than is stored."""
        storages: dict[str, Storage] = {}
        for tensor in self._tensors.values():
            storage = tensor.storage
            if storages.setdefault(storage.key, storage) != storage:
                raise DamagedError(f"it says two things of the same numbers (data/{storage.key})")
        for storage in storages.values():
            there = self._member(storage).file_size
            if there // storage.dtype.itemsize != storage.length:
                raise DamagedError(
                    f"data/{storage.key} should hold {storage.nbytes} bytes, and holds {there}"
                )
        stored = sum(storage.nbytes for storage in storages.values())
        named = sum(tensor.numel * tensor.storage.dtype.itemsize for tensor in self._tensors.values())
        if named > MAX_SHARED * stored + SHARED_BYTES:
            raise DamagedError(f"its tensors together take {named} bytes, and {stored} are stored")

    def _storage(self, storage: Storage) -> torch.UntypedStorage:
        """The numbers that tensors are views of."""
        if storage.key not in self._storages:
            entry = self._member(storage)
            start = self._start(entry)
            if entry.compress_type == zipfile.ZIP_STORED and start % storage.dtype.itemsize == 0:
                self._storages[storage.key] = self._mapped[start : start + storage.nbytes]
            else:
                self._storages[storage.key] = self._read(entry)
        return self._storages[storage.key]

    @cached_property
    def _mapped(self) -> torch.UntypedStorage:
        """The whole file; what is written to it stays in memory."""
        return torch.from_file(str(self._file), False, self._size, dtype=torch.uint8).untyped_storage()

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: its name stands in front of them once more, and padding."""
        self._stream.seek(entry.header_offset)
        mark, name, padding = LOCAL_HEADER.unpack(self._stream.read(LOCAL_HEADER.size))
        start = entry.header_offset + LOCAL_HEADER.size + name + padding
        if mark != ZIP_START or start + entry.compress_size > self._size:
            raise DamagedError(f"{entry.filename} is not where its directory says")
        return start

    def _read(self, entry: zipfile.ZipInfo) -> torch.UntypedStorage:
        """A member's bytes, in memory."""
        numbers, filled = bytearray(entry.file_size), 0
        with self._archive.open(entry) as content:
            while block := content.read(READ_BYTES):
                numbers[filled : filled + len(block)] = block
                filled += len(block)
        if filled != entry.file_size:
            raise EOFError
        return torch.frombuffer(numbers, dtype=torch.uint8).untyped_storage()


def _members(entries: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """{name: member} of a zip file; DamagedError when members lie in each other, or unpack without measure."""
    members = {entry.filename: entry for entry in entries}
    if len(members) < len(entries):
        raise DamagedError("two of its members have one name")
    unpacked = 0
    ends = [*sorted(entry.header_offset for entry in entries), size]
    for entry, following in zip(
        sorted(entries, key=lambda entry: entry.header_offset), ends[1:], strict=True
    ):
        if entry.header_offset + LOCAL_HEADER.size + entry.compress_size > following:
            raise DamagedError(f"{shown(entry.filename)} reaches into another member, or beyond the file")
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise DamagedError(f"{shown(entry.filename)} is packed in a way that is not known here")
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise DamagedError(f"{shown(entry.filename)} has two sizes")
        unpacked += entry.file_size if entry.compress_type == zipfile.ZIP_DEFLATED else 0
    if unpacked > MAX_UNPACKED * size + SMALL_BYTES:
        raise DamagedError(f"its {size} bytes unpack to {unpacked}, as no weights do")
    return members
