"""What a CogVideoX transformer is told: prompt features, and image latents of one picture."""

import pytest
import torch

from kinetograph.modules.families.cogvideox.conditions import conditions
from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.family import Request

I2V = CogVideoXConfig(in_channels=32, learned_positions=10, text_dim=8)
SHAPE = (1, 16, 3, 4, 4)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image_of(config, image, shape=SHAPE):
    return conditions(config, Request(shape, draw(1, 5, 8), image))["concat"]


@pytest.mark.parametrize("batch", [1, 2])
def test_of_several_pictures_the_first_is_taken(batch):
    """A sampler repeats one picture to every clip; several would meet a batch of another length."""
    images = draw(3, *SHAPE[1:])
    seen = image_of(I2V, images, (batch, *SHAPE[1:]))
    assert torch.equal(seen, images[:1] * I2V.image_latent_scale)
    assert not torch.equal(seen, images[1:2] * I2V.image_latent_scale)


def test_frames_added_to_fill_a_patch_are_silent():
    newer = CogVideoXConfig(in_channels=32, ofs_dim=8, text_dim=8, patch_size_t=2, image_latent_scale=1.0)
    image = draw(*SHAPE)
    seen = image_of(newer, image, (1, 16, 4, 4, 4))
    assert torch.equal(seen[:, :, :3], image) and not seen[:, :, 3:].any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="is an image-to-video checkpoint"):
        image_of(I2V, None)
    with pytest.raises(ValueError, match="takes no image conditioning"):
        conditions(CogVideoXConfig(), Request(SHAPE, None, draw(*SHAPE)))
    with pytest.raises(ValueError, match="have 4 axes"):
        image_of(I2V, draw(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"is for latents of \(2, 4, 4\)"):
        image_of(I2V, draw(1, 16, 2, 4, 4))
    with pytest.raises(ValueError, match="encoded to 9 numbers a token"):
        conditions(I2V, Request(SHAPE, draw(1, 5, 9), draw(*SHAPE)))
