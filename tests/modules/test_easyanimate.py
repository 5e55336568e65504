"""EasyAnimate v1's motion modules: the reference's own numbers, diffusers' block on cells, and the whole 3-D model."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from einops import rearrange

from kinetograph.benchmarks import peers
from kinetograph.modules.families.easyanimate import GRID_MODULES, MOTION_MODULE, model
from kinetograph.modules.families.easyanimate.config import ROWS, GridConfig
from kinetograph.modules.families.easyanimate.model import GridModules, GridTransformer
from kinetograph.modules.families.pixart.blocks import Layout
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.families.pixart.keys import DIFFUSERS
from kinetograph.modules.families.pixart.model import PixArtTransformer
from kinetograph.modules.layers import slabs
from kinetograph.modules.layers.attention import attend
from kinetograph.modules.layers.operations import TorchOperations
from kinetograph.modules.layers.temporal_block import sinusoid_table
from kinetograph.tests.easyanimate_reference import GridReference, by_formula, put_motion

WIDTH, LAYERS, TEXT = 64, 2, 10
TOLERANCE = 3e-6  # of the largest value
CONFIG = GridConfig(num_layers=LAYERS, width=WIDTH)
PIXART = PixArtConfig(num_layers=LAYERS, num_heads=4, head_dim=WIDTH // 4, text_dim=TEXT)
BOTH = pytest.mark.parametrize("graph", [True, False], ids=["graph", "slabs"])


def draw(network, seed=0):
    """Matrices of unit gain but for queries and keys, rows of size one: attention that picks, no path that is dead."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        is_row = parameter.ndim == 1 or name.endswith("table")
        spread = 0.5 if is_row else parameter[0].numel() ** -0.5
        middle = 1.0 if parameter.ndim == 1 and "norm" in name and name.endswith("weight") else 0.0
        parameter.data.normal_(
            middle, spread * (1.5 if "to_q" in name or "to_k" in name else 1), generator=generator
        )
    return network.eval().requires_grad_(False)


def grid(seed=0, attention=attend, **changes):
    """One module of ours."""
    return draw(GridTransformer(replace(CONFIG, **changes), TorchOperations, attention), seed)


def tokens(frames, height=4, width=4, clips=1, channels=WIDTH, seed=1):
    """Tokens (clips * frames, l, d) whose frames differ in mean and size, so that norms over other axes show."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(clips * frames, height * width, channels, generator=generator)
    steps = torch.linspace(0, 1, len(x)).view(-1, 1, 1)
    return x * (0.5 + 1.5 * steps) + 2 * steps - 1


def run(module, x_nld, frames, height=4, width=4, graph=False):
    with torch.enable_grad() if graph else torch.no_grad():
        return module(x_nld.clone(), Layout(frames, height, width), None)


def relative(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


VECTORS = {
    2: (-33.98654, 1928.3516, (2.18275, -0.66940, -0.54671)),
    1: (-30.15873, None, (1.21497, -0.55466, 1.74665)),
}


def as_in_the_specification(module):
    """Parameters by a formula of their place in the list of sorted names."""
    for k, (name, parameter) in enumerate(sorted(module.named_parameters())):
        j = torch.arange(parameter.numel(), dtype=torch.float64)
        values = 0.25 * torch.sin(0.001 * j**2 + 0.1 * j + k)
        if parameter.ndim == 1 and name.endswith("weight"):
            values = values + 1
        parameter.data = values.view(parameter.shape).float()
    return module.eval().requires_grad_(False)


@BOTH
@pytest.mark.parametrize("cell", VECTORS)
def test_the_numbers_of_the_reference(cell, graph):
    """Made once with aigc-apps/EasyAnimate itself: 2 frames of 4x4 tokens, 32 channels."""
    module = as_in_the_specification(GridTransformer(GridConfig(1, 32, cell), TorchOperations, attend))
    j = torch.arange(32 * 2 * 4 * 4, dtype=torch.float64)
    x_bcfhw = torch.cos(0.003 * j**2 + 0.05 * j).view(1, 32, 2, 4, 4).float()
    out = run(module, rearrange(x_bcfhw, "b c f h w -> (b f) (h w) c"), 2, graph=graph)
    y = rearrange(out, "(b f) (h w) c -> b c f h w", f=2, h=4)
    total, size, points = VECTORS[cell]
    assert y.sum().item() == pytest.approx(total, abs=1e-3)
    assert size is None or y.abs().sum().item() == pytest.approx(size, abs=1e-2)
    found = [y[0, 0, 0, 0, 0].item(), y[0, 16, 1, 1, 2].item(), y[0, 31, -1, -1, -1].item()]
    assert found == pytest.approx(points, abs=1e-4)


CLIPS = [(1, 1), (2, 1), (16, 2), (40, 2), (80, 1)]


@BOTH
@pytest.mark.parametrize(("frames", "clips"), CLIPS)
def test_a_module_is_the_block_of_diffusers_on_cells(frames, clips, graph):
    ours, x = grid(), tokens(frames, 4, 6, clips)
    out = run(ours, x, frames, 4, 6, graph)
    assert relative(out, GridReference(ours, frames)(x, 4, 6)) <= TOLERANCE


@BOTH
def test_other_cells(graph):
    for cell in (1, 4):
        ours, x = grid(cell=cell), tokens(3, 4, 8)
        assert relative(run(ours, x, 3, 4, 8, graph), GridReference(ours, 3, cell)(x, 4, 8)) <= TOLERANCE
        assert relative(run(ours, x, 3, 4, 8, graph), GridReference(ours, 3, 2)(x, 4, 8)) > 1e-2


@BOTH
def test_a_norm_over_all_frames_shows(graph):
    """As diffusers has it in AnimateDiff's place."""
    ours, x = grid(), tokens(6)
    out = run(ours, x, 6, graph=graph)
    assert relative(out, GridReference(ours, 6, joint_norm=True)(x, 4, 4)) > 1e-2


