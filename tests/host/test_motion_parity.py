"""The host's UNets with our motion modules against UNets put together of diffusers' layers, norm by norm.

The table of the spec (section 1.5): which norms of a release saw a whole clip in training. The references are
diffusers' UNetMotionModel with the host's weights, each of its norms wrapped as the table says.
"""

import pytest
import torch
from torch import nn

from kinetograph.tests import motion_files
from kinetograph.tests.host.motion_bench import SIZE, Calls, MotionBench
from kinetograph.tests.host.workbench import relative
from kinetograph.tests.modules.test_animatediff_keys import SECOND_TABLE, to_diffusers

pytestmark = pytest.mark.newest

SAME, OTHER = 5e-6, 1e-3
CHANNELS = (32, 64, 128, 128)
DOWN, CROSS_DOWN = "DownBlockMotion", "CrossAttnDownBlockMotion"
UP, CROSS_UP = "UpBlockMotion", "CrossAttnUpBlockMotion"
SD15 = {"block_out_channels": CHANNELS, "cross_attention_dim": 32, "sample_size": 8}
SDXL = {
    **{"block_out_channels": CHANNELS[:3], "cross_attention_dim": 32, "sample_size": 8},
    **{"down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN), "up_block_types": (CROSS_UP, CROSS_UP, UP)},
    **{"transformer_layers_per_block": (1, 1, 2), "transformer_layers_per_mid_block": 2},
    # of ups as of downs, reversed
    **{"num_attention_heads": (1, 1, 2), "use_linear_projection": True},
    **{"addition_embed_type": "text_time", "addition_time_embed_dim": 256},
    "projection_class_embeddings_input_dim": 2816,
}
# what the host tells SDXL of a picture: its size in pixels, nothing cut off
TIME_IDS = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]])
# release -> the norms that see a whole clip: of "motion" modules, of the "base" (ResBlocks and the last one), and of
# spatial "transformers"
TABLE = {"v1": {"base"}, "v2": set(), "v3": set(), "SDXL beta": {"motion"}, "AnimateLCM": set()}
# what other programs do, as far as it is not right
DIFFUSERS = {"v1": {"motion"}, "v2": {"motion"}, "v3": {"motion"}}
EVOLVED = {version: {"motion", "base", "transformers"} for version in ("v1", "SDXL beta")}


class Alone(nn.Module):
    """A norm that diffusers calls with a whole clip (b, c, t, h, w), over each frame alone."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return torch.stack([self.norm(frame) for frame in x.unbind(2)], dim=2)


class Together(Alone):
    """A norm that diffusers calls with the frames (t, c, h, w) of one clip, over all of them."""

    def forward(self, x):
        return self.norm(x.transpose(0, 1)[None])[0].transpose(0, 1)


def reference(model, motion, joint):
    """UNetMotionModel with the weights of a host's MODEL and of its motion modules, `joint` norms over clips."""
    import comfy.utils
    from diffusers import UNetMotionModel
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    sdxl = len(motion.config.channels) == 3
    told = {"motion_max_seq_length": motion.config.rows, "use_motion_mid_block": motion.config.mid}
    made = UNetMotionModel(**(SDXL if sdxl else SD15), **told)
    base = model.model.diffusion_model.state_dict()
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    weights = {theirs: base[ours] for theirs, ours in names.items() if ours in base}
    weights |= {to_diffusers(key): value for key, value in motion.state_dict().items()}
    missing, strange = made.load_state_dict(weights, strict=False)
    # diffusers computes the positions that a file does not hold; the labels of the host have two names
    assert all(key.endswith("pos_embed.pe") for key in missing) and bool(missing) is (
        not motion.config.tables
    )
    assert all(
        key.startswith(("class_embedding", "add_embedding")) or SECOND_TABLE in key for key in strange
    ), strange
    for layer in [*made.modules()]:
        if isinstance(layer, ResnetBlock2D) and "base" in joint:
            layer.norm1, layer.norm2 = Together(layer.norm1), Together(layer.norm2)
        if isinstance(layer, Transformer2DModel) and "transformers" in joint:
            layer.norm = Together(layer.norm)
        if isinstance(layer, AnimateDiffTransformer3D) and "motion" not in joint:
            layer.norm = Alone(layer.norm)
    if "base" in joint:
        made.conv_norm_out = Together(made.conv_norm_out)
    return made.eval().requires_grad_(False)


def run_reference(network, call, frames):
    """What a reference says of the clips of a call, one after another."""
    results = []
    for start in range(0, len(call["x"]), frames):
        clip = slice(start, start + frames)
        more = {}
        if call["y"] is not None:
            more["added_cond_kwargs"] = {
                "text_embeds": call["y"][start : start + 1, :1280],
                "time_ids": TIME_IDS,
            }
        with torch.inference_mode():
            x = call["x"][clip].transpose(0, 1)[None]
            out = network(x, call["timestep"][start], call["context"][clip], **more).sample
        results.append(out[0].transpose(0, 1))
    return torch.cat(results)


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return MotionBench(base)


@pytest.fixture(scope="module")
def sampled(bench):
    """version -> (MODEL, motion modules, one call of two clips and two conditionings)."""
    known = {}

    def sample(version):
        if version not in known:
            base = bench.base(version)
            # of unit gain: else what happens far inside is lost in rounding
            motion_files.randomise(base.model.diffusion_model, 5)
            model = bench.move(base, version, num_frames=4)
            calls = Calls(model)
            bench.ksampler(calls.model, bench.empty(4, clips=2), steps=2)
            (motion,) = model.get_additional_models_with_key("kinetograph_motion")
            known[version] = (base, motion.model, calls.seen[-1])
        return known[version]

    return sample


@pytest.mark.parametrize("version", TABLE)
def test_the_whole_network_has_the_norms_of_the_table(sampled, version):
    base, motion, call = sampled(version)
    assert len(call["x"]) == 16
    assert relative(call["out"], run_reference(reference(base, motion, TABLE[version]), call, 4)) <= SAME


@pytest.mark.parametrize(
    ("whose", "version"), [*(("diffusers", v) for v in DIFFUSERS), *(("Evolved", v) for v in EVOLVED)]
)
def test_the_norms_of_other_programs_show(sampled, whose, version):
    base, motion, call = sampled(version)
    joint = (DIFFUSERS if whose == "diffusers" else EVOLVED)[version]
    assert relative(call["out"], run_reference(reference(base, motion, joint), call, 4)) > OTHER


@pytest.mark.parametrize("place", ["mid_block", "down_blocks.3", "up_blocks.0"])
def test_what_is_far_inside_shows(sampled, place):
    """Whether an output tells of the modules that are farthest from it."""
    base, motion, call = sampled("v2")
    network = reference(base, motion, TABLE["v2"])
    with torch.no_grad():
        network.get_submodule(f"{place}.motion_modules.0.proj_out").weight.zero_()
    assert relative(call["out"], run_reference(network, call, 4)) > 20 * SAME


def test_frames_in_another_order_show(sampled):
    """Whether the reference sees positions at all."""
    base, motion, call = sampled("v2")
    turned = {**call, "x": call["x"].unflatten(0, (-1, 4)).flip(1).flatten(0, 1)}
    expected = (
        run_reference(reference(base, motion, set()), turned, 4).unflatten(0, (-1, 4)).flip(1).flatten(0, 1)
    )
    assert relative(call["out"], expected) > OTHER
