"""The doctor on published files: what the size tells, what only the contents tell, and the limits of a network."""

import dataclasses
import hashlib
import json

import pytest

from kinetograph.modules.doctor import examine, main
from kinetograph.modules.families import FAMILIES, SVD
from kinetograph.modules.published import compare, sha256_of
from kinetograph.modules.weights.detect import detect_all
from kinetograph.modules.weights.files import read_header
from kinetograph.tests.checkpoints import BY_NAME, write_sparse

XT = "stabilityai/stable-video-diffusion-img2vid-xt"
XT_BYTES, UNET_BYTES = 9_559_625_980, 6_098_682_464


def published(text):
    """The report from the first line that speaks of published files."""
    lines = text.splitlines()
    return lines[next(i for i, line in enumerate(lines) if "published" in line) :]


def test_a_file_of_the_published_size_may_be_that_file(tmp_path):
    path = write_sparse(tmp_path / "x.safetensors", BY_NAME["svd-xt"].shapes, "F32", size=XT_BYTES)
    assert path.stat().st_size == XT_BYTES
    report = examine(path)
    assert published(report.to_text()) == [
        f"  published   this may be the published file svd_xt.safetensors of {XT} (same kind, same size: "
        "9,559,625,980 bytes; the contents were not compared: python dev.py doctor FILE --hash does)"
    ]
    (entry,) = report.to_json()["published"]
    assert entry == {
        "name": "SVD-XT",
        "repository": XT,
        "file": "svd_xt.safetensors",
        "same_size": True,
        "same_sha256": None,
    }
    assert report.to_json()["sha256"] == {}


def test_files_of_one_size_are_all_named(tmp_path):
    shapes = BY_NAME["svd-diffusers-unet"].shapes
    head, *files = published(
        examine(write_sparse(tmp_path / "x.safetensors", shapes, "F32", size=UNET_BYTES)).to_text()
    )
    assert "one of 3 published files" in head and "same size" in head
    assert [line.split()[0] for line in files] == [
        "unet/diffusion_pytorch_model.safetensors",
        "AnimateLCM-SVD-xt.safetensors",
        "AnimateLCM-SVD-xt-1.1.safetensors",
    ]


def test_another_size_says_nothing(tmp_path):
    shapes = BY_NAME["svd-diffusers-unet"].shapes
    report = examine(write_sparse(tmp_path / "x.safetensors", shapes, "F32", size=UNET_BYTES + 8))
    assert report.to_json()["published"] == [] and "published" not in report.to_text()


