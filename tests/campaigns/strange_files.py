"""What else may lie under a checkpoint's name: other formats, pipes, devices, links, folders, odd names.

Kinds of mutants as in `mutants`; nothing here is ever opened by the program that writes it.
"""

import io
import json
import os
import pickle
import shutil
import socket
import stat
import struct
import zipfile

from kinetograph.tests.campaigns.mutants import file_of, kind, odd_settings

# Other things under a checkpoint's name


@kind
def other_format(rng, source, stem, folder):
    page = b"<!DOCTYPE html><html>404</html>"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize "
    odd = [
        b"",
        b"\x00",
        b"{}",
        b"\xff" * 300,
        page,
        b"  \n" + page,
        b"<?xml version='1.0'?>",
        b"GGUF" + bytes(60),
    ]
    odd += [
        pointer + b"5\n",
        pointer + b"9" * 5000 + b"\n",
        pointer + b"-1\n",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
    ]
    odd += [b"\x1f\x8b\x08" + rng.randbytes(100), rng.randbytes(rng.randrange(1, 5000)), b"hello\n" * 50]
    path = file_of(folder, stem)
    path.write_bytes(rng.choice(odd))
    return path


@kind
def pickled(rng, source, stem, folder):
    protocol = rng.randrange(6)
    made = [{"state_dict": 1}, b"x" * 10_000, [1, 2, {"a": stat.S_IFIFO}], print, io.BytesIO, "é" * 100]
    content = pickle.dumps(rng.choice(made), protocol)
    content = content[: rng.choice([len(content), rng.randrange(len(content) + 1)])]
    path = file_of(folder, stem)
    path.write_bytes(content + rng.choice([b"", b"\x80\x04." * 3, rng.randbytes(200)]))
    return path


@kind
def zipped(rng, source, stem, folder):
    path = file_of(folder, stem)
    with zipfile.ZipFile(path, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        names = ["archive/data.pkl", "readme.txt", "../up/data.pkl", "a\nb/data.pkl", "é/data.pkl"]
        content = pickle.dumps({"w": print}, 2) if rng.random() < 0.7 else bytes(5 * 10**6)
        archive.writestr(rng.choice(names), content)
    damaged = bytearray(path.read_bytes())
    for _ in range(rng.choice([0, 1, 20])):
        damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
    path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(4, len(damaged))])])
    return path


@kind
def crowded_zip(rng, source, stem, folder):
    """A small archive whose directory is huge."""
    path = file_of(folder, stem)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    record, many = content[start:end], rng.choice([10_000, 200_000])
    tail = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, min(many * len(record), 2**32 - 1), start, 0
    )
    path.write_bytes(content[:start] + record * many + tail)
    return path


@kind
def hole(rng, source, stem, folder):
    path = file_of(folder, stem)
    with path.open("wb") as stream:
        stream.truncate(rng.choice([1, 100, 2**20, 2**31, 2**36]))
    return path


# What is no file


@kind
def fifo(rng, source, stem, folder):
    path = file_of(folder, stem)
    os.mkfifo(path)
    return path


@kind
def local_socket(rng, source, stem, folder):
    path = file_of(folder, stem)
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)
    return path


@kind
def device(rng, source, stem, folder):
    path, numbers = (
        file_of(folder, stem),
        rng.choice([(1, 3), (1, 5), (1, 7), (1, 9)]),
    )  # null, zero, full, urandom
    try:
        os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(*numbers))
    except PermissionError:
        path.symlink_to(rng.choice(["/dev/null", "/dev/zero", "/dev/full"]))
    return path


@kind
def link(rng, source, stem, folder):
    path = file_of(folder, stem)
    odd = [
        path.name,
        "nowhere.safetensors",
        "/dev/zero",
        "/dev/tty",
        ".",
        "..",
        "/proc/self/mem",
        "/proc/self/exe",
    ]
    path.symlink_to(rng.choice(odd))
    return path


@kind
def link_to_fifo(rng, source, stem, folder):
    os.mkfifo(folder / f"{stem}-pipe")
    path = file_of(folder, stem)
    path.symlink_to(f"{stem}-pipe")
    return path


