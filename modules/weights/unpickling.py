"""The list of tensors in a torch checkpoint, read without running anything that it names.

What torch.save writes of tensors in dicts needs two functions, one class and ten kinds of storages. They are records
here; nothing is imported, and any other name is refused.

The standard library's Unpickler is used in its Python form, with the table of its instructions cut down. The C form
puts keys into dicts by itself, and hashing a key of a few bytes (a pair of pairs of pairs) may never end; it also keeps
a memo as long as the highest number that a pickle mentions.
"""

import io
import pickle
import pickletools
import re
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from .errors import CLEAN_COPY, CheckpointError, shown
from .stored import MAX_COUNT, DamagedError, Storage, StoredTensor, damaged

MAX_DEPTH = 16  # of dicts in dicts
MAX_TENSORS = 50_000
MAX_KEY = 1_000  # characters
MAX_AXES = 32
MAX_ARGUMENTS = 8
STORAGE_KEY = re.compile("[0-9]{1,20}")
# under which trainers and pipelines put the weights, beside what else they keep
WRAPPERS = ("state_dict", "controlnet")
PARALLEL = "module."


@dataclass(frozen=True)
class StorageType:
    """A kind of storage, by the word of its numbers' dtype."""

    word: str


class Call(Enum):
    """What a list of tensors may call; here a sign of what to build."""

    DICT = "collections", "OrderedDict"
    TENSOR = "torch._utils", "_rebuild_tensor_v2"
    PARAMETER = "torch._utils", "_rebuild_parameter"


STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
GLOBALS: Mapping[tuple[str, str], StorageType | Call] = {
    **{call.value: call for call in Call},
    **{("torch", name): StorageType(word) for name, word in STORAGES.items()},
}


class StrangeError(ValueError):
    """The pickle asks for what a list of tensors does not need; the message says what."""


def read_tensors(content: bytes, name: str) -> dict[str, StoredTensor]:
    """{key: tensor} of the pickle in a torch checkpoint called `name`, without what wraps it.

    Entries that are no tensors are left out. CheckpointError names what else the pickle asks for, or what is wrong.
    """
    try:
        return _named_tensors(TensorUnpickler(io.BytesIO(content)).load())
    except StrangeError as error:
        problem = f"is a pickle file that asks for {error}"
    except DamagedError as error:
        raise damaged(name, str(error)) from None
    except (
        pickle.UnpicklingError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        struct.error,
    ):
        raise damaged(name, "its list of tensors cannot be read") from None
    except (OverflowError, MemoryError):
        raise damaged(name, "its list of tensors is without measure") from None
    raise CheckpointError(
        f"{name} {problem}, which no list of tensors needs and which may run code of whoever made it, so it is not "
        f"opened. {CLEAN_COPY}"
    ) from None


class Instructions(dict[int, Any]):
    """Which instructions are known, and by what they are carried out."""

    def __missing__(self, code: int) -> Any:
        names = (known.name for known in pickletools.opcodes if known.code == chr(code))
        raise StrangeError(f"the instruction {next(names, code)}")


INSTRUCTIONS = (
    b"\x80\x95.(N\x88\x89"  # protocol, frame, stop, mark, None, True, False
    b"JKM\x8aG"  # numbers
    b"X\x8cBC"  # texts and bytes
    b"}])t\x85\x86\x87"  # dicts, lists, tuples
    b"qr\x94hj"  # memo
    b"c\x93Q"  # names, storages
)


