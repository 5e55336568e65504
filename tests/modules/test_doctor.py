"""The doctor: one report for people, one for programs, on known, incomplete, strange and damaged files."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.doctor import examine, main
from kinetograph.modules.families import FAMILIES
from kinetograph.tests import tiny, tiny_pixart
from kinetograph.tests.checkpoints import BY_NAME, KEY_LISTS, write_sparse

JSON_KEYS = "family variant dialect keys matched missing unexpected dtype parameters folder node".split()
JSON_KEYS += ["limits", "published", "sha256"]
ROOT = Path(__file__).resolve().parents[2]


def write(folder, listed, name="model.safetensors", **options):
    return write_sparse(folder / name, listed.shapes, **options)


@pytest.mark.parametrize("listed", KEY_LISTS, ids=lambda listed: listed.name)
def test_every_published_file(listed, tmp_path, capsys):
    """The file's name says nothing: the report comes from keys and shapes."""
    path = write(tmp_path, listed)
    assert main([str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    parts = next(family for family in FAMILIES if family.id == listed.family).parts
    part = parts[listed.kind]
    folder = part.folder if len(listed.kinds) == 1 else "checkpoints"
    assert list(report) == JSON_KEYS
    assert (report["family"], report["variant"]) == (listed.family, listed.variant)
    assert report["keys"] == len(listed.shapes)
    assert (report["missing"], report["unexpected"]) == (0, 0)
    assert (report["dtype"], report["folder"], report["node"]) == ("bfloat16", folder, part.node.id)
    assert report["parameters"] == sum(torch.Size(shape).numel() for shape in listed.shapes.values())


def test_text_report_names_the_faults(tmp_path, capsys):
    shapes = dict(BY_NAME["cogvideox-2b"].shapes)
    del shapes["proj_out.bias"]
    path = write_sparse(
        tmp_path / "model.safetensors", {**shapes, "ema.weight": (1,), "norm_final.bias": (3,)}
    )
    assert main([str(path)]) == 1
    text = capsys.readouterr().out
    for words in (
        "CogVideoX",
        "2B",
        "734 matched, 1 missing, 1 unexpected, 1 of another shape",
        "node        CogVideoX Loader",
        "missing: proj_out.bias",
        "unexpected: ema.weight",
        "another shape: norm_final.bias: (3,) for (1920,)",
    ):
        assert words in text
    report = examine(path).to_json()
    assert (report["matched"], report["missing"], report["unexpected"]) == (734, 2, 2)


def test_a_near_miss_without_the_telling_keys_still_names_the_family(tmp_path):
    shapes = {key: shape for key, shape in BY_NAME["cogvideox-5b"].shapes.items() if "patch_embed" not in key}
    report = examine(write_sparse(tmp_path / "model.safetensors", shapes))
    assert report.to_json()["family"] == "cogvideox"
    assert "missing: patch_embed.proj.weight" in report.to_text()


def test_a_strange_file_has_counts(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    save_file({f"layer.{i}.gamma": torch.zeros(3) for i in range(7)}, path)
    assert main([str(path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report == {
        "family": "unknown",
        "variant": "unknown",
        "dialect": "unknown",
        "keys": 7,
        "matched": 0,
        "missing": 0,
        "unexpected": 7,
        "dtype": "float32",
        "parameters": 21,
        "folder": "unknown",
        "node": "unknown",
        "limits": "",
        "published": [],
        "sha256": {},
    }


def test_a_damaged_file_is_explained_on_stderr(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"<html></html>")
    assert main([str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "model.safetensors is an HTML page" in err


def test_a_pipeline_folder_is_one_report(tmp_path):
    lists = {"transformer": "cogvideox-5b", "vae": "cogvideox-vae", "text_encoder": "t5-v1_1-xxl-encoder"}
    for folder, name in lists.items():
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, BY_NAME[name])
    report = examine(tmp_path)
    assert report.complete
    assert report.to_json()["keys"] == 1024 + 436 + 220
    assert report.to_json()["variant"] == "T5 v1.1 XXL encoder + 5B + VAE"
    assert report.to_json()["folder"] == "checkpoints"


def test_parts_that_came_in_one_file_stay_in_one_folder(tmp_path):
    report = examine(write(tmp_path, BY_NAME["svd-xt"]))
    assert report.complete
    assert (report.to_json()["folder"], report.to_json()["node"]) == ("checkpoints", "KinetographSVDLoader")
    text = report.to_text()
    assert text.count("  folder      checkpoints") == text.count("  Complete: SVD ") == 4
    assert "folder      vae" not in text
    for words in ("UNet", "CLIP ViT-H/14", "140 not needed", "under conditioner.embedders.3.encoder."):
        assert words in text


def test_a_single_part_names_its_own_folder_and_node(tmp_path):
    report = examine(write(tmp_path, BY_NAME["svd-exvideo"])).to_json()
    assert (report["folder"], report["node"]) == ("SVD", "KinetographExVideoPatch")


def test_20_gb_take_no_longer_than_the_import(tmp_path):
    shapes = {
        f"{part}.{key}": shape for part in "ab" for key, shape in BY_NAME["cogvideox-5b-i2v"].shapes.items()
    }
    path = write_sparse(tmp_path / "large.safetensors", shapes)
    start = time.perf_counter()
    assert examine(path).to_json()["keys"] == 2050
    assert time.perf_counter() - start < 1


def test_runs_as_the_command_line_tool_does(tmp_path):
    path = write(tmp_path, BY_NAME["cogvideox-vae"])
    command = [
        sys.executable,
        str(ROOT / "tools" / "pack.py"),
        "kinetograph.modules.doctor",
        str(path),
        "--json",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["variant"] == "VAE"


def test_a_shared_text_encoder_is_told_by_the_network_beside_it(tmp_path):
    tiny_pixart.write_pipeline(tmp_path / "pixart")
    tiny.write_pipeline(tmp_path / "cogvideox", "5B")
    for family in ("pixart", "cogvideox"):
        report = examine(tmp_path / family)
        assert report.complete and {finding.family for finding in report.findings} == {family}
