"""Weight files on disk: what opens, and what a user reads when it does not."""

import gc
import io
import json
import os
import pickle
import random
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import open_weights, read_header
from kinetograph.modules.weights.shards import component_folders, weight_files
from kinetograph.tests.checkpoints import BY_NAME, header_bytes, write_sparse

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3, dtype=torch.float16)}


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.safetensors"
    save_file(WEIGHTS, path, metadata={"config": json.dumps({"sample_width": 8}), "author": "x"})
    return path


def complaint(path):
    """What a user reads; the header and the weights must be refused alike."""
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    message = str(caught.value)
    with pytest.raises(CheckpointError, match="."):
        open_weights(path)
    assert path.name in message
    assert str(path.parent) not in message, "no absolute path"
    assert "weights_only" not in message
    assert caught.value.__context__ is None or caught.value.__suppress_context__, (
        "no parser's words beside ours"
    )
    return message


def test_header_and_weights_of_one_file(good):
    header = read_header(good)
    assert header.shapes == {"a.weight": (3, 4), "a.bias": (3,)}
    assert header.dtypes == {"a.weight": "F32", "a.bias": "F16"}
    assert (header.name, header.parameters, header.dtype) == ("good.safetensors", 15, "float32")
    assert header.settings == {"sample_width": 8}
    assert header.metadata["author"] == "x"
    weights = open_weights(good)
    assert all(torch.equal(weights[key], WEIGHTS[key]) for key in WEIGHTS)


def test_the_header_of_a_20_gb_file_is_read_at_once(tmp_path):
    shapes = {
        f"{part}.{key}": shape for part in "ab" for key, shape in BY_NAME["cogvideox-5b-i2v"].shapes.items()
    }
    path = write_sparse(tmp_path / "large.safetensors", shapes)
    assert path.stat().st_size > 20e9
    start = time.perf_counter()
    header = read_header(path)
    assert time.perf_counter() - start < 0.5
    assert len(header.shapes) == 2050


def test_weights_are_mapped_not_copied(tmp_path):
    path = write_sparse(tmp_path / "mapped.safetensors", {f"w{i}": (256, 2**20) for i in range(2)}, "F16")
    before = resident()
    weights = open_weights(path)
    assert sum(tensor.nbytes for tensor in weights.values()) == 2**30
    assert resident() - before < 100 * 2**20
    del weights
    gc.collect()


def resident():
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def split(folder, stem="model", index=True):
    """Two shards of WEIGHTS, with the index diffusers writes."""
    folder.mkdir(exist_ok=True)
    names = {key: f"{stem}-{i:05}-of-00002.safetensors" for i, key in enumerate(WEIGHTS, 1)}
    for key, name in names.items():
        save_file({key: WEIGHTS[key]}, folder / name)
    if index:
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


@pytest.mark.parametrize("index", [True, False])
def test_a_sharded_set_opens_as_folder_and_by_any_of_its_files(tmp_path, index):
    folder = split(tmp_path / "transformer", index=index)
    (folder / "config.json").write_text('{"num_layers": 2}')
    for path in [folder, *folder.glob("model*")]:
        assert set(read_header(path).shapes) == set(open_weights(path)) == set(WEIGHTS)
        assert read_header(path).settings == {"num_layers": 2}


def test_a_pipeline_folder_lists_its_components(tmp_path):
    for name in ("transformer", "vae"):
        split(tmp_path / name)
    (tmp_path / "scheduler").mkdir()
    assert set(component_folders(tmp_path)) == {"transformer", "vae"}
    assert "transformer, vae" in complaint(tmp_path)


def test_settings_are_not_taken_from_a_folder_with_other_weights(good):
    (good.parent / "config.json").write_text('{"sample_width": 90}')
    assert read_header(good).settings == {"sample_width": 90}
    save_file(WEIGHTS, good.with_name("other.safetensors"))
    assert read_header(good).settings == {"sample_width": 8}


def test_a_missing_shard_is_named(tmp_path):
    folder = split(tmp_path / "transformer")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002"):
        read_header(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match="one of 2 files, 1 are there"):
        read_header(folder)


def test_an_index_that_promises_more_than_its_files_hold(tmp_path):
    folder = split(tmp_path / "transformer")
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**names, "gone.weight": next(iter(names.values()))}}))
    with pytest.raises(CheckpointError, match=r"gone\.weight"):
        read_header(folder)


