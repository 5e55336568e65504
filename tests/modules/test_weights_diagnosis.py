"""What must not be opened, and what files say about themselves: never waited for, escaped and cut to size."""

import errno
import io
import json
import os
import stat
import struct
import sys
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.doctor import examine, main
from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights import pickles
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.diagnosis import diagnose
from kinetograph.modules.weights.errors import CheckpointError, unreadable
from kinetograph.modules.weights.files import open_weights, read_header
from kinetograph.modules.weights.shards import read_json
from kinetograph.tests.checkpoints import BY_NAME, header, remember_shapes, write_sparse

LONGEST = 2_000  # characters of a message
WEIGHTS = {"a.weight": torch.ones(2)}
SPECIAL = {"a pipe": stat.S_IFIFO, "a socket": stat.S_IFSOCK, "a device": None, "a folder": stat.S_IFDIR}


def put(path, kind):
    """Something that is no regular file under a file's name."""
    path.unlink(missing_ok=True)
    if kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    else:
        os.mknod(path, SPECIAL[kind] | 0o600)
    return path


def assert_legible(message):
    assert len(message) < LONGEST and message.isprintable(), message[:LONGEST]


def complaint(function, *arguments):
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    assert_legible(str(caught.value))
    return str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
def test_what_is_no_regular_file_is_never_opened(tmp_path, kind):
    weights = put(tmp_path / "x.safetensors", kind)
    for function in (read_header, open_weights, examine):
        assert f"x.safetensors is {kind}, not a file with weights" in complaint(function, weights)
    assert kind in diagnose(weights)
    assert main([str(weights)]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device", "a folder"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "model-2.safetensors"])
def test_what_lies_beside_weights_is_never_opened_either(tmp_path, name, kind):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    if name.startswith("model-2"):
        weight_map = {"a.weight": "model.safetensors", "b": name}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    put(tmp_path / name, kind)
    assert f"{name} is {kind}, not a" in complaint(read_header, tmp_path)


def test_a_link_to_nothing_and_links_in_a_circle(tmp_path):
    (tmp_path / "x.safetensors").symlink_to(tmp_path / "gone.safetensors")
    assert "is a link to something that is not there" in complaint(read_header, tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").symlink_to(tmp_path / "y.safetensors")
    assert "links lead in a circle" in complaint(read_header, tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    "code", [errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ESTALE, errno.EBUSY, None]
)
def test_the_systems_refusals_are_told_in_our_words(tmp_path, code):
    message = str(unreadable(tmp_path / "x.safetensors", OSError(code, "SYSTEM", str(tmp_path))))
    assert message.startswith("x.safetensors cannot be read: ") and message.endswith(".")
    assert "SYSTEM" not in message and str(tmp_path) not in message


def write(path, keys, metadata=None):
    """A safetensors file with one number under each key, whatever the key."""
    entries = {
        key: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, key in enumerate(keys)
    }
    if metadata:
        entries["__metadata__"] = metadata
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * len(keys)))
    return path


DEEP = "[" * 100_000
HUGE = "9" * 4300


@pytest.mark.parametrize("config", [DEEP, '{"a":' * 50_000, HUGE, f'{{"patch_size": {HUGE}}}', "9" * 100_000])
def test_endless_settings_in_the_metadata_are_not_settings(tmp_path, config):
    path = write(tmp_path / "x.safetensors", ["a"], {"config": config})
    assert read_header(path).settings is None
    assert_legible(detect(read_header(path), FAMILIES).complaint())


@pytest.mark.parametrize("text", [DEEP, HUGE, f'{{"patch_size": {HUGE}}}', f'{{"a": -{"9" * 5000}}}'])
def test_endless_settings_in_a_file_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in complaint(read_json, tmp_path / "config.json")


STRANGE_KEYS = ["k" * 2**20, "\x1b[2J\r\n\0key", "‮gnp.exe", "blocks." + "9" * 5000 + ".weight", "𝕏" * 300_000]


@pytest.mark.parametrize("key", STRANGE_KEYS, ids=range(len(STRANGE_KEYS)))
def test_strange_keys_are_escaped_and_cut_wherever_they_are_told(tmp_path, key, capsys):
    path = write(tmp_path / "x.safetensors", [key])
    assert_legible(detect(read_header(path), FAMILIES).complaint())
    assert main([str(path)]) == 1
    for line in capsys.readouterr().out.splitlines():
        assert_legible(line)
    write(tmp_path / "x-00001-of-00002.safetensors", [key])
    write(tmp_path / "x-00002-of-00002.safetensors", [key])
    assert "is in more than one of its files" in complaint(
        read_header, tmp_path / "x-00001-of-00002.safetensors"
    )
    index = tmp_path / "y.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: "x.safetensors", key + "2": "x.safetensors"}}))
    assert "names 1 keys that its files do not hold" in complaint(read_header, index)
    index.write_text(json.dumps({"weight_map": {"a": key.replace("\0", "") + ".safetensors"}}))
    assert "1 are not there" in complaint(read_header, index)