class TensorUnpickler(pickle._Unpickler):
    """Builds dicts, lists, tuples, texts, numbers and StoredTensor, and nothing else."""

    stack: list[Any]
    pop_mark: Any
    readline: Any

    def find_class(self, module: str, name: str, /) -> StorageType | Call:
        known = GLOBALS.get((module, name))
        if known is None:
            raise StrangeError(shown(f"{module}.{name}"))
        return known

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", StorageType(word), str(key), str(), length) if _are_counts(length):
                if STORAGE_KEY.fullmatch(key):
                    return Storage(key, word, length)
        raise DamagedError("one of its storages is none of torch's")

    def load_reduce(self) -> None:
        arguments, call = self.stack.pop(), self.stack.pop()
        self.stack.append(_rebuild(call, arguments))

    def load_build(self) -> None:
        """The attributes of an OrderedDict, which torch writes for a module's versions, say nothing of tensors."""
        self.stack.pop()
        _check_kind(self.stack[-1], dict)

    def load_setitems(self) -> None:
        self._put(self.pop_mark())

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_appends(self) -> None:
        items = self.pop_mark()
        _check_kind(self.stack[-1], list).extend(items)

    def load_append(self) -> None:
        value = self.stack.pop()
        _check_kind(self.stack[-1], list).append(value)

    def load_inst(self) -> None:
        names = (self.readline()[:-1].decode("utf-8") for _ in range(2))
        raise StrangeError(f"an instance of {self.find_class(*names)}")

    def _put(self, items: list[Any]) -> None:
        """Entries under other keys than texts hold no weights, and are never hashed."""
        target = _check_kind(self.stack[-1], dict)
        target.update(
            (key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str
        )

    dispatch: ClassVar[dict[int, Any]] = Instructions(
        {code: pickle._Unpickler.dispatch[code] for code in INSTRUCTIONS}
        | {
            pickle.REDUCE[0]: load_reduce,
            pickle.BUILD[0]: load_build,
            pickle.SETITEM[0]: load_setitem,
            pickle.SETITEMS[0]: load_setitems,
            pickle.APPEND[0]: load_append,
            pickle.APPENDS[0]: load_appends,
            pickle.INST[0]: load_inst,
        }
    )


def _check_kind(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise DamagedError(f"it takes something for a {kind.__name__} that is none")
    return value


def _are_counts(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < MAX_COUNT for value in values)


def _rebuild(call: Any, arguments: Any) -> Any:
    """What a call stands for."""
    # a memo may call with a million arguments again and again
    if type(arguments) is not tuple or len(arguments) > MAX_ARGUMENTS:
        raise DamagedError("it calls something with what is no list of arguments")
    match call, arguments:
        case Call.DICT, ():
            return {}
        case Call.PARAMETER, (StoredTensor() as tensor, bool(), _):
            return tensor
        case Call.TENSOR, (Storage() as storage, offset, tuple(shape), tuple(stride), bool(), _, *more):
            tensor = StoredTensor(storage, offset, shape, stride)
            if len(shape) != len(stride) or len(shape) > MAX_AXES or not _are_counts(offset, *shape, *stride):
                raise DamagedError("a tensor has a shape or strides that no tensor has")
            if not tensor.is_inside:
                raise DamagedError("a tensor is larger than what is stored of it")
            # torch's marks of a view that changes signs
            if any(more):
                raise DamagedError("a tensor is stored in a way that is not known here")
            return tensor
    raise DamagedError("it builds something that is no tensor")


def _named_tensors(root: Any) -> dict[str, StoredTensor]:
    """{name: tensor} of the weights in what was saved; those of a dict in a dict are called outer.inner."""
    found: dict[str, StoredTensor] = {}
    for path, place in _dicts(_unwrapped(root)):
        for key, value in place.items():
            if isinstance(value, StoredTensor):
                found[_checked(path + key)] = value
                if len(found) > MAX_TENSORS:
                    raise DamagedError(f"it lists more than {MAX_TENSORS} tensors")
    if not found:
        raise DamagedError("it holds no tensors that have names")
    if all(key.startswith(PARALLEL) for key in found):
        return {key.removeprefix(PARALLEL): value for key, value in found.items()}
    return found


def _unwrapped(root: Any) -> Any:
    """The weights alone, out of what a trainer saved."""
    for _ in range(MAX_DEPTH):
        inside = [root[word] for word in WRAPPERS if type(root) is dict and type(root.get(word)) is dict]
        if not inside:
            break
        root = inside[0]
    return root


def _dicts(root: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path with a dot behind, dict) of a dict and the dicts in it, each once, however often it is in there."""
    waiting = deque([("", root, 1)] if type(root) is dict else [])
    seen = {id(root)}
    while waiting:
        path, place, depth = waiting.popleft()
        if depth > MAX_DEPTH:
            raise DamagedError(f"its dicts lie in each other more than {MAX_DEPTH} deep")
        yield path, place
        for key, value in place.items():
            if type(value) is dict and id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{_checked(path + key)}.", value, depth + 1))


def _checked(key: str) -> str:
    """A tensor's name; what no text can hold, or nobody could read, is refused."""
    if len(key) > MAX_KEY:
        raise DamagedError(f"a tensor's name is {len(key)} characters long")
    if not key.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in key):
        raise DamagedError("a tensor's name is no text")
    return key