@pytest.mark.parametrize(
    "name", ["../good.safetensors", "/etc/passwd", "a\\b.safetensors", 3, None, "", ".."]
)
def test_an_index_cannot_leave_its_folder(good, name):
    folder = good.parent / "transformer"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a.weight": name, "b": "b"}})
    )
    complaint(folder / "model.safetensors.index.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000]
)
def test_a_damaged_index(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    complaint(tmp_path / "model.safetensors.index.json")


def test_folders_without_one_set_of_weights(tmp_path):
    assert "no .safetensors file" in complaint(tmp_path)
    for name in ("a", "b"):
        save_file(WEIGHTS, tmp_path / f"{name}.safetensors")
    assert "2 weight files (a.safetensors, b.safetensors)" in complaint(tmp_path)


def test_cut_off_at_many_lengths(good):
    whole = good.read_bytes()
    path = good.with_name("cut.safetensors")
    header = int.from_bytes(whole[:8], "little") + 8
    for length in {*range(0, 40), *range(40, len(whole), 7), len(whole) - 1}:
        path.write_bytes(whole[:length])
        message = complaint(path)
        if length > 9:
            expected = header if length < header else len(whole)
            assert f"{expected} bytes" in message and f"{length} bytes are there" in message, length
    path.write_bytes(whole + b"more")
    assert f"{len(whole)} bytes are expected, {len(whole) + 4} bytes are there" in complaint(path)


OTHERS = {
    "an empty file": b"",
    "HTML page": b"\n<!DOCTYPE html><html><body>Access to model is restricted</body></html>",
    "an HTML page": b"<html>" + b"x" * 5000,
    "git-LFS pointer to a file of 11140691458 bytes": b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a\nsize 11140691458\n",
    "GGUF": b"GGUF\3\0\0\0" + bytes(64),
    "not a safetensors file": bytes(range(256)) * 8,
    "is not a safetensors": b"\xff" * 100,
    "damaged header": b"\x10\0\0\0\0\0\0\0{" + b"x" * 40,
}


@pytest.mark.parametrize("content", OTHERS)
def test_other_things_under_a_checkpoints_name(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(OTHERS[content])
    assert content in complaint(path)


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors is not there") as caught:
        read_header(tmp_path / "gone.safetensors")
    assert str(tmp_path) not in str(caught.value)


class Canary:
    """Leaves a file behind when somebody unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickles(canary):
    zipped = io.BytesIO()
    torch.save({"state_dict": Canary(canary)}, zipped)
    legacy = io.BytesIO()
    torch.save({"state_dict": Canary(canary)}, legacy, _use_new_zipfile_serialization=False)
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Canary(canary)))
    plain = [pickle.dumps(Canary(canary), protocol) for protocol in (2, 4, 5)]
    return [zipped.getvalue(), legacy.getvalue(), squeezed.getvalue(), *plain]


def test_pickles_are_refused_and_never_run(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "model.safetensors"
    named = 0
    for content in pickles(canary):
        path.write_bytes(content)
        message = complaint(path)
        assert "pickle" in message and "convert it offline" in message
        named += f"{os.mkdir.__module__}.mkdir" in message
        for length in range(3, len(content), max(1, len(content) // 40)):
            path.write_bytes(content[:length])
            complaint(path)
    assert named >= 4, "the foreign call is named wherever it is stored in the open"
    assert not canary.exists()


def test_a_zip_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "zip archive" in complaint(path)


def test_500_mutated_headers_are_refused_in_words_or_read_consistently(tmp_path):
    head, size = header_bytes({f"blocks.{i}.weight": (4, 4) for i in range(4)}, "F32", {"config": '{"a": 1}'})
    path = tmp_path / "mutant.safetensors"
    generator = random.Random(0)
    refused = 0
    for _ in range(500):
        mutant = bytearray(head)
        for _ in range(generator.choice((1, 1, 2, 8))):
            place = generator.randrange(len(mutant))
            action = generator.randrange(3)
            if action == 0:
                mutant[place] = generator.randrange(256)
            elif action == 1:
                del mutant[place]
            else:
                mutant.insert(place, generator.randrange(256))
        path.write_bytes(bytes(mutant) + bytes(size))
        try:
            header = read_header(path)
            assert {key: tuple(tensor.shape) for key, tensor in open_weights(path).items()} == dict(
                header.shapes
            )
        except CheckpointError:
            complaint(path)
            refused += 1
    assert refused > 400


def test_a_dtype_that_torch_does_not_have(tmp_path):
    head, size = header_bytes({"a": (4,)}, "F32")
    path = tmp_path / "model.safetensors"
    path.write_bytes(head.replace(b'"F32"', b'"F99"') + bytes(size))
    assert "unknown dtype" in complaint(path)


def test_a_folder_with_variants_is_its_plain_file(tmp_path):
    """A published SVD folder that was downloaded whole holds the same weights twice."""
    for name in ("model.fp16.safetensors", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds 3 weight files"):
        weight_files(tmp_path)
