"""Torch checkpoints: read as torch reads them, mapped from disk, and only their small part for a header."""

import json
import os
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kinetograph.modules import doctor
from kinetograph.modules.families.animatediff import MOTION_MODULE
from kinetograph.modules.families.animatediff.releases import RELEASES
from kinetograph.modules.weights import pickles, unpickling
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import open_weights, read_header
from kinetograph.modules.weights.shards import PICKLED
from kinetograph.tests import motion_files
from kinetograph.tests.checkpoints import BY_NAME, write_sparse, write_sparse_ckpt
from kinetograph.tests.modules.test_weights_files import resident

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}


def noise(*shape, dtype=torch.float32):
    """Any bits, so that numbers that are none come with them."""
    generator = torch.Generator().manual_seed(len(shape))
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(256, (size,), dtype=torch.uint8, generator=generator).view(dtype).reshape(shape)


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def check_same(found, wanted):
    assert {*found} == {*wanted}
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype and found[key].shape == tensor.shape, key
        assert torch.equal(bits(found[key]), bits(tensor)), key
        assert found[key].is_contiguous() and not found[key].requires_grad, key


def every_kind():
    """Every dtype, view and wrapper of a tensor that torch.save writes as one."""
    whole = noise(6, 8)
    weights = {word: noise(3, 5, dtype=dtype) for word, dtype in DTYPES.items()}
    weights |= {
        "BOOL": noise(9, dtype=torch.uint8) > 100,
        "whole": whole,
        "shared": whole,
        "transposed": whole.t(),
        "a row": whole[3],
        "a column": whole[:, 2],
        "a window": whole[1:5, 2:7:2],
        "a parameter": nn.Parameter(noise(4, 2)),
        "a parameter of a view": nn.Parameter(noise(4, 2).t()),
        "channels last": noise(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half, transposed": noise(5, 7, dtype=torch.float16).permute(1, 0),
        "a number": torch.tensor(7.5),
        "nothing": torch.empty(0, 3),
        "an axis more": noise(4)[None].expand(1, 4),
        "repeated": noise(4)[:, None].expand(4, 9),
        "name with ü and \\": noise(2),
    }
    return weights


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_wrote_is_read_as_torch_reads_it(tmp_path, protocol):
    path, saved = tmp_path / "model.ckpt", OrderedDict(every_kind())
    torch.save(saved, path, pickle_protocol=protocol)
    # torch's own safe reader knows protocols 2 and 3
    wanted = torch.load(path, weights_only=True) if protocol < 4 else saved
    check_same(open_weights(path), wanted)
    header = read_header(path)
    assert header.shapes == {key: tuple(tensor.shape) for key, tensor in wanted.items()}
    words = {str(dtype): word for word, dtype in DTYPES.items()} | {"torch.bool": "BOOL"}
    assert header.dtypes == {key: words[str(tensor.dtype)] for key, tensor in wanted.items()}
    assert (header.name, header.metadata, header.settings) == ("model.ckpt", {}, None)


def test_a_module_and_its_versions(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    torch.save(module.state_dict(), tmp_path / "module.pth")
    check_same(open_weights(tmp_path / "module.pth"), module.state_dict())


WEIGHTS = {"a.weight": noise(3, 4), "a.bias": noise(3)}
BESIDE = {
    "epoch": 3,
    "global_step": 4.5,
    "animatediff_config": {"name": "x", "sizes": [1, (2, None)], 3: {"deep": True}},
    "optimizer": {"state": {0: {"exp_avg": noise(3)}}, "step": torch.tensor(3)},
}
WRAPPED = {
    "plain": {**WEIGHTS, "animatediff_config": BESIDE["animatediff_config"], "epoch": 1},
    "state_dict": {"state_dict": WEIGHTS, **BESIDE},
    "controlnet": {"controlnet": OrderedDict(WEIGHTS), **BESIDE},
    "parallel": {f"module.{key}": tensor for key, tensor in WEIGHTS.items()},
    "all of them": {
        "state_dict": {"controlnet": {f"module.{key}": WEIGHTS[key] for key in WEIGHTS}},
        **BESIDE,
    },
    "nested": {"a": {"weight": WEIGHTS["a.weight"], "bias": WEIGHTS["a.bias"], "step": 3}, "epoch": 3},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_lies_around_the_weights_does_no_harm(tmp_path, kind):
    torch.save(WRAPPED[kind], tmp_path / "model.pt")
    assert list(read_header(tmp_path / "model.pt").shapes) == list(WEIGHTS)
    check_same(open_weights(tmp_path / "model.pt"), WEIGHTS)


def test_some_tensors_alone(tmp_path):
    torch.save(WEIGHTS, tmp_path / "model.pt")
    check_same(open_weights(tmp_path / "model.pt", ["a.bias"]), {"a.bias": WEIGHTS["a.bias"]})


def test_a_name_does_not_decide_what_a_file_is(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.ckpt")
    torch.save(WEIGHTS, tmp_path / "model.safetensors")
    for path in tmp_path.iterdir():
        check_same(open_weights(path), WEIGHTS)


@pytest.fixture
def bytes_read(monkeypatch):
    """How much of torch checkpoints is read, beside what is mapped."""
    counted, original = [], pickles._SmallReads.read

    def read(self, size=-1):
        content = original(self, size)
        counted.append(len(content))
        return content

    monkeypatch.setattr(pickles._SmallReads, "read", read)
    return counted


def test_a_header_reads_the_small_part_alone(tmp_path, bytes_read, capsys):
    path = write_sparse_ckpt(
        tmp_path / "svd_xt.ckpt", BY_NAME["svd-xt"].shapes, "F16", "state_dict", {"epoch": 1}
    )
    assert abs(path.stat().st_size / 4_782_000_000 - 1) < 0.01
    os.utime(path, (0, 0))  # long there: its header is read once
    start = time.process_time()
    assert doctor.main([str(path)]) == 0
    assert time.process_time() - start < 3
    assert "Complete: SVD UNet" in capsys.readouterr().out
    # of 4.8 GB: 2446 names in the list of tensors and as many in the directory
    assert 0 < sum(bytes_read) < 2**20


# spec: releases; of v1 no size is published
KEYS = {"v1": 560, "v2": 588, "v3": 560, "SDXL beta": 420, "AnimateLCM": 546}


@pytest.mark.parametrize("version", KEYS)
def test_motion_modules_of_the_published_shapes(tmp_path, version, capsys):
    """As the `.ckpt` that was published and as a safetensors file of the same keys."""
    shapes = MOTION_MODULE.shapes(motion_files.PUBLISHED[version])
    paths = [
        write_sparse_ckpt(tmp_path / "mm.ckpt", shapes),
        write_sparse(tmp_path / "mm.safetensors", shapes, "F32"),
    ]
    releases = [
        release for release in RELEASES if release.variant == version and release.file.endswith(".ckpt")
    ]
    headers = [read_header(path) for path in paths]
    assert releases and headers[0].shapes == headers[1].shapes and headers[0].dtypes == headers[1].dtypes
    for path, header in zip(paths, headers, strict=True):
        assert len(header.shapes) == KEYS[version] and header.dtype == "float32"
        for release in releases:
            assert release.bytes is None or abs(path.stat().st_size / release.bytes - 1) < 0.01
        assert path.stat().st_blocks * 512 < 2**23
        assert doctor.main([str(path)]) == 0
        assert f"Complete: AnimateDiff {version}" in capsys.readouterr().out
        assert sum(tensor.nbytes for tensor in open_weights(path).values()) == 4 * header.parameters


def test_weights_are_mapped(tmp_path):
    path = write_sparse_ckpt(tmp_path / "mapped.ckpt", {f"w{i}": (256, 2**20) for i in range(2)}, "F16")
    before = resident()
    weights = open_weights(path)
    assert sum(tensor.nbytes for tensor in weights.values()) == 2**30
    weights["w0"][0, :3] = 1
    assert resident() - before < 100 * 2**20
    # what is written to a weight stays in memory, as with safetensors
    assert open_weights(path)["w0"][0, :3].tolist() == [0, 0, 0]


def test_a_lora_is_examined_as_ever(tmp_path, capsys):
    shapes = {
        key: shape
        for key, shape in BY_NAME["cogvideox-5b"].shapes.items()
        if len(shape) == 2 and "attn1" in key
    }
    halves = {}
    for key, (rows, columns) in shapes.items():
        stem = "transformer." + key.removesuffix(".weight")
        halves |= {f"{stem}.lora_A.weight": (4, columns), f"{stem}.lora_B.weight": (rows, 4)}
    reports = []
    for path in (
        write_sparse(tmp_path / "x.safetensors", halves),
        write_sparse_ckpt(tmp_path / "x.pt", halves, "BF16"),
    ):
        assert doctor.main([str(path), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1] and reports[0]["matched"] == len(halves)


def test_a_file_under_a_name_that_is_no_text(tmp_path):
    path = tmp_path / "caf\udce9.ckpt"
    torch.save(WEIGHTS, tmp_path / "a.ckpt")
    (tmp_path / "a.ckpt").rename(path)
    with pytest.raises(CheckpointError, match="a name that is no text"):
        read_header(path)


def test_other_things_under_a_torch_checkpoints_name(tmp_path):
    path = tmp_path / "model.ckpt"
    for content, said in (
        (b"", "an empty file"),
        (b"<html>", "an HTML page"),
        (b"x" * 50, "nor a torch checkpoint"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            read_header(path)
    with pytest.raises(CheckpointError, match=r"gone\.ckpt is not there"):
        read_header(tmp_path / "gone.ckpt")


def test_what_the_documents_say_of_pickles():
    """SECURITY.md lists what the reader knows, and README the suffixes; neither speaks of a loader of torch."""
    security, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("SECURITY.md", "README.md"))
    known = [".".join(call.value) for call in unpickling.Call]
    assert "ten kinds of storages" in security and len(unpickling.STORAGES) == 10
    assert len(unpickling.GLOBALS) == len(known) + 10
    for words in (*known[:2], known[2].rpartition(".")[2], "without `torch.load`"):
        assert words in security
    for suffix in PICKLED:
        assert f"`{suffix}`" in security and f"`{suffix}`" in readme
    assert "weights_only" not in security + readme