@BOTH
def test_clips_of_a_batch_know_nothing_of_one_another(graph):
    ours, x = grid(), tokens(5, clips=3)
    alone = torch.cat([run(ours, clip, 5, graph=graph) for clip in x.split(5)])
    assert relative(run(ours, x, 5, graph=graph), alone) <= TOLERANCE
    assert relative(run(ours, x, 15, graph=graph), alone) > 1e-2


@pytest.mark.parametrize("cells", [0, 1, 2, 5, 10**6])
def test_few_cells_at_once_only_round(monkeypatch, cells):
    """Of 2x3 cells: one, part of a row, a row and a rest, all."""
    ours, x = grid(), tokens(7, 4, 6, clips=2)
    usual = run(ours, x, 7, 4, 6, graph=True)
    numbers = cells * 2 * 7 * 4 * 8 * WIDTH
    monkeypatch.setattr(slabs, "TOKENS", slabs.Budget(numbers, numbers))
    assert relative(run(ours, x, 7, 4, 6), usual) <= TOLERANCE


def test_no_kernel_is_handed_more_sequences_than_it_takes(monkeypatch):
    """Short clips are many sequences: the budget of numbers alone would let them through."""
    monkeypatch.setattr(model, "MOST_SEQUENCES", 96)
    seen = []

    def counting(q, k, v, transformer_options=None):
        seen.append(q.shape[0] * q.shape[1])
        return attend(q, k, v)

    run(grid(attention=counting), tokens(2, 8, 8, clips=3), 2, 8, 8)
    assert max(seen) <= 96 and sum(seen) == 2 * 3 * 16 * 8


@BOTH
def test_a_token_reaches_its_cell_in_all_frames_and_nothing_else(graph):
    """Two tokens of a frame change places, which no group norm sees."""
    ours, frames, height, width = grid(), 4, 6, 8
    x = tokens(frames, height, width)
    # in rows 1 and 4, columns 2 and 7
    places, swapped = [1 * width + 2, 4 * width + 7], x.clone()
    swapped[2, places] = x[2, places[::-1]]
    outs = [run(ours, y, frames, height, width, graph) for y in (x, swapped)]
    change = (outs[1] - outs[0]).abs().amax(dim=2).view(frames, height, width)
    reached = torch.zeros(frames, height, width, dtype=torch.bool)
    reached[:, 0:2, 2:4] = reached[:, 4:6, 6:8] = True
    size = outs[0].abs().max()
    assert change[reached].min() > 1e-3 * size
    assert change[~reached].max() <= TOLERANCE * size


def test_positions_are_the_formula_computed_exactly():
    """A file's table was computed in float32: an angle p is off by up to p / 2^24, and a sine by as much."""
    for rows in (80, ROWS):
        held = by_formula(rows, WIDTH)
        exact = sinusoid_table(rows, WIDTH)
        places = torch.arange(rows)[:, None]
        # of the step's own rounding and of the product's
        assert ((exact - held).abs() <= (places + 1) * 2 * 2**-23).all()
    theirs = peers.load_diffusers().models.embeddings.SinusoidalPositionalEmbedding(WIDTH, ROWS).pe[0]
    assert ((exact - theirs).abs() <= (places + 1) * 2 * 2**-23).all()


@pytest.mark.parametrize("frames", [2, 80])
def test_a_table_of_a_file_gives_the_same(frames):
    ours, x = grid(), tokens(frames)
    theirs = GridReference(ours, frames)
    theirs.block.pos_embed.pe = by_formula(ROWS, WIDTH)[None, :frames].repeat_interleave(4, dim=1)
    assert relative(run(ours, x, frames), theirs(x, 4, 4)) <= TOLERANCE


def test_half_precision_stays_near():
    x, expected = tokens(6), run(grid(), tokens(6), 6)
    for dtype, far in ((torch.bfloat16, 0.05), (torch.float16, 0.006)):
        for graph in (True, False):
            out = run(grid().to(dtype), x.to(dtype), 6, graph=graph)
            assert out.dtype == dtype and relative(out.float(), expected) <= far


# the whole model


