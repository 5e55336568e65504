"""What every family's records promise, held against its network: inputs, limits, frame rules, places on disk."""

import pytest
import torch

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.family import Clip, FrameRule, Limits
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.families.svd import EXVIDEO
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.tests import tiny

SMALL = {
    "num_layers": 1,
    "num_heads": 2,
    "head_dim": 16,
    "time_embed_dim": 16,
    "text_dim": 8,
    "max_text_tokens": 6,
}
# 4 x 3 tokens a frame, 2 latent frames
LEARNED = {"in_channels": 32, "sample_width": 8, "sample_height": 6, "learned_positions": 6 + 2 * 12}
UNET = {"channels": (32, 32, 32, 32), "head_dim": 16, "context_dim": 8, "adm_dim": 48}
DIT = {"num_layers": 2, "num_heads": 2, "head_dim": 24, "text_dim": 16}
CONFIGS = {
    "cogvideox": {
        "5B": CogVideoXConfig(**SMALL),
        "2B": CogVideoXConfig(**SMALL, rotary=False),
        "5B-I2V": CogVideoXConfig(**SMALL, **LEARNED),
        "1.5-5B": CogVideoXConfig(**SMALL, patch_size_t=2),
        "Fun-2B-InP": CogVideoXConfig(**SMALL, rotary=False, in_channels=33, sample_frames=5),
        "Fun-5B-InP": CogVideoXConfig(**SMALL, in_channels=33),
        "Fun-1.5-5B-InP": CogVideoXConfig(**SMALL, in_channels=33, patch_size_t=2),
        "Fun-5B-Control": CogVideoXConfig(**SMALL, in_channels=32),
    },
    "svd": {"UNet": SVDConfig(**UNET), "UNet with ExVideo": SVDConfig(**UNET, exvideo=True)},
    "pixart": {"512": PixArtConfig(**DIT), "1024-MS": PixArtConfig(**DIT, sized=True, sample_size=128)},
}
LIMITED = ("5B-I2V", "Fun-2B-InP", "UNet with ExVideo")
CASES = [(family, name) for family, configs in CONFIGS.items() for name in configs]
BY_ID = {family.id: family for family in FAMILIES}


def on_batch(family):
    return BY_ID[family].network.grid.frames_on_batch


def network(family, config):
    part = BY_ID[family].parts["diffusion_model"]
    return tiny.randomise(part.build(config), 0).eval()


def run(family, name, clip):
    """(the inputs of a clip, what a random network makes of them)."""
    config = CONFIGS[family][name]
    inputs = BY_ID[family].network.inputs(config, clip)
    with torch.inference_mode():
        return inputs, network(family, config)(**inputs)


def test_every_family_with_a_network_is_here():
    assert set(CONFIGS) == {family.id for family in FAMILIES if family.diffusion} and len(CASES) >= 6


@pytest.mark.parametrize("family, name", CASES)
def test_example_inputs_are_those_of_the_network(family, name):
    width, height = (64, 48) if family == "cogvideox" else (128, 128)
    clip = Clip(width, height, num_frames=5, count=2)
    inputs, output = run(family, name, clip)
    x = next(iter(inputs.values()))
    config = CONFIGS[family][name]
    channels = getattr(config, "out_channels", x.shape[1])
    assert output.shape == (x.shape[0], channels, *x.shape[2:])
    assert output.isfinite().all() and output.std() > 1e-3
    frames = clip.num_frames * clip.count if on_batch(family) else BY_ID[family].network.grid.latent_frames(5)
    missing = BY_ID[family].network.frame_rule(config).missing(frames)
    assert x.shape[0 if on_batch(family) else 2] == frames + missing


@pytest.mark.parametrize("family, name", CASES)
def test_limits_are_where_the_network_ends(family, name):
    diffusion, config = BY_ID[family].network, CONFIGS[family][name]
    limits = diffusion.limits(config)
    if name not in LIMITED:
        assert limits == Limits() and limits.text == ""
        return
    width, height = limits.size or (128, 128)
    inside = Clip(width, height, limits.max_frames)
    beyond = [Clip(width, height, limits.max_frames + (1 if family == "svd" else 4))]
    beyond += [Clip(width + 16, height, 5)] if limits.size else []
    if name == "5B-I2V":
        assert (limits.max_frames, limits.size) == (5, (64, 48))
        run(family, name, inside)
        for clip in beyond:
            with pytest.raises(ValueError, match="learned positions"):
                run(family, name, clip)
    if name == "Fun-2B-InP":  # any picture, as many frames as it has positions for
        assert (limits.max_frames, limits.size) == (5, None)
        run(family, name, Clip(80, 32, 5))
        with pytest.raises(ValueError, match="positions for 2 latent frames: got 3, use at most 5 frames"):
            run(family, name, Clip(80, 32, 9))
    limits.check("A model", inside.width, inside.height, inside.num_frames)
    for clip in beyond:
        with pytest.raises(ValueError, match="^A model (has learned positions|makes clips of at most)"):
            limits.check("A model", clip.width, clip.height, clip.num_frames)


def test_frames_are_added_until_patches_are_full():
    assert [FrameRule(2).missing(count) for count in (1, 2, 3, 21)] == [1, 0, 1, 1]
    assert [FrameRule().missing(count) for count in (1, 2, 3)] == [0, 0, 0]


def test_an_add_on_names_families_and_places_that_there_are():
    config = CONFIGS["svd"]["UNet"]
    assert set(EXVIDEO.bases) <= set(BY_ID) and EXVIDEO.limits(config).max_frames == 128
    unet = network("svd", config)
    placed = list(EXVIDEO.insert(EXVIDEO.part.build(config)))
    assert len(placed) == 16
    for place, layers in placed:
        assert {name for name, _ in layers.named_children()} <= set(unet.get_submodule(place)._modules)


@pytest.mark.parametrize("family", BY_ID)
def test_parts_say_where_they_lie(family):
    for kind, part in BY_ID[family].parts.items():
        assert part.kind == kind and part.folder in part.folders, kind
        assert part.components or kind in ("extension", "image_vae", "motion_module", "sparse_control"), kind
