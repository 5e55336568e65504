"""Which files belong together, as publishers name them and as disks hold them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import open_weights, read_header
from kinetograph.modules.weights.shards import component_folders, weight_files

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(3)}
STEM = "diffusion_pytorch_model"
# (name of a shard, name of the index) as transformers and diffusers write them, now and formerly
SPELLINGS = {
    "plain": (f"{STEM}-{{:05}}-of-00002.safetensors", f"{STEM}.safetensors.index.json"),
    "fp16": (f"{STEM}.fp16-{{:05}}-of-00002.safetensors", f"{STEM}.safetensors.index.fp16.json"),
    "transformers fp16": ("model.fp16-{:05}-of-00002.safetensors", "model.safetensors.index.fp16.json"),
    "older fp16": (f"{STEM}-{{:05}}-of-00002.fp16.safetensors", f"{STEM}.safetensors.fp16.index.json"),
    "upper case": ("MODEL-{:05}-OF-00002.SAFETENSORS", "MODEL.SAFETENSORS.INDEX.JSON"),
}
COMPANION = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(4072)


def split(folder, spelling, factor=1.0, index=True):
    """Two shards of WEIGHTS times a factor, and their index."""
    folder.mkdir(exist_ok=True)
    shard, index_name = SPELLINGS[spelling]
    names = {key: shard.format(i) for i, key in enumerate(WEIGHTS, 1)}
    for key, name in names.items():
        save_file({key: WEIGHTS[key] * factor}, folder / name)
    if index:
        (folder / index_name).write_text(json.dumps({"weight_map": names}))
    return folder


def accompany(folder):
    """What macOS leaves beside every file on a foreign drive."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        file.with_name("._" + file.name).write_bytes(COMPANION)


def assert_opens(path, factor=1.0):
    assert set(read_header(path).shapes) == set(WEIGHTS)
    weights = open_weights(path)
    assert all(torch.equal(weights[key], WEIGHTS[key] * factor) for key in WEIGHTS)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_shards_opens_as_folder_and_by_any_of_its_files(tmp_path, spelling, index):
    folder = split(tmp_path / "transformer", spelling, index=index)
    (folder / "config.json").write_text('{"num_layers": 2}')
    accompany(folder)
    paths = [folder, *(file for file in folder.glob("[!.]*") if file.name != "config.json")]
    assert len(paths) == 3 + index
    for path in paths:
        assert_opens(path)
        assert read_header(path).settings == {"num_layers": 2}


@pytest.mark.parametrize("variant", ["fp16", "older fp16"])
def test_of_two_precisions_the_plain_one_is_taken_and_the_other_by_its_file(tmp_path, variant):
    folder = split(split(tmp_path / "unet", "plain"), variant, factor=2.0)
    (folder / "config.json").write_text('{"num_layers": 2}')
    shard, index = (name.format(2) for name in SPELLINGS[variant])
    for path, factor in ((folder, 1.0), (folder / shard, 2.0), (folder / index, 2.0)):
        assert_opens(path, factor)
        assert read_header(path).settings == {"num_layers": 2}, "the folder is that of one network"


def test_a_whole_file_beside_its_fp16_twin_keeps_the_folders_settings(tmp_path):
    for name, factor in (("model.safetensors", 1.0), ("model.fp16.safetensors", 2.0)):
        save_file({key: value * factor for key, value in WEIGHTS.items()}, tmp_path / name)
    (tmp_path / "config.json").write_text('{"num_layers": 2}')
    accompany(tmp_path)
    assert_opens(tmp_path)
    assert_opens(tmp_path / "model.fp16.safetensors", 2.0)
    assert read_header(tmp_path).settings == read_header(tmp_path / "model.safetensors").settings
    assert read_header(tmp_path).settings == {"num_layers": 2}


def test_a_folder_with_one_precision_in_shards_that_are_not_all_there(tmp_path):
    folder = split(tmp_path / "unet", "fp16", index=False)
    (folder / SPELLINGS["fp16"][0].format(1)).unlink()
    with pytest.raises(CheckpointError, match="is one of 2 files, 1 are there"):
        read_header(folder)


def test_companions_are_no_parts_of_a_pipeline(tmp_path):
    for name in ("transformer", "vae"):
        split(tmp_path / name, "plain")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "._model.safetensors").write_bytes(COMPANION)
    accompany(tmp_path)
    assert [*component_folders(tmp_path)] == ["transformer", "vae"]
    with pytest.raises(
        CheckpointError, match=r"is what macOS keeps beside a file .*does not begin with `\._`"
    ):
        read_header(tmp_path / "vae" / "._diffusion_pytorch_model-00001-of-00002.safetensors")
    shutil.rmtree(tmp_path / "transformer")
    assert len(weight_files(tmp_path / "vae")) == 2


@pytest.mark.parametrize("name", ["caf\udce9.safetensors", "caf\udce9/model.safetensors"])
def test_a_name_that_is_no_text_is_told_with_its_remedy(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    (tmp_path / "plain").write_bytes(b"<html>")
    (tmp_path / "plain").rename(path)
    for place in {path, path.parent} - {tmp_path}:
        with pytest.raises(CheckpointError, match="no text in UTF-8. Give the file") as caught:
            read_header(place)
        str(caught.value).encode()