def pixart():
    """diffusers' PixArt."""
    return draw(
        peers.load_diffusers().PixArtTransformer2DModel(
            num_attention_heads=PIXART.num_heads,
            attention_head_dim=PIXART.head_dim,
            num_layers=LAYERS,
            cross_attention_dim=WIDTH,
            sample_size=64,
            caption_channels=TEXT,
        ),
        seed=5,
    )


@cache
@torch.inference_mode(False)
def weights():
    state = pixart().state_dict()
    renames = DIFFUSERS.rename(state)
    return {renames[key]: value for key, value in state.items()}


def modules(strength=1.0):
    return draw(GridModules(replace(CONFIG, strength=strength)), seed=7)


def animate(moving=True, strength=1.0):
    """Ours, with motion modules or without."""
    ours = PixArtTransformer(PIXART)
    ours.load_state_dict(weights(), strict=True)
    if moving:
        modules(strength).put_into(ours)
    return ours.eval().requires_grad_(False)


class Scene:
    """Clips of noise, their prompts, and a timestep for each."""

    def __init__(self, frames, clips=1, height=8, width=12, seed=3):
        generator = torch.Generator().manual_seed(seed)
        self.frames, self.clips = frames, clips
        self.x = torch.randn(clips * frames, 4, height, width, generator=generator)
        self.text = torch.randn(clips, 6, TEXT, generator=generator)
        self.timestep = torch.tensor([801.0, 33.0])[:clips].repeat_interleave(frames)

    def of(self, network, graph=False):
        with torch.enable_grad() if graph else torch.no_grad():
            return network(self.x, self.timestep, self.text, num_video_frames=self.frames, with_variance=True)

    def of_diffusers(self):
        theirs = pixart()
        put_motion(theirs, modules(), self.frames, lambda: (self.x.shape[2] // 2, self.x.shape[3] // 2))
        with torch.no_grad():
            return theirs(
                self.x,
                encoder_hidden_states=self.text.repeat_interleave(self.frames, dim=0),
                timestep=self.timestep,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ).sample


@pytest.mark.parametrize(("frames", "clips"), CLIPS)
def test_the_whole_model_is_diffusers_with_the_modules_between_its_attentions(frames, clips):
    scene = Scene(frames, clips)
    expected = scene.of_diffusers()
    ours = animate()
    for graph in (True, False):
        assert relative(scene.of(ours, graph), expected) <= TOLERANCE
    assert relative(scene.of(animate(moving=False)), expected) > 1e-2


@BOTH
def test_a_strength_of_0_is_no_module(graph):
    scene = Scene(6)
    still, moved, half, none = (
        scene.of(network, graph)
        for network in (animate(moving=False), animate(), animate(strength=0.5), animate(strength=0.0))
    )
    assert torch.equal(none, still)
    assert relative(half, still) > 1e-2 and relative(half, moved) > 1e-2


def test_strength_scales_what_is_added():
    x = tokens(4)
    whole, part = (run(grid(strength=strength), x, 4) - x for strength in (1.0, 0.25))
    assert relative(part, 0.25 * whole) <= TOLERANCE


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ((5, 8), "multiples of 32 pixels: got height 40, use 32 or 64"),
        ((8, 66), "multiples of 32 pixels: got width 528, use 512 or 544"),
        ((8, 2), "got width 16, use 32"),
    ],
)
def test_sizes_that_fill_no_cells_are_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        GRID_MODULES.check_clip(16, *cells)


def test_no_more_frames_than_positions():
    GRID_MODULES.check_clip(ROWS, 8, 8)
    with pytest.raises(ValueError, match="at most 4096 frames: got 4097"):
        GRID_MODULES.check_clip(ROWS + 1, 8, 8)
    with pytest.raises(ValueError, match="positions for 4096 frames: got 4097"):
        run(grid(), tokens(ROWS + 1, 2, 2), ROWS + 1, 2, 2)


@pytest.mark.parametrize("change", [{"num_layers": 3}, {"num_heads": 8}])
def test_a_module_fits_its_base_alone(change):
    GRID_MODULES.check_fit("mm", CONFIG, PIXART)
    with pytest.raises(ValueError, match="mm is an EasyAnimate v1 motion module for 2 blocks of 64 channels"):
        GRID_MODULES.check_fit("mm", CONFIG, replace(PIXART, **change))


def test_training_starts_with_modules_that_change_nothing_and_reaches_every_weight():
    scene, network = Scene(4), modules()
    network.start()
    moving = animate(moving=False)
    network.put_into(moving)
    assert torch.equal(scene.of(moving), scene.of(animate(moving=False)))
    network = modules().requires_grad_(True)
    network.put_into(moving)
    scene.of(moving, graph=True).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())


def test_what_comes_in_stays():
    scene = Scene(4)
    before = [scene.x.clone(), scene.text.clone()]
    scene.of(animate())
    assert torch.equal(scene.x, before[0]) and torch.equal(scene.text, before[1])


def test_modules_go_into_every_block():
    config = GridConfig(num_layers=28)
    places = [place for place, _ in GRID_MODULES.insert(MOTION_MODULE.empty(config))]
    assert places == [f"transformer_blocks.{number}" for number in range(28)]
