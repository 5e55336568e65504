"""CogVideoX-Fun's transformers against diffusers' class, and what lies beside the noise, with all errors that others made.

diffusers has no InP: its transformer of as many channels, with Fun's positions in the place of its own, is the oracle.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kinetograph.modules.families.cogvideox.conditions import conditions
from kinetograph.modules.families.cogvideox.config import GRID, CogVideoXConfig, read_config, untold
from kinetograph.modules.families.family import FrameRule, Limits, Request
from kinetograph.tests.checkpoints import BY_NAME
from kinetograph.tests.modules.test_cogvideox_model import (
    TINY,
    inputs,
    ours_from,
    reference,
    relative_error,
    run,
    run_reference,
)

FUN = {
    "Fun-2B-InP": replace(TINY, rotary=False, in_channels=33),
    "Fun-5B-InP": replace(TINY, in_channels=33),
    "Fun-1.5-5B-InP": replace(TINY, in_channels=33, patch_size_t=2, sample_frames=13),
    "Fun-2B-Control": replace(TINY, rotary=False, in_channels=32),
    "Fun-5B-Control": replace(TINY, in_channels=32),
}
OWN, OTHERS = (8, 12), [(10, 6), (6, 16), (12, 12)]  # latent cells: the size of training, and three more


def resized(oracle, t, h, w):
    """diffusers' model with its native table (in float32, as the original keeps it) resized to a clip, not made anew."""
    embed = oracle.patch_embed
    text, own_t = embed.max_text_seq_length, (embed.sample_frames + 3) // 4
    own_h, own_w = embed.sample_height // 2, embed.sample_width // 2
    table = embed.pos_embedding[0, text:].float().reshape(own_t, own_h, own_w, -1).permute(3, 0, 1, 2)[None]
    table = F.interpolate(table, size=(own_t, h // 2, w // 2), mode="trilinear", align_corners=False)
    image = table[0].permute(1, 2, 3, 0).flatten(0, 2)[: t * (h // 2) * (w // 2)]
    embed.pos_embedding = torch.cat([torch.zeros(1, text, image.shape[1]), image[None]], dim=1)
    embed.sample_frames, embed.sample_height, embed.sample_width = 4 * t - 3, h, w
    return oracle


def both(variant, t=3, h=OWN[0], w=OWN[1]):
    config = FUN[variant]
    oracle = reference(config)
    return ours_from(config, oracle), oracle, inputs(config, t=t, h=h, w=w)


@pytest.mark.parametrize("variant", [name for name in FUN if "1.5" not in name])
@pytest.mark.parametrize("h, w", [OWN, *OTHERS])
def test_equals_diffusers_with_funs_positions(variant, h, w):
    model, oracle, given = both(variant, 2, h, w)
    if not model.config.rotary:
        oracle = resized(oracle, 2, h, w)
    assert relative_error(run(model, *given), run_reference(oracle, model.config, *given)) <= 1e-5


@pytest.mark.parametrize("h, w", OTHERS)
@pytest.mark.parametrize("t", [1, 2, 3])
def test_resized_positions_are_those_of_the_native_table(t, h, w):
    """To a rounding: diffusers divides its grid by 1.875 in float32."""
    model, oracle, (x, *_) = both("Fun-2B-InP", t, h, w)
    expected = resized(oracle, t, h, w).patch_embed.pos_embedding[0, 5:]
    assert (model._sincos((t, h // 2, w // 2), x) - expected).abs().max() <= 2**-22


@pytest.mark.parametrize("h, w", OTHERS)
def test_positions_made_anew_are_another_function(h, w):
    """What diffusers, and the base 2B, would do at another size."""
    model, oracle, given = both("Fun-2B-InP", 3, h, w)
    assert relative_error(run(model, *given), run_reference(oracle, model.config, *given)) > 1e-2
    base = ours_from(replace(model.config, in_channels=16), reference(replace(model.config, in_channels=16)))
    assert not base.config.resizes_positions


def test_2b_has_positions_for_the_frames_of_its_training():
    model, _, given = both("Fun-2B-InP", t=4)
    with pytest.raises(ValueError, match="positions for 3 latent frames: got 4, use at most 9 frames"):
        run(model, *given)
    assert model.config.limits == Limits(max_frames=9)
    with pytest.raises(ValueError, match="at most 49 frames"):
        replace(FUN["Fun-2B-InP"], sample_frames=49).limits.check("Fun-2B-InP", 512, 512, 53)


@pytest.mark.parametrize("latents", [4, 2])
def test_v1_5_equals_diffusers_at_even_counts(latents):
    model, oracle, given = both("Fun-1.5-5B-InP", latents)
    assert relative_error(run(model, *given), run_reference(oracle, model.config, *given)) <= 1e-5


def test_v1_5_fills_the_patch_of_a_lone_frame_with_silence():
    """One zero frame behind all channels; neither a repeated frame nor a silent noise alone gives the same."""
    model, oracle, (x, timestep, context) = both("Fun-1.5-5B-InP", 1)
    ours = run(model, x, timestep, context)
    padded = F.pad(x, (0, 0, 0, 0, 0, 1))
    expected = run_reference(oracle, model.config, padded, timestep, context)[:, :, :1]
    assert relative_error(ours, expected) <= 1e-5
    for wrong in (
        x.repeat(1, 1, 2, 1, 1),
        torch.cat([padded[:, :16], x.repeat(1, 1, 2, 1, 1)[:, 16:]], dim=1),
    ):
        other = run_reference(oracle, model.config, wrong, timestep, context)[:, :, :1]
        assert relative_error(ours, other) > 1e-2


@pytest.mark.parametrize("latents, frames", [(3, "5 or 13"), (5, "13 or 21")])
def test_v1_5_refuses_odd_counts(latents, frames):
    """The base model's rule, one latent more that is cut off, is not Fun's: it never pads."""
    model, _, given = both("Fun-1.5-5B-InP", latents)
    with pytest.raises(ValueError, match=f"needs a multiple of 2 latent frames: got {latents}"):
        run(model, *given)
    rule = model.config.frame_rule
    assert rule == FrameRule(2, pads=False, lone_frame=True)
    with pytest.raises(ValueError, match=rf"1 or 2n latent frames: got {4 * latents - 3} .*use {frames}\."):
        rule.check("Fun-1.5-5B-InP", latents, GRID)
    assert [rule.nearest(count) for count in (1, 2, 3, 4, 5, 13)] == [1, 2, 2, 4, 4, 12]
    assert [rule.fits(count) for count in (1, 2, 3, 4)] == [True, True, False, True]


# What lies beside the noise. Shapes: (1, 16, 4, 4, 6) of latents.
SHAPE = (1, 16, 4, 4, 6)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def beside(config, shape=SHAPE, **told):
    return conditions(config, Request(shape, draw(1, 5, 12), **told))["concat"]


INPAINT = [name for name in FUN if name.endswith("InP")]


@pytest.mark.parametrize("variant", INPAINT)
def test_inp_sees_where_the_clip_is_known_then_the_clip(variant):
    """Both at the scale of latents, the mask too."""
    config = FUN[variant]
    image, mask = draw(*SHAPE), (draw(1, 1, *SHAPE[2:], seed=1) > 0).float()
    expected = torch.cat([(1 - mask) * config.latents.scale, image * config.latents.scale], dim=1)
    assert torch.equal(beside(config, image_latents=image, mask=mask), expected)
    assert expected.shape[1] == config.in_channels - config.out_channels == 17


@pytest.mark.parametrize("variant", INPAINT)
def test_text_to_video_is_silence_on_all_17_channels(variant):
    """Not the noise again, as ComfyUI 0.30 fills the channels of what it takes for a text-to-video network, and no mask
    of zeros, which would say that all is known."""
    silent = beside(FUN[variant])
    assert silent.shape == (1, 17, *SHAPE[2:]) and not silent.any()


@pytest.mark.parametrize("variant", [name for name in FUN if name.endswith("Control")])
def test_control_sees_the_clip_to_follow(variant):
    config, clip = FUN[variant], draw(*SHAPE)
    assert torch.equal(beside(config, control_latents=clip), clip * config.latents.scale)


IMAGE, MASK = {"image_latents": draw(*SHAPE)}, {"mask": torch.ones(1, 1, *SHAPE[2:])}
CONTROL = {"control_latents": draw(*SHAPE)}
OLDER = {"5B": TINY, "5B-I2V": replace(TINY, in_channels=32, learned_positions=10)}


@pytest.mark.parametrize(
    "config, told, words",
    [
        (OLDER["5B"], CONTROL, "5B is a text-to-video checkpoint and takes no control conditioning: load a Control"),
        (OLDER["5B"], {**IMAGE, **MASK}, "takes no inpaint conditioning: load an InP checkpoint"),
        (OLDER["5B-I2V"], CONTROL, "connect Image To Video Conditioning, not Control Video Conditioning"),
        (OLDER["5B-I2V"], {**IMAGE, **MASK}, "not Inpaint Conditioning"),
        (FUN["Fun-5B-InP"], CONTROL, "Fun-5B-InP is an InP checkpoint: connect Inpaint Conditioning, not Control"),
        (FUN["Fun-5B-InP"], IMAGE, "Inpaint Conditioning, not Image To Video Conditioning"),
        (FUN["Fun-5B-Control"], {}, "is a Control checkpoint: connect Control Video Conditioning between"),
        (FUN["Fun-5B-Control"], IMAGE, "Control Video Conditioning, not Image To Video Conditioning"),
        (FUN["Fun-5B-InP"], {"image_latents": draw(1, 16, 3, 4, 6), **MASK}, r"for latents of \(3, 4, 6\)"),
        (FUN["Fun-5B-InP"], {**IMAGE, "mask": torch.ones(1, 1, 4, 4, 4)}, r"for latents of \(4, 4, 4\)"),
        (FUN["Fun-5B-InP"], MASK, "lacks latents of Inpaint Conditioning"),
    ],
)  # fmt: skip
def test_conditioning_of_another_kind_is_refused(config, told, words):
    with pytest.raises(ValueError, match=words):
        beside(config, **told)


LISTS = {name: BY_NAME[name].shapes for name in BY_NAME if name.startswith("cogvideox-")}


def config_of(listed, settings=None):
    return read_config(LISTS[f"cogvideox-{listed}"], settings)


def test_noise_on_what_is_known_is_as_the_config_says():
    """Off where nobody says it, on for the one release of V1.5 (releases: V1.1 5B and V1.5 say so)."""
    told = {"add_noise_in_inpaint_model": True}
    assert config_of("fun-5b-inp").image_noise == 0 and config_of("fun-5b-inp", told).image_noise == 0.0563
    assert config_of("fun-1.5-5b-inp").image_noise == 0.0563
    assert config_of("fun-1.5-5b-inp", {"add_noise_in_inpaint_model": False}).image_noise == 0
    assert config_of("5b").image_noise == config_of("5b-i2v").image_noise == 0
    for config in (config_of("fun-5b-inp", told), config_of("fun-1.5-5b-inp")):
        assert untold(config)["add_noise_in_inpaint_model"] is True
    assert "add_noise_in_inpaint_model" not in untold(config_of("5b"))


def test_scale_and_schedule_are_those_of_the_release():
    """Fun's 2B is sampled without the shift of 2B (its own sampler is a plain DDIM)."""
    assert config_of("fun-2b-inp").latents.scale == config_of("2b").latents.scale == 1.15258426
    assert config_of("fun-2b-inp").snr_shift == 1.0 and config_of("2b").snr_shift == 3.0
    assert config_of("fun-1.5-5b-inp").latents.scale == config_of("fun-1.5-5b-inp").image_latent_scale == 0.7


def test_a_base_file_is_never_taken_for_inp():
    """Fun's own loader fills up the patch embedding of a 16-channel file in silence."""
    for listed in ("2b", "5b", "1.5-5b"):
        config = config_of(listed)
        assert config.takes == "nothing" and not config.fun
        with pytest.raises(ValueError, match="takes no inpaint conditioning"):
            conditions(config, Request(SHAPE, None, **IMAGE, **MASK))
    channels = {**LISTS["cogvideox-5b"], "patch_embed.proj.weight": (3072, 24, 2, 2)}
    with pytest.raises(ValueError, match=r"24 input channels .*16 \(text to video\), 32 .*33 \(Fun InP\)"):
        read_config(channels)


def test_kind_is_told_by_keys_not_by_channels_alone():
    kinds = {name: config_of(name).takes for name in ("5b-i2v", "fun-5b-control", "fun-5b-inp", "1.5-5b-i2v")}
    assert kinds == {
        "5b-i2v": "image", "fun-5b-control": "control", "fun-5b-inp": "inpaint", "1.5-5b-i2v": "image",
    }  # fmt: skip


def test_full_size_is_that_of_training():
    assert config_of("fun-1.5-5b-inp").native_size == (672, 384, 85)
    assert config_of("fun-5b-inp").native_size == (720, 480, 49)
    assert CogVideoXConfig(in_channels=33, rotary=False).own_tokens == (13, 30, 45)
