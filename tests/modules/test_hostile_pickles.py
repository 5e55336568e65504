"""Torch checkpoints made to harm: nothing that they name is looked up, and each ends in one kind of error, at once."""

import copyreg
import os
import pickle
import struct
import time
import zipfile

import pytest
import torch

from kinetograph.tests.listening import attempt, refusal
from kinetograph.tests.pickled import (
    HOOKS,
    REBUILD,
    container,
    entries,
    name,
    number,
    row,
    storage,
    tensor,
    text,
    whole,
)

MANY = 10**5


class Reduced:
    """Calls something when somebody unpickles it."""

    def __init__(self, call, *arguments):
        self.state = call, arguments

    def __reduce__(self):
        return self.state


class Plain:
    """An object of a class."""


def pickled(value, protocol=2):
    return pickle.dumps({"state_dict": {"a": value}}, protocol)


FOREIGN = {
    "system": (pickled(Reduced(os.system, "true")), f"{os.system.__module__}.system"),
    "system, protocol 4": (pickled(Reduced(os.system, "true"), 4), f"{os.system.__module__}.system"),
    "eval": (pickled(Reduced(eval, "1")), "__builtin__.eval"),
    "eval, protocol 5": (pickled(Reduced(eval, "1"), 5), "builtins.eval"),
    "omegaconf": (
        whole(name("omegaconf.dictconfig", "DictConfig") + b")\x81}b"),
        "omegaconf.dictconfig.DictConfig",
    ),
    "an object": (pickled(Plain()), "test_hostile_pickles.Plain"),
    "keywords": (pickled(Reduced(Plain), 4), "test_hostile_pickles.Plain"),
    "numpy": (whole(name("numpy.core.multiarray", "scalar")), "numpy.core.multiarray.scalar"),
    "a dotted name": (
        whole(text("torch") + text("_utils._rebuild_tensor_v2") + b"\x93"),
        "torch._utils._rebuild_tensor_v2",
    ),
    "torch.load": (whole(name("torch", "load")), "torch.load"),
    "a later rebuild": (whole(name("torch._utils", "_rebuild_device_tensor_from_numpy")), "from_numpy"),
    "an old instance": (whole(b"(ios\nsystem\n"), "os.system"),
    "an old instance of ours": (whole(b"(itorch\nFloatStorage\n"), "an instance"),
    "an object from the stack": (whole(b"(" + name("torch", "FloatStorage") + b"o"), "the instruction OBJ"),
    "a class from the stack": (whole(name("torch", "FloatStorage") + b")\x81"), "the instruction NEWOBJ"),
    "a class with keywords": (whole(name("torch", "FloatStorage") + b")}\x92"), "the instruction NEWOBJ_EX"),
    "a known extension": (whole(b"\x82\x01"), "the instruction EXT1"),
    "a known extension of two": (whole(b"\x83\x01\x00"), "the instruction EXT2"),
    "a known extension of four": (whole(b"\x84\x01\x00\x00\x00"), "the instruction EXT4"),
    "a name for a storage": (whole(b"Pstorage\n"), "the instruction PERSID"),
    "a set": (whole(b"\x8f"), "the instruction EMPTY_SET"),
    "a huge number": (whole(b"\x8b" + struct.pack("<i", 2**20) + bytes(2**20)), "the instruction LONG4"),
    "a number in digits": (whole(b"L" + b"9" * MANY + b"L\n"), "the instruction LONG"),
    "a buffer": (whole(b"\x96" + struct.pack("<Q", 2**60)), "the instruction BYTEARRAY8"),
    "no instruction": (whole(b"\xff"), "the instruction 255"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_no_list_of_tensors_needs_is_refused_by_its_name(tmp_path, kind):
    content, named = FOREIGN[kind]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        message = refusal(tmp_path / "v3_sd15_mm.ckpt", container(content, method=method))
        assert named in message and "pickle" in message and "so it is not opened" in message
        assert ".safetensors copy" in message and "conrevo/AnimateDiff-A1111" in message


def test_extensions_that_are_registered_are_not_looked_up(tmp_path):
    copyreg.add_extension("os", "system", 0x7A)
    try:
        refusal(tmp_path / "x.ckpt", container(whole(b"\x82\x7a" + row(text("true")) + b"R")))
    finally:
        copyreg.remove_extension("os", "system", 0x7A)


def test_old_torch_files_are_refused_in_words(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    message = refusal(path, path.read_bytes())
    assert "without the zip container" in message and ".safetensors copy" in message


def laughs(depth):
    """A dict that holds the next one four times, and so on: 4^depth ways to the last one."""
    start = b"\x80\x02}q\x00" + text("a") + tensor() + b"s"
    inside = (b"".join(text(word) + b"h" + bytes([i]) for word in "wxyz") for i in range(depth))
    return start + b"".join(b"}(" + held + b"uq" + bytes([i + 1]) for i, held in enumerate(inside)) + b"."


def pair_of_pairs(depth):
    """A tuple whose hash takes 2^depth steps."""
    return b")" + b"q\x00h\x00\x86" * depth


def nested(count):
    return b"".join(b"}" + text("a") for _ in range(count)) + b"N" + b"s" * count


DAMAGED = {
    "no storage": whole(
        row(text("other"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(6)) + b"Q"
    ),
    "a storage of no kind": whole(
        row(text("storage"), text("FloatStorage"), text("0"), text("cpu"), number(6)) + b"Q"
    ),
    "a storage with a view": whole(
        row(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(6), b"N") + b"Q"
    ),
    "a storage that is a number": whole(number(3) + b"Q"),
    "a storage that is a text": whole(text("storage") + b"Q"),
    "a path": whole(tensor(of=storage(key="../../../etc/passwd"))),
    "a storage elsewhere": whole(tensor(of=storage(key="7"))),
    "a longer storage": whole(tensor(of=storage(7))),
    "a shorter storage": whole(tensor(of=storage(5), shape=(5,), stride=(1,))),
    "an endless storage": whole(tensor(of=storage(2**61))),
    "a negative storage": whole(tensor(of=storage(-1))),
    "two dtypes": whole(tensor(of=storage(6, kind="IntStorage"))),
    "beyond the storage": whole(tensor(offset=1)),
    "a negative offset": whole(tensor(offset=-1)),
    "a negative stride": whole(tensor(stride=(-1, 1), offset=3)),
    "a huge stride": whole(tensor(shape=(2,), stride=(2**61,))),
    "a stride without measure": whole(tensor(shape=(2,), stride=(2**63,))),
    "a size of 255 bytes": whole(tensor(shape=(2 ** (8 * 254),), stride=(0,))),
    "a number for ever": whole(tensor(shape=(2**50,), stride=(0,))),
    "an empty one of endless width": whole(tensor(shape=(0, 2**40, 2**40), stride=(1, 1, 1))),
    "no strides": whole(tensor(stride=())),
    "too many axes": whole(tensor(shape=(1,) * 40, stride=(1,) * 40)),
    "a size that is true": whole(
        REBUILD + row(storage(), number(0), b"(\x88t", b"(\x88t", b"\x89", HOOKS) + b"R"
    ),
    "a size that is no number": whole(
        REBUILD + row(storage(), number(0), b"(Nt", b"(Nt", b"\x89", HOOKS) + b"R"
    ),
    "a negated view": whole(
        REBUILD + row(storage(), number(0), b")", b")", b"\x89", HOOKS, b"}" + text("neg") + b"\x88s") + b"R"
    ),
    "a parameter of nothing": whole(
        name("torch._utils", "_rebuild_parameter") + row(b"N", b"\x88", HOOKS) + b"R"
    ),
    "arguments without end": whole(
        REBUILD
        + b"q\x01"
        + row(storage(), number(0), b")", b")", b"\x89", HOOKS, b"N" * MANY)
        + b"q\x02"
        + b"h\x01h\x02R" * MANY
    ),
    "a dict from pairs": whole(name("collections", "OrderedDict") + row(b"]") + b"R"),
    "a call of a text": whole(text("x") + b")R"),
    "a call of a storage's kind": whole(name("torch", "FloatStorage") + b")R"),
    "attributes for a record": whole(
        name("torch", "FloatStorage") + b"N}" + text("word") + text("F16") + b"s\x86b"
    ),
    "attributes for a function": whole(REBUILD + b"}" + text("value") + text("x") + b"sb"),
    "attributes for a tensor": whole(tensor() + b"}" + text("shape") + b")sb"),
    "an entry of a tensor": whole(tensor() + text("a") + b"Ns"),
    "an end of a text": whole(text("x") + b"Na"),
    "names that are none": whole(number(1) + number(2) + b"\x93"),
    "a memo that is empty": whole(b"h\x07"),
    "a memo without end": b"\x80\x02}r\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "a memo at its end": b"\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xff.",
    "a text without end": b"\x80\x02X\xff\xff\xff\xff.",
    "a frame without end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "an unknown protocol": b"\x80\x09}.",
    "no end": whole(b"N")[:-1],
    "nothing": b"",
    "only an end": b".",
    "no mark": b"\x80\x02}u.",
    "a list": b"\x80\x02](" + tensor() + b"e.",
    "a tensor alone": b"\x80\x02" + tensor() + b".",
    "no tensor": entries(epoch=number(3)),
    "a name that is no text": entries(**{"\ud800": tensor()}),
    "an endless name": entries(**{"a" * 5000: tensor()}),
    "lists in lists": whole(b"]" * MANY + b"a" * MANY),
    "tuples in tuples": b"\x80\x02)" + b"\x85" * MANY + b".",
    "dicts in dicts": whole(nested(MANY)),
    "a circle": b"\x80\x02}q\x00" + text("state_dict") + b"h\x00s.",
    "marks": b"\x80\x02" + b"(" * MANY + b".",
    "many dicts": b"\x80\x02" + b"}" * (2**21) + b".",
    "too long a list": entries(a=tensor(), b=text("x" * (4 * 2**20))),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_list_that_contradicts_itself_is_refused(tmp_path, kind):
    message = refusal(tmp_path / "model.ckpt", container(DAMAGED[kind]))
    assert "is a damaged torch checkpoint" in message


def test_bombs_beside_the_weights_do_no_harm(tmp_path):
    """Keys that are no texts are not hashed, and each dict is looked through once."""
    path = tmp_path / "model.ckpt"
    for content in (
        whole(b"}" + pair_of_pairs(60) + b"Ns"),
        b"\x80\x02" + pair_of_pairs(60) + laughs(14)[2:],
    ):
        path.write_bytes(container(content))
        start = time.process_time()
        shapes, _ = attempt(path)
        assert shapes and {*shapes.values()} == {(2, 3)} and time.process_time() - start < 1


def test_a_file_of_many_names_for_the_same_numbers_is_refused(tmp_path):
    """A thousand tensors of a megabyte, of which one is stored: whoever copies them runs out of memory."""
    one = tensor((2**18,), (1,), of=storage(2**18))
    content = container(entries(**{f"w{i}": one for i in range(1000)}), {"0": bytes(2**20)})
    assert f"take {1000 * 2**20} bytes, and {2**20} are stored" in refusal(tmp_path / "model.ckpt", content)
