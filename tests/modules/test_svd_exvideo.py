"""ExVideo's branches against diffsynth, against plain SVD, and against wrong variants."""

import pytest
import torch
import torch.nn.functional as F

from kinetograph.benchmarks import peers
from kinetograph.modules.families.svd import exvideo, keys, long_positions, transformer
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.families.svd.model import SVDUNet
from kinetograph.modules.layers import positions, slabs
from kinetograph.modules.layers.attention import attend
from kinetograph.modules.layers.operations import TorchOperations

TINY = SVDConfig(channels=(32, 32, 32, 32), head_dim=32, context_dim=32, adm_dim=96)
BRANCH = SVDConfig(head_dim=16, context_dim=32)
SIZE = (4, 6)


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1.0
        parameter.data.normal_(0, 1.5 / fan**0.5 if fan > 1 else 1.0, generator=generator)
    return module.eval().requires_grad_(False)


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def branch_pair(identity):
    """diffsynth's temporal block with ExVideo's positions, and a transformer of ours with its weights."""
    oracle = peers.load_diffsynth("svd_unet").TemporalAttentionBlock(4, 16, 64, 32, add_positional_conv=128)
    table = oracle.positional_embedding.embeddings.clone()
    randomise(oracle)
    if identity:
        oracle.positional_embedding.embeddings.copy_(table)
        torch.nn.init.dirac_(oracle.positional_conv.weight)
        torch.nn.init.zeros_(oracle.positional_conv.bias)
    branch = exvideo.ExVideoBranch(64, BRANCH, TorchOperations, attend)
    weights = oracle.state_dict()
    renames = keys.KeyMap(*keys.EXVIDEO_BRANCH).rename(weights)
    branch.load_state_dict({renames[key]: value for key, value in weights.items()}, strict=True)
    ours = transformer.VideoTransformer(64, 32, 16, TorchOperations, attend)
    branch.put_into(ours)
    return ours.eval().requires_grad_(False), oracle


def both(ours, oracle, frames, slabs=True):
    """What the branch over time alone makes of random tokens, by us and by diffsynth."""
    generator = torch.Generator().manual_seed(frames)
    x_nchw = torch.randn(frames, 64, *SIZE, generator=generator)
    context = torch.randn(1, 1, 32, generator=generator)
    theirs = oracle(x_nchw, None, context[0], None)[0]
    tokens = x_nchw.flatten(2).transpose(1, 2).contiguous()[None]
    block = ours.time_stack[0]
    if slabs:
        with torch.no_grad():
            ours._over_time(tokens, SIZE, None, block.effect(context), torch.ones(1, 1, 1, 1))
    else:  # as under a graph, the context attended to like any other
        start = ours._placed_in_time(tokens, SIZE)[0].transpose(0, 1).contiguous()
        x = start + block.ff_in(block.norm_in(start))
        y = block.norm1(x)
        x = x + block.attn1(y, y, None)
        x = x + block.attn2(block.norm2(x), context.repeat(len(x), 1, 1), None)
        tokens = (x + block.ff(block.norm3(x))).transpose(0, 1)[None]
    return tokens[0].transpose(1, 2).unflatten(2, SIZE), theirs


@pytest.mark.parametrize("frames, identity", [(25, True), (40, False)])
def test_branch_equals_diffsynth(frames, identity):
    pair = branch_pair(identity)
    assert relative_error(*both(*pair, frames)) <= 2e-6
    assert relative_error(*both(*pair, frames, slabs=False)) == 0.0


def test_positions_equal_diffsynth_exactly():
    """Table, its projection and the convolution, before any matrix product is cut differently."""
    ours, oracle = branch_pair(False)
    x_nchw = torch.randn(40, 64, *SIZE, generator=torch.Generator().manual_seed(0))
    rows = oracle.positional_embedding_proj(oracle.positional_embedding(torch.arange(40)))
    theirs = oracle.positional_conv((x_nchw + rows[..., None, None]).transpose(0, 1)[None])[0].transpose(0, 1)
    tokens = x_nchw.flatten(2).transpose(1, 2).contiguous()[None]
    assert torch.equal(ours._placed_in_time(tokens, SIZE)[0].transpose(1, 2).unflatten(2, SIZE), theirs)


def zero_padding(monkeypatch, ours):
    monkeypatch.setattr(
        long_positions,
        "_reflect",
        lambda tokens, rows, frames: _zero_padded(tokens + rows[:, None, None], frames),
    )


def _zero_padded(tokens_thwd, frames):
    return F.pad(tokens_thwd[frames], (0, 0, 1, 1, 1, 1))


def plain_sinusoids(monkeypatch, ours):
    ours.positional.embeddings.copy_(positions.sinusoid(torch.arange(128), 64))


def clamped_in_time(monkeypatch, ours):
    monkeypatch.setattr(long_positions, "_reflected", lambda index, count: min(max(index, 0), count - 1))


