"""Pictures for SVD's encoders, against diffusers' StableVideoDiffusionPipeline."""

import time

import pytest
import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as reference
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPImageProcessor

from kinetograph.modules.conditioning.augmentation import augment
from kinetograph.modules.conditioning.clip_image import clip_pixels, squash

# height, width: shrinking, untouched, growing, both at once, just below and above an even kernel, tiny
SIZES = [(576, 1024), (224, 224), (64, 64), (128, 128), (500, 30), (30, 500), (448, 447), (673, 225), (2, 3)]


def picture(height, width, count=1, seed=0):
    """Noise with an edge and a gradient: what a blur, a shift or a crop all change."""
    pixels = torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))
    pixels[:, :, : width // 3] *= 0.2
    pixels[..., 0] *= torch.linspace(0, 1, height)[None, :, None]
    return pixels


def theirs(pixels, size=224):
    """What the pipeline feeds its image encoder: see StableVideoDiffusionPipeline._encode_image."""
    image = reference._resize_with_antialiasing(pixels.movedim(-1, 1) * 2 - 1, (size, size))
    normalise = CLIPImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False)
    return normalise(images=(image + 1) / 2, return_tensors="pt").pixel_values


@pytest.mark.parametrize("height, width", SIZES)
def test_clip_sees_what_diffusers_shows_it(height, width):
    pixels = picture(height, width)
    ours = clip_pixels(pixels)
    assert ours.shape == (1, 3, 224, 224)
    resized = reference._resize_with_antialiasing(pixels.movedim(-1, 1) * 2 - 1, (224, 224))
    assert (squash(pixels[0], 224).movedim(-1, 0) - (resized[0] + 1) / 2).abs().max() <= 1e-6
    assert (ours - theirs(pixels)).abs().max() <= 3e-6  # the same after division by CLIP's std, 0.26


def test_a_large_picture_takes_no_time():
    """0.1 s, where the blur of every pixel took 6.5 s; and other strides, a half-precision picture, no new result."""
    pixels = picture(4000, 3001)
    started = time.process_time()
    ours = clip_pixels(pixels)
    assert time.process_time() - started <= 0.5 * torch.get_num_threads()
    assert torch.equal(clip_pixels(pixels.movedim(1, 2).contiguous().movedim(1, 2)), ours)
    assert (clip_pixels(pixels.half()) - ours).abs().max() <= 2e-3
    corner = pixels[:, :700, :900]
    assert (clip_pixels(corner) - theirs(corner)).abs().max() <= 3e-6


def test_every_picture_is_told_of():
    """For progress bars, and for Cancel."""
    told = []
    clip_pixels(picture(20, 30, count=3), advance=lambda: told.append(1))
    assert len(told) == 3


def test_other_sizes_and_batches():
    pixels = picture(96, 160, count=3)
    assert (clip_pixels(pixels, 56) - theirs(pixels, 56)).abs().max() <= 3e-6
    assert torch.equal(clip_pixels(pixels, 56)[1:2], clip_pixels(pixels[1:2], 56))


def test_neither_a_crop_nor_the_antialiasing_of_torch_would_pass():
    """The comparison above notices the two mistakes that are easily made."""
    pixels = picture(300, 500)[0] * 2 - 1
    right = squash(pixels, 224)
    torch_way = F.interpolate(
        pixels.movedim(-1, 0)[None], size=(224, 224), mode="bicubic", antialias=True, align_corners=False
    )
    assert (torch_way[0].movedim(0, -1) - right).abs().max() > 0.05
    assert (squash(pixels[:, 100:400], 224) - right).abs().max() > 0.5


def test_the_corners_of_the_picture_are_seen():
    """A wide picture is squeezed: its left and right ends reach the square's."""
    pixels = torch.zeros(1, 100, 400, 3)
    pixels[:, :, :40] = 1.0
    square = squash(pixels[0], 224)
    assert square[:, 0, 0].min() > 0.99 and square[:, -1, 0].abs().max() < 0.01


def test_transparency_is_left_out_and_slivers_are_refused():
    pixels = picture(40, 50)
    with_alpha = torch.cat([pixels, torch.zeros(1, 40, 50, 1)], -1)
    assert torch.equal(clip_pixels(with_alpha), clip_pixels(pixels))
    with pytest.raises(ValueError, match="at least 2x2 pixels: got 50x1"):
        clip_pixels(picture(1, 50))


def test_augmentation_is_the_noise_diffusers_draws():
    image = picture(16, 24).movedim(-1, 1) * 2 - 1
    noise = randn_tensor(image.shape, generator=torch.Generator().manual_seed(5), dtype=image.dtype)
    assert torch.equal(augment(image, 0.02, 5), image + 0.02 * noise)
    assert torch.equal(augment(image, 0.0, 5), image)


def test_augmentation_has_exactly_the_strength_asked_for():
    added = augment(torch.zeros(1, 3, 256, 256), 0.5, 1)
    assert added.std().item() == pytest.approx(0.5, rel=0.01)
    assert added.mean().abs() < 0.01


def test_each_picture_has_noise_of_its_own_and_the_first_does_not_depend_on_the_rest():
    image = picture(16, 16, count=3).movedim(-1, 1) * 2 - 1
    together, alone = augment(image, 1.0, 9), augment(image[:1], 1.0, 9)
    noise = together - image
    assert torch.equal(together[:1], alone)
    assert (noise[0] - noise[1]).abs().max() > 1 and (noise[1] - noise[2]).abs().max() > 1
