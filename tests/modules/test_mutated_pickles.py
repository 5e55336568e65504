"""Torch checkpoints whose bytes were changed, and zip files that are none: one kind of error, or what is stored."""

import io
import random
import struct
import time
import warnings
import zipfile
from collections import Counter

import pytest
import torch

from kinetograph.modules.weights.files import open_weights
from kinetograph.tests.listening import attempt, only_known_names, refusal
from kinetograph.tests.pickled import container, entries, name, storage, tensor, text

MUTANTS, SECONDS = 10_000, 1.0
# what a mutant may be made of, beside bytes
WORDS = (
    name("os", "system"),
    name("builtins", "eval"),
    name("torch", "IntStorage"),
    text("os") + text("system") + b"\x93",
    b"Q",
    b"R",
    b"b",
    b"\x81",
    b"(",
    b"t",
    b"\x86",
    b"2",
    b"h\x00",
    b"q\x00",
    b"}",
    b"u",
    b"s",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x3f",
    b"\x8a\x01\xff",
    b"\x82\x01",
    b"r\xff\xff\xff\xff",
    b"X\xff\xff\xff\x7f",
)


def seeds():
    """Files that open: of our own making, and of torch's in several protocols."""
    weights = {
        "a.weight": torch.arange(12.0).reshape(3, 4),
        "b": torch.ones(3).bfloat16(),
        "c": torch.tensor(2),
    }
    weights["t"] = weights["a.weight"].t()
    files = [container(entries(a=tensor(), b=tensor((3,), (2,), 1)))]
    for protocol, content in ((2, weights), (4, {"state_dict": weights, "epoch": 3, "x": [1, (2.5, None)]})):
        held = io.BytesIO()
        torch.save(content, held, pickle_protocol=protocol)
        files.append(held.getvalue())
    held = io.BytesIO()
    torch.save(torch.nn.Linear(2, 3).state_dict(), held)
    return [*files, held.getvalue()]


def mutate(content, dice):
    """A few bytes changed, put in, taken out, doubled or cut off."""
    mutant = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        place = dice.randrange(len(mutant) + 1)
        length = dice.choice((1, 1, 2, 9))
        match dice.randrange(7):
            case 0 | 1:
                mutant[place : place + 1] = bytes([dice.randrange(256)])
            case 2:
                mutant[place:place] = dice.choice(WORDS)
            case 3:
                mutant[place : place + length] = dice.choice(WORDS)
            case 4:
                del mutant[place : place + length]
            case 5:
                mutant[place:place] = mutant[place : place + 10 * length]
            case 6 if dice.random() < 0.2:
                del mutant[place:]
    return bytes(mutant)


def mutants(dice, count):
    """Half of them zip files with another byte; half whole zip files with another list of tensors."""
    files = seeds()
    parts = []
    for file in files:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            lists = [entry for entry in archive.namelist() if entry.endswith("data.pkl")]
            folder = lists[0].removesuffix("data.pkl")
            inside = {
                entry.removeprefix(f"{folder}data/"): archive.read(entry)
                for entry in archive.namelist()
                if entry.startswith(f"{folder}data/")
            }
            parts.append((archive.read(lists[0]), inside))
    for number in range(count):
        chosen = dice.randrange(len(files))
        if number % 3 == 0:
            yield mutate(files[chosen], dice)
        else:
            yield container(mutate(parts[chosen][0], dice), members=parts[chosen][1])


def test_10000_mutated_files_end_in_one_error_or_in_what_is_stored(tmp_path):
    path, ends = tmp_path / "mutant.ckpt", Counter()
    with only_known_names():
        for content in mutants(random.Random(10), MUTANTS):
            path.unlink(missing_ok=True)  # a file that is written over waits for the disk
            path.write_bytes(content)
            start = time.process_time()
            shapes, message = attempt(path)
            assert time.process_time() - start < SECONDS
            if shapes is None:
                assert path.name in message and str(tmp_path) not in message and len(message) < 700, message
            ends["opened" if shapes else "foreign" if "not opened" in message else "damaged"] += 1
    assert ends.total() == MUTANTS and min(ends.values()) > MUTANTS / 50, ends


GOOD = entries(a=tensor())
HEADER = 30  # bytes of a member's header before its name


def changed(content, before, after, count=-1):
    assert before in content
    return content.replace(before, after, count)


