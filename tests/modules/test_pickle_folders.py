"""Folders with torch checkpoints: shards, sets beside safetensors files, settings, and which of several files counts."""

import json

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import open_weights, read_header
from kinetograph.modules.weights.shards import component_folders, weight_files
from kinetograph.tests.modules.test_pickles import WEIGHTS, check_same


def split(folder, suffix=".bin", stem="pytorch_model"):
    """Two shards of WEIGHTS with an index, as transformers wrote them."""
    folder.mkdir()
    names = {key: f"{stem}-{i:05}-of-00002{suffix}" for i, key in enumerate(WEIGHTS, 1)}
    for key, name in names.items():
        torch.save({key: WEIGHTS[key]}, folder / name)
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pth"])
def test_shards_of_torch_open_as_those_of_safetensors(tmp_path, suffix):
    folder = split(tmp_path / "text_encoder", suffix)
    (folder / "config.json").write_text('{"num_layers": 2}')
    for path in [folder, *folder.glob("pytorch*")]:
        check_same(open_weights(path), WEIGHTS)
        assert read_header(path).settings == {"num_layers": 2}
    assert component_folders(tmp_path) == {"text_encoder": folder}
    (folder / f"pytorch_model-00002-of-00002{suffix}").unlink()
    with pytest.raises(CheckpointError, match="00002-of-00002"):
        read_header(folder)


def test_beside_safetensors_pickles_do_not_count(tmp_path):
    folder = split(tmp_path / "vae")
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "optimizer.pt").write_bytes(b"x")
    (folder / "config.json").write_text('{"a": 1}')
    assert [file.name for file in weight_files(folder)] == ["model.safetensors"]
    assert read_header(folder).settings == read_header(folder / "model.safetensors").settings == {"a": 1}


def test_settings_are_not_taken_from_a_folder_with_other_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"sample_width": 90}')
    torch.save(WEIGHTS, tmp_path / "model.ckpt")
    assert read_header(tmp_path / "model.ckpt").settings == {"sample_width": 90}
    save_file(WEIGHTS, tmp_path / "model.fp16.safetensors")
    assert read_header(tmp_path / "model.ckpt").settings == {"sample_width": 90}
    save_file(WEIGHTS, tmp_path / "other.safetensors")
    assert read_header(tmp_path / "model.ckpt").settings is None


def test_a_folder_of_several_pickles(tmp_path):
    for name in ("a.ckpt", "a.pth"):
        torch.save(WEIGHTS, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds 2 weight files \(a.ckpt, a.pth\)"):
        read_header(tmp_path)