def test_nothing_but_the_header_is_read_unless_asked_for(tmp_path, monkeypatch):
    def refuse(file):
        raise AssertionError("read")

    monkeypatch.setattr("kinetograph.modules.published.sha256_of", refuse)
    path = write_sparse(tmp_path / "x.safetensors", BY_NAME["svd-xt"].shapes, "F32", size=XT_BYTES)
    examine(path)
    with pytest.raises(AssertionError, match="read"):
        examine(path, hashed=True)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """(a file of the size of SVD-XT's fp16 VAE, its SHA-256)."""
    shapes = BY_NAME["svd-diffusers-vae"].shapes
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    write_sparse(path, shapes, "F16", size=195_531_910)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_says_that_it_is_not(vae, capsys):
    path, digest = vae
    assert main([str(path), "--hash"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"  sha256      {digest}" in lines
    (line,) = [line for line in lines if "published" in line]
    assert f"is NOT the published file vae/diffusion_pytorch_model.fp16.safetensors of {XT}" in line
    assert "another SHA-256: af602cd0eb4ad6086ec94fbf1438dfb1be5ec9ac03fd0215640854e90d6463a3" in line
    assert main([str(path), "--hash", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sha256"] == {"vae.safetensors": digest}
    assert [entry["same_sha256"] for entry in report["published"]] == [False]


def beside(path, hashed=True, **change):
    """The record of a file beside releases that differ from SVD-XT's fp16 VAE in what is named."""
    releases = [release for release in SVD.releases if release.bytes == 195_531_910]
    family = dataclasses.replace(
        SVD, releases=tuple(dataclasses.replace(each, **change) for each in releases)
    )
    return compare(path, path.name, detect_all(read_header(path), FAMILIES), (family,), hashed)


@pytest.mark.parametrize("size", [195_531_910, None])
def test_the_hash_says_that_it_is_whether_or_not_the_size_is_on_record(vae, size):
    path, digest = vae
    assert beside(path, sha256=digest, bytes=size).lines() == [
        f"  sha256      {digest}",
        f"  published   this is the published file vae/diffusion_pytorch_model.fp16.safetensors of {XT} (same SHA-256)",
    ]


def test_what_no_record_tells_is_not_claimed(vae):
    path, digest = vae
    assert "no record tells its SHA-256" in beside(path, sha256=None).lines()[1]
    assert beside(path, sha256=None, bytes=None).lines()[1] == (
        "  published   no published file of this kind is on record with this size or this SHA-256"
    )
    assert beside(path, hashed=False, bytes=None).lines() == []
    (compared,) = beside(path, sha256=digest, bytes=None).comparisons
    assert (compared.to_json()["same_size"], compared.to_json()["same_sha256"]) == (None, True)


def test_another_kind_of_the_same_size_says_nothing(vae):
    path, _ = vae
    assert beside(path, hashed=False, kind="vae").lines() != []
    assert beside(path, hashed=False, kind="diffusion_model").lines() == []


def test_a_hash_is_that_of_the_whole_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 70_000)
    assert path.stat().st_size > 2**24
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_file_of_a_pipeline_is_named(tmp_path):
    for folder, name, size in (
        ("vae", "svd-diffusers-vae", 195_531_910),
        ("unet", "svd-diffusers-unet", 3_049_435_868),
    ):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "diffusion_pytorch_model.fp16.safetensors"
        write_sparse(path, BY_NAME[name].shapes, "F16", size=size)
    text = examine(tmp_path).to_text()
    for folder in ("unet", "vae"):
        file = f"{folder}/diffusion_pytorch_model.fp16.safetensors"
        assert f"  file        {file}\n  published   this may be the published file {file} of {XT}" in text


LIMITS = {
    "cogvideox-5b-i2v": "720x480 pixels only, at most 49 frames",
    "svd-exvideo": "at most 128 frames",
    "cogvideox-5b": "",
    "cogvideox-1.5-5b-i2v": "",
    "cogvideox-fun-2b-inp": "at most 49 frames",
    "cogvideox-fun-5b-inp": "",
    "svd-xt": "",
    "cogvideox-vae": "",
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_told_before_loading(tmp_path, name):
    report = examine(write_sparse(tmp_path / "x.safetensors", BY_NAME[name].shapes))
    assert report.to_json()["limits"] == LIMITS[name]
    assert [line for line in report.to_text().splitlines() if "limits" in line] == [
        f"  limits      {LIMITS[name]}"
    ] * bool(LIMITS[name])


@pytest.mark.parametrize("name", [name for name in BY_NAME if "-fun-" in name])
def test_fun_is_named(tmp_path, name):
    """What InP and Control are is not read from the name of a file."""
    path = write_sparse(tmp_path / "diffusion_pytorch_model.safetensors", BY_NAME[name].shapes)
    text = examine(path).to_text()
    assert f"CogVideoX {BY_NAME[name].variant}" in text and "CogVideoX Loader" in text


def test_limits_of_a_damaged_network_are_none(tmp_path):
    shapes = dict(BY_NAME["cogvideox-5b-i2v"].shapes)
    del shapes["patch_embed.proj.weight"]
    report = examine(write_sparse(tmp_path / "x.safetensors", shapes))
    assert report.to_json()["limits"] == "" and "limits" not in report.to_text()