@pytest.mark.parametrize("wrong", [zero_padding, plain_sinusoids, clamped_in_time])
def test_a_wrong_variant_shows(monkeypatch, wrong):
    ours, oracle = branch_pair(wrong is plain_sinusoids)
    assert relative_error(*both(ours, oracle, 40)) <= 2e-6
    wrong(monkeypatch, ours)
    assert relative_error(*both(ours, oracle, 40)) > 1e-3


@pytest.mark.parametrize("elements", [1, 7 * 64 * 24])
def test_chunks_of_frames_only_round(monkeypatch, elements):
    monkeypatch.setattr(slabs, "LONG_CLIP", slabs.Budget(elements, elements))
    assert relative_error(*both(*branch_pair(False), 40)) <= 2e-6


def test_half_precision_convolves_at_once():
    """conv3d, as on an accelerator, gives what the three plane convolutions give."""
    ours, _ = branch_pair(False)
    tokens = torch.randn(1, 9, 24, 64, dtype=torch.float64)
    with torch.no_grad():
        rows = torch.randn(9, 64)
        planes = ours.positional(tokens.float(), rows, SIZE)
        volume = ours.double().positional(tokens, rows.double(), SIZE)
    assert relative_error(planes.double(), volume) <= 1e-6


def test_initial_table_is_diffsynths():
    oracle = peers.load_diffsynth("svd_unet").TrainableTemporalTimesteps(64, True, 0, 128)
    assert torch.allclose(long_positions.initial_rows(64), oracle.embeddings, rtol=0, atol=1e-6)
    ids = long_positions.bounced_ids(128)
    assert ids[:25] == list(range(25)) and ids[25:45] == list(range(23, 3, -1))
    assert ids[45:65] == list(range(5, 25)) and ids[-1] == 7


def unets():
    plain = randomise(SVDUNet(TINY))
    branches = exvideo.ExVideoBranches(TINY).requires_grad_(False)
    branches.start_from(plain)
    extended = SVDUNet(TINY)
    extended.load_state_dict(plain.state_dict())
    branches.put_into(extended)
    return plain, extended.requires_grad_(False), branches


def call(model, frames, clips=1, side=16):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(clips * frames, 8, side, side, generator=generator)
    context = torch.randn(clips, 1, TINY.context_dim, generator=generator)
    y = torch.randn(clips, TINY.adm_dim, generator=generator)
    with torch.no_grad():
        return model(x, torch.linspace(0.5, -0.5, clips), context, y=y, num_video_frames=frames)


def test_untrained_branches_change_nothing_up_to_25_frames():
    plain, extended, _ = unets()
    for frames, clips in ((25, 1), (3, 2)):
        assert relative_error(call(extended, frames, clips), call(plain, frames, clips)) <= 1e-6


def test_longer_clips_take_positions_from_the_table():
    plain, extended, branches = unets()
    usual = call(extended, 26)
    assert relative_error(usual, call(plain, 26)) > 1e-3  # frame 25 bounces back to 23
    for _, branch in branches.items():
        branch.positional.embeddings[26:] = 100.0
    assert torch.equal(call(extended, 26), usual)
    for _, branch in branches.items():
        branch.positional.embeddings[25] += 1.0
    assert relative_error(call(extended, 26), usual) > 1e-3


def test_limits():
    _, extended, branches = unets()
    assert branches.max_frames == 128
    assert call(extended, 128).isfinite().all()
    with pytest.raises(ValueError, match="128 frames: got 129"):
        call(extended, 129)
    with pytest.raises(ValueError, match="at least 2 frames"):
        call(extended, 1)
    with pytest.raises(ValueError, match="128 pixels"):
        call(extended, 3, side=8)


def test_training_reaches_every_tensor_of_a_branch():
    _, extended, branches = unets()
    branches.requires_grad_(True)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 8, 16, 16, generator=generator)
    context = torch.randn(1, 2, TINY.context_dim, generator=generator)
    v = extended(x, torch.zeros(1), context, y=torch.randn(1, TINY.adm_dim, generator=generator))
    with torch.no_grad():
        once = extended(x, torch.zeros(1), context, y=torch.randn(1, TINY.adm_dim, generator=generator))
    assert once.shape == v.shape
    v.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in branches.parameters())


def test_full_size_has_the_tensors_that_were_published():
    branches = exvideo.ExVideoBranches(SVDConfig(), device="meta")
    sizes = {key: value.numel() for key, value in branches.state_dict().items()}
    assert len(sizes) == 528 and sum(sizes.values()) == 832_956_800
    assert sum(size for key, size in sizes.items() if ".positional." in key) == pytest.approx(
        336.15e6, rel=1e-4
    )
    assert [path for path, _ in branches.items()][6] == "middle_block.1"
    assert branches.state_dict()["output_blocks.11.1.positional.embeddings"].shape == (128, 320)
