"""A checkpoint is opened once for its post and its run: its header read once, its networks laid out once."""

import os
import shutil

import pytest

from kinetograph.tests.host.workbench import SVD_OWN, Workbench, run


@pytest.fixture
def settled(base):
    """A copy of the tiny SVD that was not written this moment: only then is anything kept."""
    path = base / "models" / "SVD" / "settled-svd.safetensors"
    shutil.copy(base / "models" / "SVD" / "tiny-svd.safetensors", path)
    os.utime(path, (1e9, 1e9))
    yield path
    path.unlink()


@pytest.fixture
def counted(monkeypatch, settled):
    """How often the header of the file was read and its networks laid out; others are read for the lists."""
    from kinetograph.modules.weights import files, part

    seen = {"headers": [], "layouts": []}
    read, layout = files._read_header, part.Part.shapes

    def reading(path, *rest):
        if path == settled:
            seen["headers"].append(path.name)
        return read(path, *rest)

    def laying_out(self, config):
        seen["layouts"].append(self.kind)
        return layout(self, config)

    monkeypatch.setattr(files, "_read_header", reading)
    monkeypatch.setattr(part.Part, "shapes", laying_out)
    return seen


def test_a_post_and_a_run_read_the_header_once(comfy_here, settled, counted):
    loader = Workbench().ours["SVDLoader"]
    choice = {"model": f"SVD/{settled.name}", "image_encoder": SVD_OWN, "vae": SVD_OWN}
    for _ in range(2):
        assert loader.validate_inputs(**choice) is True
        loader.fingerprint_inputs(**choice)
        run(loader, **choice, weight_dtype="fp32")
    assert counted["headers"] == [settled.name]
    assert sorted(counted["layouts"]) == ["diffusion_model", "image_encoder", "image_vae", "vae"]


def test_a_file_that_was_replaced_is_opened_again(comfy_here, settled, counted):
    loader = Workbench().ours["SVDLoader"]
    choice = {"model": f"SVD/{settled.name}", "image_encoder": SVD_OWN, "vae": SVD_OWN}
    assert loader.validate_inputs(**choice) is True
    os.utime(settled, (1e9 + 7, 1e9 + 7))
    assert loader.validate_inputs(**choice) is True
    assert counted["headers"] == [settled.name] * 2
    settled.write_bytes(settled.read_bytes()[:1000])
    assert "cut off" in loader.validate_inputs(**choice)
