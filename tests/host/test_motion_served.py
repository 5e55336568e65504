"""Motion Module Apply in workflows on a served host, with the tiny image MODELs of `tests/packs`."""

import sys
from pathlib import Path

import pytest
import torch

from kinetograph.tests import motion_files, packs
from kinetograph.tests.host.graphs import node
from kinetograph.tests.host.state import NONCES, in_turn_with_a_cancel, latents, tensors_of
from kinetograph.tools.server import Server

FRAMES = 6


@pytest.fixture(scope="module")
def client(host, tmp_path_factory):
    own = tmp_path_factory.mktemp("motion")
    motion_files.write_all(own / "models" / "animatediff_models")
    with Server(Path(sys.executable), host, own, arguments=packs.link(own)) as server:
        yield server.client
        assert server.is_running(), server.tail()


def sampling(release="v2", kind="TinySD15", steps=2, motion=True, **changes):
    """From the tiny UNet to a latent file."""
    file = f"animatediff_models/tiny-{release.replace(' ', '-')}.safetensors"
    chosen = {"beta_schedule": "as trained", "strength": 1.0, "version": "from the file", "num_frames": 0}
    graph = {
        "loader": node(kind, seed=5),
        "motion": node(
            "KinetographMotionModuleApply", model=["loader", 0], motion_module=file, **{**chosen, **changes}
        ),
        "latent": node(
            "KinetographVideoLatent",
            family="from the model",
            model=["motion", 0],
            width=64,
            height=64,
            num_frames=FRAMES,
            batch_size=1,
        ),
        "sampler": node(
            "KinetographVideoSampler",
            **{
                "model": ["motion" if motion else "loader", 0],
                "positive": ["loader", 1],
                "negative": ["loader", 2],
                "latent": ["latent", 0],
                "seed": 3,
                "steps": steps,
                "guidance": "constant",
                "guidance.cfg": 6.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
                "preview": True,
                "nonce": next(NONCES),
            },
        ),
    }
    graph["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="motion")
    return graph


def test_a_workflow_a_cancel_in_the_middle_and_the_next_prompt(client):
    in_turn_with_a_cancel(client, sampling, (FRAMES, 4, 8, 8))


@pytest.mark.newest
def test_sdxl_and_the_wrong_base(client):
    clip = tensors_of(latents(client, sampling("SDXL beta", "TinySDXL")))
    assert clip.shape == (FRAMES, 4, 8, 8) and torch.isfinite(clip).all()
    result = client.run(sampling("SDXL beta"))
    assert result.status == "error" and result.error["node_id"] == "motion"
    fitting = [f"animatediff_models/tiny-{name}.safetensors" for name in ("AnimateLCM", "v1", "v2", "v3")]
    assert f"these fit: {', '.join(fitting)}." in result.message


@pytest.mark.newest
def test_a_wrong_version_is_refused_when_the_prompt_is_posted(client):
    result = client.run(sampling("v2", version="v3"))
    assert result.status == "refused" and [*result.node_errors] == ["motion"]
    assert "module in the middle of the UNet" in result.message
