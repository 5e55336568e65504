"""A prompt becomes exactly the frames asked for, through the real queue, for every kind of checkpoint."""

import pytest

from kinetograph.tests import tiny
from kinetograph.tests.host.graphs import node, text_to_video, with_frames

TEXT_TO_VIDEO = [variant for variant in tiny.VARIANTS if "I2V" not in variant]


@pytest.mark.parametrize("variant", TEXT_TO_VIDEO)
def test_prompt_becomes_frames(client, variant):
    result = client.run(with_frames(text_to_video(variant, frames=9)))
    assert result.status == "success", result.message
    assert len(result.files()) == 9


@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17])
def test_success_means_as_many_frames_as_asked(client, frames):
    """Also where the VAE folds an even number of latents back into three frames more."""
    graph = with_frames(text_to_video("5B", frames=frames, steps=1))
    choices = {"vae": ["loader", 2], "latent": ["sampler", 0], "chunk": 0, "overlap": 2}
    graph["decode"] = node("KinetographVAEDecodeChunked", **choices)
    result = client.run(graph)
    assert result.status == "success", result.message
    assert len(result.files()) == frames
