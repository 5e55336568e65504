"""Work in slabs: what is cut and put together again equals PyTorch's own on the whole."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kinetograph.modules.layers import positions, slabs
from kinetograph.modules.layers.feed_forward import FeedForward, geglu, gelu_tanh
from kinetograph.modules.layers.operations import TorchOperations

CPU, OTHER = torch.device("cpu"), torch.device("meta")


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize(
    "count, numbers, lengths", [(7, 5, [2, 2, 2, 1]), (3, 100, [1, 1, 1]), (2, 1, [2]), (0, 1, [])]
)
def test_spans_cover_everything_once(count, numbers, lengths):
    places = list(slabs.Budget(cpu=10, accelerator=1).spans(count, numbers, CPU))
    assert [place.stop - place.start for place in places] == lengths
    assert [i for place in places for i in range(count)[place]] == list(range(count))


def test_a_budget_depends_on_the_device():
    budget = slabs.Budget(cpu=10, accelerator=30)
    assert budget.at_once(5, CPU) == 2 and budget.at_once(5, OTHER) == 6
    assert budget.fits(torch.empty(10)) and not budget.fits(torch.empty(11))
    assert budget.fits(torch.empty(30, device=OTHER)) and not budget.fits(torch.empty(31, device=OTHER))


@pytest.mark.parametrize("sizes", [(3, 5), (4, 4)])
def test_clips_lie_with_channels_innermost_on_a_cpu(sizes):
    clip, frames = slabs.allocate(draw(1), 2, 3, 4, *sizes), slabs.allocate(draw(1), 2, 3, *sizes)
    assert clip.stride(1) == 1 and frames.is_contiguous()
    assert slabs.allocate(torch.empty(1, device=OTHER), 2, 3, 4, *sizes).is_contiguous()


def group_norm(channels, groups, dtype=torch.float32):
    norm = nn.GroupNorm(groups, channels, eps=1e-5).to(dtype)
    norm.weight.data, norm.bias.data = draw(channels, dtype=dtype), draw(channels, dtype=dtype).flip(0)
    return norm.requires_grad_(False)


TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.mark.parametrize("shape, dim", [((2, 8, 5, 4, 3), 2), ((1, 8, 3, 10), 3), ((1, 8, 3, 1), 2)])
@pytest.mark.parametrize("step", [1, 2, 100])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_group_norm_from_pieces(shape, dim, step, dtype):
    """Pieces with means of their own, of unequal lengths, of numbers far from zero."""
    x = (draw(*shape) * 0.5 + torch.arange(shape[dim]).view(-1, *[1] * (len(shape) - dim - 1)) + 3).to(dtype)
    norm = group_norm(8, 4, dtype)
    affine = slabs.affine_of(norm, x.split(step, dim=dim), TorchOperations)
    assert affine.scale.shape == (shape[0], 8, *[1] * (len(shape) - 2))
    ours = affine.write(x, torch.empty_like(x))
    exact = F.silu(F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps))
    assert (ours.double() - exact).abs().max() <= TOLERANCES[dtype] * exact.abs().max()


def test_pieces_that_lie_anyhow_in_memory():
    x = draw(2, 8, 5, 4, 3)
    norm = group_norm(8, 2)
    expected = slabs.affine_of(norm, x.split(2, dim=2), TorchOperations)
    for laid in (x.to(memory_format=torch.channels_last_3d), x.transpose(3, 4).contiguous().transpose(3, 4)):
        found = slabs.affine_of(norm, laid.split(2, dim=2), TorchOperations)
        torch.testing.assert_close((found.scale, found.shift), (expected.scale, expected.shift))


def test_a_norm_without_a_bias_is_refused():
    with pytest.raises(ValueError, match="bias is missing"):
        slabs.affine_of(nn.GroupNorm(2, 4, affine=False), [draw(1, 4, 2, 2)], TorchOperations)


@pytest.mark.parametrize("activation, wide", [(gelu_tanh, 4), (geglu, 8)])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_a_feed_forward_in_rows(activation, wide, rows, monkeypatch):
    """However many slabs there are, weights are fetched once, for a host may have to move them."""
    fetched = []

    class Counting(TorchOperations):
        @staticmethod
        def weights(module, like):
            fetched.append(module)
            return TorchOperations.weights(module, like)

    monkeypatch.setattr(slabs, "TOKENS", slabs.Budget(rows * wide * 6, 1))
    layer = FeedForward(6, wide * 6, activation, Counting, dtype=torch.float64).requires_grad_(False)
    x = draw(2, 5, 6, dtype=torch.float64)
    up, down = layer.net[0].proj, layer.net[2]
    h = F.linear(x, up.weight, up.bias)
    h = F.gelu(h, approximate="tanh") if wide == 4 else h[..., :24] * F.gelu(h[..., 24:])
    expected, sizes = F.linear(h, down.weight, down.bias), []
    with torch.inference_mode():
        for part, run in layer.in_rows(x, slabs.TOKENS):
            sizes.append(len(part))
            part.copy_(run(part))
    assert sum(sizes) == 10 and max(sizes) == min(rows, 10)
    assert len(fetched) == (2 if rows < 10 else 0)
    assert (x - expected).abs().max() <= 1e-13


@pytest.mark.parametrize("tokens", [1, 3, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rotation_in_slabs_rounds_once(tokens, dtype, monkeypatch):
    x, start = draw(2, 3, 9, 8, dtype=dtype), 2
    table = torch.polar(torch.ones(7, 4), draw(7, 4))
    pairs = torch.view_as_complex(x[:, :, start:].float().unflatten(-1, (-1, 2))) * table
    expected = torch.cat([x[:, :, :start], torch.view_as_real(pairs).flatten(-2).to(dtype)], dim=2)
    monkeypatch.setattr(slabs, "TOKENS", slabs.Budget(tokens * 4 * 2 * 3 * 8, 1))
    with torch.inference_mode():
        assert torch.equal(positions.rotate(x, table, start), expected)
