"""Patches of other nodes on our networks: as on the host's own SVD with the same weights, or refused by name."""

import pytest
import torch

from kinetograph.tests.host import wide_svd
from kinetograph.tests.host.wide_svd import forward, inputs, sampled
from kinetograph.tests.host.workbench import SVDWorkbench, relative

ONE_FORWARD = 1e-5  # 4e-6 is reached
THREE_STEPS = 3e-5  # 7e-6 is reached, 3e-6 without any patch


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


@pytest.fixture(scope="module")
def pair(bench, base):
    """(ours, the host's), patched by nobody: tests take clones."""
    return wide_svd.load_both(bench, base / "models" / "SVD")


@pytest.fixture(scope="module")
def plain(pair):
    """v without any patch."""
    return forward(pair[0], inputs())


@pytest.fixture(scope="module")
def unpatched(pair):
    """Three steps without any patch."""
    return sampled(pair[0])


def copied(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


def notes(options):
    """What a patch can read beside the tensors."""
    kept = {key: value for key, value in options.items() if key not in ("patches", "patches_replace")}
    return {key: list(value) if isinstance(value, list) else value for key, value in kept.items()}


def difference(ours, theirs):
    """Largest relative difference of tensors; everything else has to be the same."""
    if isinstance(theirs, torch.Tensor):
        return relative(ours, theirs)
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        return max((difference(ours[key], theirs[key]) for key in theirs), default=0.0)
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        return max((difference(*both) for both in zip(ours, theirs, strict=True)), default=0.0)
    assert ours == theirs
    return 0.0


def watch(seen):
    """transformer_options with a patch at every place; each records what it gets and changes it a little."""

    def record(name, *values):
        seen.append((name, *map(copied, values[:-1]), notes(values[-1])))

    def attention(q, k, v, told):
        record("attention", q, k, v, told)
        return q * 1.1, k * 0.9, v * 1.2

    def output(x, told):
        record("output", x, told)
        return x * 1.05

    def skip(h, side, told):
        record("skip", h, side, told)
        return h * 1.02, side * 0.95

    def embedding(emb, channels, told):
        record("embedding", emb, torch.tensor(channels), told)
        return emb * 1.1

    def replacement(q, k, v, told):
        record("replacement", q, k, v, told)
        return q * 0.5 + v.mean(dim=1, keepdim=True)

    one = {
        "attn1_patch": attention,
        "attn2_patch": attention,
        "output_block_patch": skip,
        "emb_patch": embedding,
    }
    alike = ("attn1_output_patch", "attn2_output_patch", "middle_patch")
    alike += ("input_block_patch", "input_block_patch_after_skip")
    return {
        "patches": {name: [patch] for name, patch in {**one, **dict.fromkeys(alike, output)}.items()},
        "patches_replace": {
            "attn1": {("middle", 0): replacement, ("input", 4, 0): replacement},
            "attn2": {("output", 5): replacement, ("input", 1, 0): replacement},
        },
        "cond_or_uncond": [0],
        "sigmas": torch.tensor([3.0]),
        "others": "a note of somebody",
    }


@pytest.mark.parametrize("clips, images", [(1, ()), (2, (1,))], ids=str)
def test_patches_see_what_they_see_on_the_hosts_network(pair, clips, images):
    """Every place at once: order, shapes, values and notes."""
    given, ours, theirs = inputs(clips, images=images), [], []
    mine, its = watch(ours), watch(theirs)
    assert relative(forward(pair[0], given, mine), forward(pair[1], given, its)) <= ONE_FORWARD
    assert len(ours) == len(theirs) == 1 + 12 * 2 + 12 + 32 * 5 + 8
    assert difference(ours, theirs) <= ONE_FORWARD
    assert difference(notes(mine), notes(its)) <= ONE_FORWARD


@pytest.mark.parametrize("name", watch([])["patches"])
def test_each_patch_acts_alone(pair, plain, name):
    given = inputs()
    ours, theirs = (forward(model, given, {"patches": {name: watch([])["patches"][name]}}) for model in pair)
    assert relative(ours, theirs) <= ONE_FORWARD
    assert relative(ours, plain) > 1e-4


TRANSFORMERS = [("middle", 0)]
TRANSFORMERS += [("input", number) for number in (1, 2, 4, 5, 7, 8)]
TRANSFORMERS += [("output", number) for number in range(3, 12)]


@pytest.mark.parametrize("attention", ["attn1", "attn2"])
def test_every_block_key_reaches_its_own_block(pair, plain, attention):
    def scaled(place):
        return lambda q, k, v, told: (
            (q * (2 + place) / 9 + v.mean(dim=1, keepdim=True)) * told["dim_head"] / 64
        )

    # odd ones with the number of the block inside the transformer, which goes before the key without
    keys = {(*key, 0) if i % 2 else key: scaled(i) for i, key in enumerate(TRANSFORMERS)}
    keys |= {("middle", 0, 0): scaled(20)}
    given, options = inputs(), {"patches_replace": {attention: keys}}
    ours, theirs = (forward(model, given, dict(options)) for model in pair)
    assert relative(ours, theirs) <= ONE_FORWARD and relative(ours, plain) > 1e-2


def control(given):
    """What a ControlNet could give to a few blocks, the last of each stage first."""
    generator = torch.Generator().manual_seed(4)
    n, h, w = len(given["x"]), 8, 16

    def draw(channels, divisor):
        return torch.randn(n, channels, -(-h // divisor), -(-w // divisor), generator=generator)

    # the first blocks of the way down, all at full size, and the last of the way up
    down = [draw(64, 2), *(draw(64, 1) for _ in range(3))]
    up = [draw(64, 1), None, draw(64, 1), draw(64, 2), *(None for _ in range(8))]
    return {"input": down, "middle": [draw(128, 8)], "output": up}


def test_a_controlnet_acts_as_on_the_hosts_network(pair, plain):
    given = inputs()
    ours, theirs = (forward(model, given, control=control(given)) for model in pair)
    assert relative(ours, theirs) <= ONE_FORWARD and relative(ours, plain) > 1e-2


def test_a_controlnet_of_other_sizes_is_refused(pair):
    given = inputs()
    too_many, too_wide = control(given), control(given)
    too_many["middle"] *= 2
    too_wide["input"][-1] = torch.zeros(1, 320, 8, 16)
    for wrong, words in ((too_many, "1 middle blocks.*has 2"), (too_wide, r"320, 8, 16\) to input block 0")):
        with pytest.raises(ValueError, match=words):
            forward(pair[0], given, control=wrong)


class Injected(torch.nn.Module):
    """A layer of another pack among the layers of a block."""


def test_layers_of_others_work_among_ours(pair, plain):
    """As AnimateDiff puts them there: a class of its own, and a patch that runs it."""
    seen = []

    def handler(layer, x, emb, context, told, shape, time_context, frames, images):
        seen.append(
            (emb.clone(), context, told["block"], shape and list(shape), time_context, frames, images)
        )
        return x + 0.1 * emb[:, : x.shape[1], None, None] * told["transformer_index"]

    given, results = inputs(), []
    for model in pair:
        network = model.model.diffusion_model
        blocks = [network.input_blocks[1], network.middle_block, network.output_blocks[4]]
        for block in blocks:
            block.append(Injected())
        options = {"patches": {"forward_timestep_embed_patch": [(Injected, handler)]}}
        try:
            results.append(forward(model, given, options))
        finally:
            for block in blocks:
                del block[-1]
        if model is pair[0]:
            with pytest.raises(
                ValueError, match="forward_timestep_embed_patch for layers of the class Injected"
            ):
                forward(model, given, options)
    assert relative(*results) <= ONE_FORWARD and relative(results[0], plain) > 1e-3
    assert len(seen) == 6 and difference(seen[:3], seen[3:]) <= ONE_FORWARD


def test_empty_entries_and_other_notes_change_nothing(pair, plain):
    notes = {
        "patches": {"double_block": []},
        "patches_replace": {"dit": {}},
        "rope_options": {"scale_x": 2.0},
    }
    assert torch.equal(forward(pair[0], inputs(), notes), plain)


@pytest.mark.parametrize("name", wide_svd.NODES)
def test_nodes_of_the_host_act_as_on_its_own_model(pair, unpatched, name):
    results = []
    for model in pair:
        torch.manual_seed(0)
        results.append(sampled(wide_svd.patched(model, name)))
    assert relative(*results) <= THREE_STEPS and relative(results[0], unpatched) > 1e-2
