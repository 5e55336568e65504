"""The catalogue: nobody waits for a header, each is read once, and only what is sure is told."""

import os
import threading
import time

import pytest

from kinetograph.modules import catalogue
from kinetograph.modules.catalogue import Catalogue
from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights import files
from kinetograph.modules.weights.files import KeptHeaders, file_identity, read_header
from kinetograph.tests.checkpoints import BY_NAME, write_sparse

SVD_UNET, VAE = BY_NAME["svd-diffusers-unet"], BY_NAME["cogvideox-vae"]


def write(path, listed=VAE):
    """A file that was there yesterday."""
    write_sparse(path, listed.shapes)
    return age(path)


def age(path, seconds=86_400):
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.fixture
def slow_reads(monkeypatch):
    """Every path that is read, each only when `go` is set."""
    seen, go = [], threading.Event()

    def read(path):
        seen.append(path)
        assert go.wait(30)
        return read_header(path)

    monkeypatch.setattr(catalogue, "read_header", read)
    return seen, go


def test_lists_never_wait_and_every_file_is_read_once(tmp_path, slow_reads):
    seen, go = slow_reads
    shelf = Catalogue(FAMILIES)
    write(tmp_path / "0.safetensors")
    paths = [tmp_path / f"{i}.safetensors" for i in range(300)]
    for path in paths[1:]:
        os.link(paths[0], path)
    begun = time.perf_counter()
    for _ in range(3):
        assert not any(shelf.is_others(path, "svd", "vae") for path in paths), "not read is not known"
    assert time.perf_counter() - begun < 1
    go.set()
    shelf.wait(60)
    assert all(shelf.is_others(path, "svd", "vae") for path in paths)
    assert not any(shelf.is_others(path, "cogvideox", "vae") for path in paths)
    shelf.wait(60)
    assert sorted(seen) == sorted(paths)
    assert not [thread for thread in threading.enumerate() if thread.name == "kinetograph-headers"]


def test_a_replaced_file_is_read_again(tmp_path):
    shelf, path = Catalogue(FAMILIES), write(tmp_path / "x.safetensors")
    answers = []
    for listed in (VAE, SVD_UNET):
        write(tmp_path / "new.safetensors", listed).replace(path)
        shelf.is_others(path, "svd", "diffusion_model")
        shelf.wait(60)
        answers.append(shelf.is_others(path, "svd", "diffusion_model"))
    assert answers == [True, False]


def test_only_what_is_sure_is_told(tmp_path):
    """A damaged file, one that is not there, a strange one and one of this moment stay in every list."""
    damaged, fresh = tmp_path / "damaged.safetensors", tmp_path / "fresh.safetensors"
    damaged.write_bytes(b"<html>")
    write_sparse(fresh, VAE.shapes)
    strange = write_sparse(tmp_path / "strange.safetensors", {"a": (1,)})
    gone = tmp_path / "gone.safetensors"
    shelf, paths = Catalogue(FAMILIES), [age(damaged), fresh, age(strange), gone]
    for _ in range(2):
        assert not any(shelf.is_others(path, "svd", "vae") for path in paths)
        shelf.wait(60)


def test_a_component_folder_is_known_by_its_files(tmp_path):
    shelf, folder = Catalogue(FAMILIES), tmp_path / "unet"
    folder.mkdir()
    write(folder / "model.safetensors", SVD_UNET)
    age(folder)
    for _ in range(2):
        others = shelf.is_others(folder, "cogvideox", "diffusion_model")
        shelf.wait(60)
    assert others and not shelf.is_others(folder, "svd", "diffusion_model")
    write(folder / "model.safetensors", VAE)
    assert not shelf.is_others(folder, "cogvideox", "diffusion_model"), "another file: not known yet"
    shelf.wait(60)


def count_openings(monkeypatch):
    opened = []
    original = files.safe_open

    def opening(path, **options):
        opened.append(path)
        return original(path, **options)

    monkeypatch.setattr(files, "safe_open", opening)
    return opened


def test_a_header_is_read_once_as_long_as_nothing_changes(tmp_path, monkeypatch):
    opened = count_openings(monkeypatch)
    path = write(tmp_path / "model.safetensors")
    first = read_header(path)
    assert read_header(path) is first and len(opened) == 1
    (tmp_path / "config.json").write_text('{"a": 1}')
    age(tmp_path / "config.json")
    assert read_header(path).settings == {"a": 1}
    age(tmp_path)
    assert read_header(tmp_path).settings == {"a": 1}
    (tmp_path / "config.json").write_text('{"a": 2}')
    age(tmp_path / "config.json", seconds=4_000)
    assert read_header(path).settings == read_header(tmp_path).settings == {"a": 2}
    write(path, SVD_UNET)
    assert read_header(path).shapes.keys() == SVD_UNET.shapes.keys()


def test_a_file_of_this_moment_is_read_again(tmp_path):
    """A second change within one tick of the file system's clock leaves size and time as they were."""
    path = tmp_path / "model.safetensors"
    for key in ("a", "b"):
        write_sparse(path, {key: (1,)})
        os.utime(path, (time.time(),) * 2)
        assert [*read_header(path).shapes] == [key]


def test_kept_headers_are_few(tmp_path):
    header = read_header(write(tmp_path / "model.safetensors"))
    size = files.KEY_BYTES * (1 + len(header.shapes)) + sum(map(len, header.shapes))
    kept = KeptHeaders(most=2 * size)
    places = [(file_identity(f"{i}"),) for i in range(3)]
    for place in places:
        kept.keep(place, header)
        kept.find(places[0])
    assert [kept.find(place) is header for place in places] == [True, False, True]
    kept.keep((file_identity("large"),), type(header)("x", (), {"k" * 3 * size: (1,)}, {}, {}))
    assert kept.find((file_identity("large"),)) is None
