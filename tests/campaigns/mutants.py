"""Files that no loader should trust: each kind is a function that writes one below a folder and returns its path.

Every kind gets (rng, source, stem, folder); `stem` is in the name of whatever it makes.
"""

import json
import os
import struct

from kinetograph.tests.campaigns.sources import pack

HEAD_KEPT = 4096  # bytes of data that byte mutations may reach behind the header
ODD_NUMBERS = (-5, 0, 0.5, 1e400, float("nan"), 10**9, 2**63, 10**40, -1, 10**4200)
ODD_VALUES = (*ODD_NUMBERS, None, True, "", "226", "x" * 5000, [], {}, [1, 2, 3], {"a": {}}, "\x00\x1b[31m")
KINDS = {}


def kind(make):
    """Register a kind of mutant under its function's name."""
    KINDS[make.__name__] = make
    return make


def file_of(folder, stem):
    return folder / f"{stem}.safetensors"


def _bytes(source):
    return bytearray(pack(source.header) + bytes(HEAD_KEPT))


def _write_bytes(source, path, head):
    """Changed bytes, and the rest of the data as a hole."""
    return source.write(path, bytes(head), max(0, source.size - HEAD_KEPT))


# Bytes


@kind
def cut(rng, source, stem, folder):
    path = source.write(file_of(folder, stem))
    os.truncate(path, rng.choice([rng.randrange(path.stat().st_size), rng.randrange(1, 64)]))
    return path


@kind
def longer(rng, source, stem, folder):
    return source.write(file_of(folder, stem), size=source.size + rng.choice([1, 7, 4096, 10**6]))


@kind
def bits(rng, source, stem, folder):
    head = _bytes(source)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        head[rng.randrange(len(head) - HEAD_KEPT)] ^= 1 << rng.randrange(8)
    return _write_bytes(source, file_of(folder, stem), head)


@kind
def length(rng, source, stem, folder):
    odd = rng.choice([0, 1, 2**63, 2**64 - 1, 100_000_001, rng.randrange(2**64), rng.randrange(2**20)])
    return _write_bytes(source, file_of(folder, stem), struct.pack("<Q", odd) + _bytes(source)[8:])


@kind
def noise(rng, source, stem, folder):
    head = _bytes(source)
    start, many = rng.randrange(len(head)), rng.randrange(1, 400)
    head[start : start + many] = rng.randbytes(many)
    return _write_bytes(source, file_of(folder, stem), head)


@kind
def moved(rng, source, stem, folder):
    head = _bytes(source)
    start, many = rng.randrange(len(head)), rng.randrange(1, 200)
    block = head[start : start + many]
    del head[start : start + many]
    place = rng.randrange(len(head))
    head[place:place] = block * rng.choice([1, 2])
    return _write_bytes(source, file_of(folder, stem), head)


# The header's words


def _respelled(source, path, header):
    return source.write(path, pack(header))


def _entry(rng, source):
    header = source.copy()
    return header, header[rng.choice(source.keys)]


@kind
def dtype(rng, source, stem, folder):
    header, entry = _entry(rng, source)
    entry["dtype"] = rng.choice(["F4", "I64", "BOOL", "F64", "F8_E4M3", "U8", "", None, 7, [], "F32\n" * 300])
    return _respelled(source, file_of(folder, stem), header)


@kind
def all_dtypes(rng, source, stem, folder):
    """Whole weights of another dtype of the same size."""
    header, word = source.copy(), rng.choice(["I32", "U32", "I16", "BF16"])
    for key in source.keys:
        header[key]["dtype"] = word
    return _respelled(source, file_of(folder, stem), header)


@kind
def shape(rng, source, stem, folder):
    header, entry = _entry(rng, source)
    odd = [[], [0], [-1], ["2"], [1.5], [2**63], [10**30], [2**32, 2**32], None, 3, {}, [[1]], [1] * 500]
    entry["shape"] = rng.choice([*odd, entry["shape"][::-1], [*entry["shape"], 1], [1, *entry["shape"]]])
    return _respelled(source, file_of(folder, stem), header)


@kind
def misshapen(rng, source, stem, folder):
    """Offsets and shapes that agree with each other, and with nothing else: emptied, flat, transposed."""
    keys = rng.sample(source.keys, min(len(source.keys), rng.choice([1, 1, 3])))
    way = rng.choice(["empty", "flat", "turned", "scalar", "row"])
    header, end = source.copy(), 0
    for key in source.keys:
        entry = header[key]
        low, high = source.header[key]["data_offsets"]
        size, old = high - low, entry["shape"]
        if key in keys:
            count = max(1, _product(old))
            entry["shape"] = {
                "empty": [0, *old[1:]], "flat": [count], "turned": old[::-1], "scalar": [], "row": [1, *old],
            }[way]  # fmt: skip
            size = size // count * _product(entry["shape"])
        entry["data_offsets"] = [end, end + size]
        end += size
    return source.write(file_of(folder, stem), pack(header), end)


def _product(lengths):
    total = 1
    for one in lengths:
        total *= one
    return total