@kind
def directory(rng, source, stem, folder):
    path = file_of(folder, stem)
    path.mkdir()
    for name in rng.sample(
        ["readme.md", "config.json", "x.bin", "a.safetensors", ".hidden"], rng.randrange(4)
    ):
        (path / name).write_bytes(rng.choice([b"", b"{}", b"x" * 50]))
    return path


@kind
def unreadable(rng, source, stem, folder):
    path = source.write(file_of(folder, stem))
    path.chmod(0)
    return path


# Folders of one component


def _component(source, stem, folder, config):
    """A folder with good weights and some config.json: bytes, or an object."""
    path = folder / stem
    path.mkdir()
    source.write(path / "diffusion_pytorch_model.safetensors")
    content = config if isinstance(config, bytes) else json.dumps(config).encode()
    (path / "config.json").write_bytes(content)
    return path


@kind
def odd_config(rng, source, stem, folder):
    return _component(source, stem, folder, odd_settings(rng, source.config))


@kind
def lacking_config(rng, source, stem, folder):
    kept = dict(source.config)
    for name in rng.sample(list(kept), rng.randrange(len(kept) + 1)):
        del kept[name]
    return _component(source, stem, folder, kept)


@kind
def broken_config(rng, source, stem, folder):
    odd = [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ]
    odd += [b"9" * 5000, b'{"a": ' + b"9" * 5000 + b"}", b"\x00" * 100, rng.randbytes(300), b"{}" * 2]
    return _component(source, stem, folder, rng.choice(odd))


@kind
def strange_config(rng, source, stem, folder):
    """A config.json that is no file that can be read."""
    path = _component(source, stem, folder, {})
    (path / "config.json").unlink()
    way = rng.choice(["fifo", "folder", "loop", "zero", "unreadable", "huge"])
    config = path / "config.json"
    if way == "fifo":
        os.mkfifo(config)
    elif way == "folder":
        config.mkdir()
    elif way in ("loop", "zero"):
        config.symlink_to("config.json" if way == "loop" else "/dev/zero")
    else:
        with config.open("wb") as stream:
            stream.truncate(65 * 2**20 if way == "huge" else 2)
        config.chmod(0 if way == "unreadable" else 0o644)
    return path


@kind
def index(rng, source, stem, folder):
    """Two shards and the index over them, spoiled."""
    path = folder / stem
    path.mkdir()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names[: rng.choice([1, 2, 2])]:
        source.write(path / name)
    (path / "config.json").write_text(json.dumps(source.config))
    where = [
        *names,
        "../up.safetensors",
        "/etc/passwd",
        "",
        ".",
        "a/b.safetensors",
        None,
        5,
        [],
        "\x00",
        "x" * 300,
    ]
    content = {
        "weight_map": {key: rng.choice(where if rng.random() < 0.1 else names) for key in source.keys[:40]}
    }
    content = rng.choice(
        [
            content,
            content,
            {"weight_map": []},
            {"weight_map": {}},
            [],
            {"weight_map": {"a": rng.choice(where)}},
        ]
    )
    (path / "model.safetensors.index.json").write_text(json.dumps(content))
    return path


@kind
def closed_folder(rng, source, stem, folder):
    path = _component(source, stem, folder, source.config)
    path.chmod(rng.choice([0, 0o444, 0o111]))
    return path


@kind
def companions(rng, source, stem, folder):
    """What other systems leave beside a good file."""
    path = _component(source, stem, folder, source.config)
    (path / "._diffusion_pytorch_model.safetensors").write_bytes(b"\x00\x05\x16\x07" + bytes(60))
    if rng.random() < 0.5:
        os.mkfifo(path / ".x.safetensors")
    return path


# Names


@kind
def odd_name(rng, source, stem, folder):
    odd = [
        b"\xe9",
        b"\n",
        b"\x1b[31m",
        b" ",
        "日本".encode(),
        b"'\"<b>%s{0}",
        b"x" * 180,
        b"\xff\xfe",
        b"\\",
        b"..",
        b"\x7f",
    ]
    name = stem.encode() + rng.choice(odd) + rng.choice([b".safetensors", b".SAFETENSORS"])
    path = folder / os.fsdecode(name)
    if rng.random() < 0.5:
        return source.write(path)
    path.write_bytes(b"<html>" * 9)
    return path


def remove(path):
    """Take a mutant and its companions away, whatever it is."""
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o755)
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
