"""What Python announces while a file is read, and how a torch checkpoint that is refused must end."""

import codecs
import resource
import sys
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from kinetograph.modules.weights import unpickling
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import open_weights, read_header
from kinetograph.tests.pickled import container, number, whole

ALLOWED = {("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2")}
ALLOWED |= {("torch._utils", "_rebuild_parameter")}
KINDS = "Float Half BFloat16 Double Long Int Short Char Byte Bool"
ALLOWED |= {("torch", f"{kind}Storage") for kind in KINDS.split()}
# before a name is looked up, or something is run or opened
TELLING = {
    "import",
    "pickle.find_class",
    "exec",
    "compile",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.mkdir",
}
TELLING |= {"subprocess.Popen", "socket.connect", "shutil.rmtree", "os.remove"}
SECONDS = 10.0  # of the processor, for one file
MEMORY = 700 * 2**20  # for one file, beyond what the process had at most
heard = []
listening = []


def _listen(event, arguments):
    if listening and event in TELLING:
        heard.append((event, arguments))


@contextmanager
def attentive():
    """Nothing telling happens inside."""
    listen()
    heard.clear()
    listening.append(True)
    try:
        yield
    finally:
        listening.clear()
        assert not heard, heard


@cache
def listen():
    """Start an audit hook, which cannot be taken away again; what is imported late is there from here on."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "good.ckpt"
        path.write_bytes(container(whole(number(3))))
        assert {*open_weights(path)} == {"a"}
        path.write_bytes(container(whole(b"\x82")))
        with pytest.raises(CheckpointError):
            open_weights(path)
    for codec in ("unicode_escape", "cp437"):
        codecs.lookup(codec)
    sys.addaudithook(_listen)


@contextmanager
def only_known_names():
    """Inside, the reader takes no other name than the allowed ones for one of its own."""
    taken, original = set(), unpickling.TensorUnpickler.find_class

    def find_class(self, module, word):
        found = original(self, module, word)
        taken.add((module, word))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpickling.TensorUnpickler, "find_class", find_class)
        yield taken
    assert taken <= ALLOWED


def attempt(path):
    """(shapes, "") of a file that opens, or (None, message)."""
    with attentive():
        try:
            shapes = dict(read_header(path).shapes)
            tensors = open_weights(path)
        except CheckpointError as error:
            return None, str(error)
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == shapes
    assert sum(tensor.nbytes for tensor in tensors.values()) <= 2**26 + 8 * path.stat().st_size
    return shapes, ""


def refusal(path, content):
    """The message for a file of these bytes, which comes soon, takes little memory and names the file."""
    path.write_bytes(content)
    listen()
    most, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with only_known_names():
        shapes, message = attempt(path)
    assert time.process_time() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) * 1024 < MEMORY
    assert shapes is None and path.name in message and str(path.parent) not in message, message
    assert len(message) < 700 and message.isprintable(), message
    return message