def doubled():
    held = io.BytesIO(container(GOOD))
    with zipfile.ZipFile(held, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data/0", bytes(24))
    return held.getvalue()


def beside(*names):
    held = io.BytesIO(container(GOOD))
    with zipfile.ZipFile(held, "a") as archive:
        for other in names:
            archive.writestr(other, GOOD)
    return held.getvalue()


def directory(content, field, value, member=b"archive/data/0"):
    """A zip file whose directory says something else of a member, at a place in its entry."""
    place = content.rindex(member) - 46 + field
    return content[:place] + value + content[place + len(value) :]


def place_of(content, member):
    return content.index(member) - HEADER


def overlapping():
    """One member's numbers are those of another, which has a header in them."""
    content = container(GOOD, {"0": bytes(24), "1": bytes(4)})
    size = struct.pack("<I", 24 + HEADER + len("archive/data/1") + 4)
    content = directory(content, 20, size)
    return directory(content, 24, size)


def bomb(key="0"):
    """A file of some kilobytes that unpacks to 64 MB."""
    numbers = 2**24
    return container(
        entries(a=tensor((numbers,), (1,), of=storage(numbers))),
        {key: bytes(4 * numbers)},
        method=zipfile.ZIP_DEFLATED,
    )


PLAIN = container(GOOD)
CONTAINERS = {
    "a member twice": (doubled(), "two of its members have one name"),
    "two lists": (beside("other/data.pkl"), "several lists"),
    "a list too deep": (container(GOOD, folder="a/b"), "without a torch checkpoint in it"),
    "no folder": (changed(PLAIN, b"archive/", b"archive_"), "without a torch checkpoint in it"),
    "members in each other": (overlapping(), "reaches into another member"),
    "a bomb": (bomb(), "unpack to"),
    "another packing": (container(GOOD, method=zipfile.ZIP_BZIP2), "packed in a way"),
    "a secret": (directory(PLAIN, 8, b"\1\0"), "packed in a way"),
    "two sizes": (directory(PLAIN, 20, struct.pack("<I", 20)), "two sizes"),
    "beyond the file": (directory(PLAIN, 42, struct.pack("<I", 2**31)), "reaches into"),
    "no header there": (
        directory(PLAIN, 42, struct.pack("<I", place_of(PLAIN, b"archive/data/0") - 1)),
        "damaged",
    ),
    "another list than was written": (
        changed(PLAIN, b"FloatStorage", b"ShortStorage", 1),
        "cut off or changed",
    ),
    "the other way round": (container(GOOD, order=b"big"), "big-endian"),
    "no numbers": (container(GOOD, {"1": bytes(24)}), "data/0) are not in it"),
    "too few numbers": (container(GOOD, {"0": bytes(20)}), "should hold 24 bytes, and holds 20"),
    "too many numbers": (container(GOOD, {"0": bytes(28)}), "should hold 24 bytes, and holds 28"),
    "half a file": (PLAIN[: len(PLAIN) // 2], "cut off"),
    "without its last byte": (PLAIN[:-1], "cut off"),
    "a directory without end": (
        changed(PLAIN, b"PK\5\6", b"PK\5\6" + bytes(8) + b"\xff\xff\xff\x7f"),
        "cut off",
    ),
    "a damaged list, packed": (
        changed(container(GOOD, method=zipfile.ZIP_DEFLATED), b"data.pkl", b"data.pkl\xff\xff\xff", 1),
        "cut off",
    ),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_zip_files_that_are_no_checkpoint(tmp_path, kind):
    content, said = CONTAINERS[kind]
    assert said in refusal(tmp_path / "model.ckpt", content)


def zip64():
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for member, content in (("model/data.pkl", GOOD), ("model/data/0", bytes(range(24)))):
            with archive.open(member, "w", force_zip64=True) as stream:
                stream.write(content)
    return held.getvalue()


ACCEPTED = {
    "packed": container(GOOD, method=zipfile.ZIP_DEFLATED),
    # the numbers of three of them lie across their dtype's steps
    **{f"in a folder of {count}": container(GOOD, folder="m" * count) for count in (1, 2, 3, 4)},
    "without the order of bytes": container(GOOD, order=None),
    "of 64 bits": zip64(),
    "with other things": beside("__MACOSX/archive/._data.pkl", "../../etc/passwd", "archive/data/../0"),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_zip_files_of_other_programs(tmp_path, kind):
    path = tmp_path / "model.ckpt"
    path.write_bytes(ACCEPTED[kind])
    assert attempt(path) == ({"a": (2, 3)}, "")
    wanted = torch.frombuffer(bytearray(range(24)), dtype=torch.float32).reshape(2, 3)
    found = open_weights(path)["a"]
    assert torch.equal(found, wanted) and found.data_ptr() % 4 == 0