def test_settings_and_shapes_are_cut_in_complaints():
    encoder = BY_NAME["svd-diffusers-image-encoder"].shapes
    settings = {"hidden_act": "\x1b" * 2**20, "hidden_size": 1280}
    assert_legible(detect(header(encoder, settings=settings), FAMILIES).complaint())
    shapes = {**encoder, "visual_projection.weight": (1,) * 100_000}
    assert_legible(detect(header(shapes), FAMILIES).complaint())


@pytest.mark.parametrize("number", ["9" * 400, "0" * 300 + "9" * 9])
def test_a_block_with_an_endless_number(number):
    shapes = dict(BY_NAME["cogvideox-1.5-5b-i2v-comfy-2-blocks"].shapes)
    shapes[f"model.diffusion_model.blocks.{number}.q.weight"] = (64, 64)
    finding = detect(header(shapes), FAMILIES)
    assert "more than there are keys" in finding.complaint()
    assert_legible(finding.complaint())


PYTHONS_WORDS = ("unpack", "tuple", "index", "list", "NoneType", "literal", "operand", "zero")


@pytest.mark.parametrize("shape", [(), (4,), (0, 0)], ids=str)
@pytest.mark.parametrize("name", ["t5-v1_1-xxl-encoder", "svd-diffusers-image-encoder", "cogvideox-2b"])
def test_shapes_of_other_lengths_are_no_words_of_python(name, shape, monkeypatch):
    remember_shapes(monkeypatch)
    listed = BY_NAME[name]
    family = next(family for family in FAMILIES if family.id == listed.family)
    plain = detect(header(listed.shapes), FAMILIES).renames
    telling = [key for key, ours in plain.items() if ours in family.parts[listed.kind].signature]
    assert len(telling) > 2
    for key in telling:
        finding = detect(header({**listed.shapes, key: shape}), FAMILIES)
        assert not finding.complete
        assert not [word for word in PYTHONS_WORDS if word in finding.complaint()], finding.complaint()


@pytest.mark.parametrize("end", ["9" * 4300, "1e300", "-5", "true", '"5"', "null", str(2**63)])
def test_offsets_without_measure_are_a_damaged_header(tmp_path, end):
    path = tmp_path / "x.safetensors"
    text = f'{{"a": {{"dtype": "F32", "shape": [1], "data_offsets": [0, {end}]}}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert "damaged header" in complaint(read_header, path) or end == "true"


@pytest.mark.parametrize("size", ["²", "9" * 5000, "-1", ""])
def test_a_pointer_with_a_strange_size(tmp_path, size):
    path = tmp_path / "x.safetensors"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\nsize {size}\n", encoding="utf-8")
    assert "git-LFS pointer, not" in complaint(read_header, path)


def test_a_zip_with_a_huge_directory_is_not_read(tmp_path):
    """70,000 entries, 20 MB of names: what they hold is not worth the memory."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    whole = content.getvalue()
    end = whole.rindex(b"PK\5\6")
    start = struct.unpack("<L", whole[end + 16 : end + 20])[0]
    entry = bytearray(whole[start:end])
    name = b"n" * 250
    entry[28:30] = struct.pack("<H", len(name))
    directory = (bytes(entry[:46]) + name) * 70_000
    tail = bytearray(whole[end:])
    tail[8:12] = struct.pack("<HH", 65535, 65535)
    tail[12:20] = struct.pack("<LL", len(directory), start)
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole[:start] + directory + tail)
    assert len(directory) > 4 * pickles.READ_BYTES
    begun = time.process_time()
    assert "pickle file" in complaint(read_header, path)
    assert time.process_time() - begun < 0.1


def test_the_doctor_and_an_unreadable_neighbour(tmp_path, monkeypatch):
    """A folder of another user beside a pipeline's parts: the parts are told; alone it is an error in words."""
    for name in ("vae", "lost+found"):
        (tmp_path / name).mkdir()
    write_sparse(tmp_path / "vae" / "model.safetensors", BY_NAME["cogvideox-vae"].shapes)
    listed = os.listdir

    def refuse(folder):
        if os.fspath(folder).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    assert examine(tmp_path).complete
    assert "lost+found cannot be read: ComfyUI may not read it" in complaint(examine, tmp_path / "lost+found")