@kind
def relative_bias(rng, source, stem, folder):
    """The one table of T5 that is easily stored the wrong way round."""
    header, end = source.copy(), 0
    for key in source.keys:
        low, high = source.header[key]["data_offsets"]
        size = high - low
        if "relative_attention_bias" in key:
            old = header[key]["shape"]
            header[key]["shape"] = rng.choice(
                [old[::-1], [old[0], 0], [0, old[1]], [old[0] * 2, old[1] // 2]]
            )
            size = size // _product(old) * _product(header[key]["shape"])
        header[key]["data_offsets"] = [end, end + size]
        end += size
    return source.write(file_of(folder, stem), pack(header), end)


@kind
def offsets(rng, source, stem, folder):
    header, entry = _entry(rng, source)
    low, high = entry["data_offsets"]
    odd = [
        [high, low],
        [low + 1, high + 1],
        [-1, high],
        [0, 2**63],
        [low],
        [low, high, 0],
        None,
        "0",
        [low, None],
    ]
    entry["data_offsets"] = rng.choice([*odd, [0, high - low], [low, high + 4], [float(low), high]])
    return _respelled(source, file_of(folder, stem), header)


@kind
def entries(rng, source, stem, folder):
    header = source.copy()
    key = rng.choice(source.keys)
    odd = [None, [], 5, "F32", {}, {"dtype": "F32"}, {**header[key], "more": 1}]
    header[key] = rng.choice(odd)
    return _respelled(source, file_of(folder, stem), header)


@kind
def metadata(rng, source, stem, folder):
    odd = [
        None,
        [],
        5,
        {"config": 5},
        {"config": None},
        {"a": {"b": "c"}},
        {"format": "tf"},
        {"x": "y" * 10**6},
    ]
    odd += [
        {"config": rng.choice(["[]", "5", "null", "{", "NaN", "", '{"a": 1}', "9" * 4300, "[" * 100_000])}
    ]
    odd += [
        {"config": "{" + '"a":{' * 50_000},
        {"\x00\x1b[2J": "\n" * 500},
        {"config": '{"a": ' + "9" * 5000 + "}"},
    ]
    return _respelled(source, file_of(folder, stem), {**source.copy(), "__metadata__": rng.choice(odd)})


@kind
def embedded_config(rng, source, stem, folder):
    """The settings that travel in a single file, one or more of them odd."""
    header = source.copy()
    config = source.config or json.loads(header.get("__metadata__", {}).get("config", "{}"))
    header["__metadata__"] = {"config": json.dumps(odd_settings(rng, config))}
    return _respelled(source, file_of(folder, stem), header)


def odd_settings(rng, config):
    changed = dict(config) or {"num_frames": 1, "head_dim": 64, "width": 64}
    for name in rng.sample(list(changed), min(len(changed), rng.choice([1, 1, 1, 2, 5]))):
        value = changed[name]
        if isinstance(value, list) and value and rng.random() < 0.5:
            value = list(value)
            value[rng.randrange(len(value))] = rng.choice(ODD_VALUES)
            changed[name] = value
        else:
            changed[name] = rng.choice(ODD_VALUES)
    return changed


# Its keys


def _rekeyed(rng, source, stem, folder, rename, share=None):
    chosen = set(source.keys if share is None else rng.sample(source.keys, min(len(source.keys), share)))
    header = {rename(key) if key in chosen else key: entry for key, entry in source.copy().items()}
    return _respelled(source, file_of(folder, stem), header)


@kind
def prefixed(rng, source, stem, folder):
    words = [
        "_orig_mod.",
        "module.",
        "transformer.",
        "model.",
        "net.",
        "pipe.transformer.",
        "a.b.c.",
        "..",
        " ",
    ]
    words += ["model.diffusion_model.", "vae.", "first_stage_model."]
    start = rng.choice(words) + rng.choice(["", "", rng.choice(words)])
    return _rekeyed(rng, source, stem, folder, lambda key: start + key)


@kind
def renamed(rng, source, stem, folder):
    odd = ["", "\x00", "a\nb", "\x1b[31mred", "\u202eder", "été", ".", "__metadata__2", "x" * 10**6, "'\"<b>"]
    word = rng.choice(odd)
    return _rekeyed(rng, source, stem, folder, lambda key: word, 1)


@kind
def control_keys(rng, source, stem, folder):
    word = rng.choice(["\n", "\x1b[31m", "\x00", "\u202e", "\x7f", "\u2028"])
    return _rekeyed(rng, source, stem, folder, lambda key: key + word, rng.choice([1, 5, 10**6]))


@kind
def numbered(rng, source, stem, folder):
    number = rng.choice(["999999999", "-1", "9" * 4301, "1e9", "٣", "00", "9" * 30, "10"])
    return _rekeyed(
        rng, source, stem, folder,
        lambda key: ".".join(number if part.isdecimal() else part for part in key.split(".")),
        rng.choice([1, 1, 10**6]),
    )  # fmt: skip


@kind
def dropped(rng, source, stem, folder):
    header = source.copy()
    for key in rng.sample(source.keys, rng.choice([1, 1, 5, len(source.keys) // 2, len(source.keys)])):
        del header[key]
    return _repacked(source, file_of(folder, stem), header)


def _repacked(source, path, header):
    """Offsets without gaps, as the format wants them."""
    end = 0
    for key, entry in header.items():
        if key != "__metadata__":
            low, high = entry["data_offsets"]
            entry["data_offsets"] = [end, end := end + high - low]
    return source.write(path, pack(header), end)


@kind
def added(rng, source, stem, folder):
    header = source.copy()
    for number in range(rng.choice([1, 1, 50, 20_000])):
        header[rng.choice(["mystery.", "blocks.", ""]) + str(number)] = {
            "dtype": "F32", "shape": [0], "data_offsets": [source.size] * 2,
        }  # fmt: skip
    return _respelled(source, file_of(folder, stem), header)


@kind
def doubled(rng, source, stem, folder):
    key = rng.choice(source.keys)
    text = json.dumps(source.header)
    return source.write(
        file_of(folder, stem), pack(text[:-1] + f", {json.dumps(key)}: {json.dumps(source.header[key])}}}")
    )


@kind
def deep(rng, source, stem, folder):
    many = rng.choice([100, 2000, 200_000])
    return source.write(file_of(folder, stem), pack('{"a":' * many + "1" + "}" * many))
