"""The table of modulations against the layers it stands for."""

import copy
from dataclasses import replace

import pytest
import torch

from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.cogvideox.model import CogVideoXTransformer
from kinetograph.modules.families.cogvideox.modulation import is_tabulated

TINY = CogVideoXConfig(
    num_layers=2, num_heads=2, head_dim=16, time_embed_dim=8, text_dim=12, sample_width=12, sample_height=8
)
SCHEDULE = [999.0, 749.0, 499.0, 249.5]


def build(config=TINY):
    generator = torch.Generator().manual_seed(0)
    model = CogVideoXTransformer(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(0, 0.5, generator=generator)
    return model


def given(config=TINY, timesteps=(999.0, 249.5)):
    x = torch.randn(2, config.in_channels, 2, 8, 12, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor(timesteps), torch.ones(2, 5, config.text_dim)


def run(model, *args, **kwargs):
    with torch.inference_mode():
        return model(*args, **kwargs)


@pytest.mark.parametrize("config", [TINY, replace(TINY, patch_size_t=2, in_channels=32, ofs_dim=8)])
def test_table_gives_the_same_function_without_the_layers(config):
    model = build(config)
    expected = run(model, *given(config))
    table = model.tabulate(SCHEDULE)
    lean = copy.deepcopy(model)
    for key, parameter in lean.named_parameters():
        if is_tabulated(key):
            parameter.data = torch.full_like(parameter, float("nan"))
    out = run(lean, *given(config), modulation=table)
    assert (out - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_one_row_is_bitwise_the_layers():
    model = build()
    x, _, context = given()
    timestep = torch.tensor([499.0])
    table = model.tabulate([499.0])
    assert torch.equal(
        run(model, x[:1], timestep, context[:1], modulation=table), run(model, x[:1], timestep, context[:1])
    )


def test_unknown_timesteps_are_named():
    model = build()
    table = model.tabulate(SCHEDULE)
    with pytest.raises(ValueError, match="no row for timestep 250"):
        run(model, *given(timesteps=(999.0, 250.0)), modulation=table)


def test_other_ofs_is_refused():
    config = replace(TINY, patch_size_t=2, in_channels=32, ofs_dim=8)
    model = build(config)
    table = model.tabulate(SCHEDULE)
    run(model, *given(config), ofs_b=torch.full((2,), 2.0), modulation=table)
    with pytest.raises(ValueError, match="made for ofs 2"):
        run(model, *given(config), ofs_b=torch.full((2,), 1.0), modulation=table)


def test_resident_weights_of_5b():
    """Weights that stay, and a table of 50 steps, in bf16."""
    model = CogVideoXTransformer(CogVideoXConfig(), device="meta", dtype=torch.bfloat16)
    weights = {key: parameter.nbytes for key, parameter in model.named_parameters()}
    resident = sum(size for key, size in weights.items() if not is_tabulated(key))
    table = model.tabulate([float(t) for t in range(50)])
    assert table.nbytes == 50 * (42 * 12 + 2) * 3072 * 2
    assert resident + table.nbytes <= 0.88 * sum(weights.values())


def test_tables_may_be_made_while_a_graph_is_recorded():
    model = build().requires_grad_(True)
    table = model.tabulate(SCHEDULE)
    assert not table.rows.out_bcd.requires_grad
    model(*given(), modulation=table).sum().backward()
    assert model.proj_out.weight.grad is not None
    assert model.norm_out.linear.weight.grad is None
