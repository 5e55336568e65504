"""How the pocket models are trained and drawn, against the formulas written out: noise, running mean, rates, stops."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kinetograph.pocket import check, train_outlines, train_transformer, train_vae
from kinetograph.pocket.latents import World
from kinetograph.pocket.optimizers import BlockOptimizer
from kinetograph.pocket.shapes import sample_clip
from kinetograph.pocket.svd import sampling, train_unet
from kinetograph.pocket.svd.latents import latents_of
from kinetograph.pocket.svd.world import draw_frames
from kinetograph.pocket.training import Averaged, Plan, ramp, train

NEAR = {"atol": 2e-5, "rtol": 2e-5}


def alpha_bars():
    """Scaled linear betas, then zero terminal SNR (Lin et al., algorithm 1), in double precision."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()


def beside(powers_b, x):
    return powers_b.view(-1, *[1] * (x.ndim - 1))


class Words:
    """Ten captions of three tokens."""

    rows = range(20)

    def encode(self, captions):
        return torch.tensor([[len(caption), 1, 2] for caption in captions])


def test_the_transformer_sees_the_published_noise():
    torch.manual_seed(0)
    world = World(torch.randn(10, 16, 5, 8, 8), ["x" * i for i in range(10)])
    sampler = train_transformer.Sampler(world, Words())
    for _ in range(8):
        state = torch.get_rng_state()
        sample = sampler.draw()
        torch.set_rng_state(state)
        x0 = world.latents[torch.randint(10, (train_transformer.BATCH,))]
        torch.rand(train_transformer.BATCH, 1)
        t = ((1 - torch.rand(train_transformer.BATCH) ** 1.5) * 1000).long().clamp(0, 999)
        noise = torch.randn_like(x0)
        bars = beside(alpha_bars()[t], x0)
        assert torch.equal(sample.timestep_b, t)
        wanted = (bars.sqrt() * x0 + (1 - bars).sqrt() * noise).float()
        torch.testing.assert_close(sample.x_bcthw, wanted, **NEAR)
        wanted = (bars.sqrt() * noise - (1 - bars).sqrt() * x0).float()
        torch.testing.assert_close(sample.v_bcthw, wanted, **NEAR)


def test_the_last_timestep_is_noise_alone(monkeypatch):
    """Where no signal is left v is exactly -x0, and the stand-in for an infinite level leaves no trace."""
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.zeros(*shape))
    torch.manual_seed(0)
    world = World(torch.randn(3, 16, 5, 8, 8), ["", "x", "xx"])
    pick = torch.arange(3).repeat(11)[: train_transformer.BATCH]
    sample = train_transformer.Sampler(world, Words()).noisy(pick, told=pick)
    assert set(sample.timestep_b.tolist()) == {999}
    assert torch.equal(sample.v_bcthw, -world.latents[pick])
    assert sample.x_bcthw.mean().abs() < 0.01 and sample.x_bcthw.std() == pytest.approx(1, abs=0.01)
    assert (sample.x_bcthw * world.latents[pick]).mean().abs() < 0.01


class Wave:
    """A model whose v depends on all that it is told; remembers the timesteps."""

    def __init__(self):
        self.timesteps = []

    def velocity(self, x, timestep_b, context_bld):
        self.timesteps.append(timestep_b.tolist())
        told = beside(timestep_b / 1000, x) + beside(context_bld.mean((1, 2)), x)
        return torch.sin(x + told)


def drawn_by_hand(model, context, null, guidance, steps, seed):
    """DDIM on latents at unit variance, in double precision."""
    bars, n = alpha_bars(), len(context)
    x = torch.randn(n, *check.LATENT_SHAPE, generator=torch.Generator().manual_seed(seed)).double()
    both = torch.cat([context, null.expand(n, -1, -1)])
    for step in range(steps):
        t = round(1000 - step * 1000 / steps) - 1
        before = t - 1000 // steps
        bar, goal = bars[t], bars[before] if before >= 0 else torch.tensor(1.0)
        told, free = model.velocity(torch.cat([x, x]), torch.full((2 * n,), t), both).chunk(2)
        v = free + guidance * (told - free)
        clean, noise = bar.sqrt() * x - (1 - bar).sqrt() * v, bar.sqrt() * v + (1 - bar).sqrt() * x
        x = goal.sqrt() * clean + (1 - goal).sqrt() * noise
    return x


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_clips_are_drawn_by_ddim(steps):
    torch.manual_seed(0)
    context, null = torch.randn(2, 3, 4), torch.randn(1, 3, 4)
    ours, theirs = Wave(), Wave()
    x = check.sample_ddim(ours, context, null, 2.0, steps, seed=3)
    wanted = drawn_by_hand(theirs, context, null, 2.0, steps, seed=3)
    assert ours.timesteps == theirs.timesteps
    torch.testing.assert_close(x, wanted.float(), atol=1e-4, rtol=1e-4)


class Pictures(nn.Module):
    def forward(self, pictures_n3hw):
        return SimpleNamespace(image_embeds=pictures_n3hw.mean((2, 3)))


def test_the_unet_sees_edm_noise():
    clips = train_unet.unseen_clips(3)
    torch.manual_seed(0)
    sample = train_unet.draw_sample(clips, 4, Pictures(), drop=0.0)
    z = torch.stack([latents_of(draw_frames(clip, 4)) for clip in clips]).double()
    s = beside(sample.sigma_b.double(), z)
    noise = (sample.x_btchw.double() - z) / s
    assert noise.std() == pytest.approx(1, abs=0.05) and noise.mean().abs() < 0.05
    v = (noise - s * z) / (s**2 + 1).sqrt()
    torch.testing.assert_close(sample.v_btchw, v.float(), atol=1e-4, rtol=1e-4)


class Drifting(nn.Module):
    """Stands for the UNet: v of frames on the batch axis, and what it was told."""

    def forward(self, rows, timestep_b, context, y, num_video_frames):
        self.seen = rows, timestep_b
        told = timestep_b + context.mean((1, 2)) + y.mean(1)
        return torch.sin(
            rows[:, :4] + rows[:, 4:] + told.repeat_interleave(num_video_frames).view(-1, 1, 1, 1)
        )


def told(clips=2):
    torch.manual_seed(1)
    return sampling.Told(torch.randn(clips, 1, 5), torch.randn(clips, 4, 3, 3), torch.randn(clips, 6))


def test_the_unet_is_told_a_quarter_of_the_logarithm_and_unit_variance():
    unet, x, sigma = Drifting(), torch.randn(2, 3, 4, 3, 3), torch.tensor([0.01, 500.0])
    sampling.velocity(unet, x, sigma, told())
    rows, timestep_b = unet.seen
    torch.testing.assert_close(timestep_b, sigma.log() / 4)
    wanted = x / (beside(sigma, x) ** 2 + 1).sqrt()
    torch.testing.assert_close(rows[:, :4], wanted.flatten(0, 1))


@torch.no_grad()
def test_pictures_are_set_in_motion_by_euler_steps():
    course, given = sampling.Course(3, 6, (1.0, 2.0), seed=5), told()
    x = (
        torch.randn(2, 3, 4, 3, 3, generator=torch.Generator().manual_seed(5)).double()
        * (700.0**2 + 1) ** 0.5
    )
    ramp_of_levels = [(700 ** (1 / 7) + i / 5 * (0.002 ** (1 / 7) - 700 ** (1 / 7))) ** 7 for i in range(6)]
    scale = torch.linspace(1, 2, 3).view(1, -1, 1, 1, 1)
    unet = Drifting()
    for here, after in zip(ramp_of_levels, [*ramp_of_levels[1:], 0.0], strict=True):
        sides = []
        for side in (given, given.silent()):
            image = side.image_bchw[:, None].expand(-1, 3, -1, -1, -1)
            rows = torch.cat([x / (here**2 + 1) ** 0.5, image], 2).flatten(0, 1)
            v = unet(rows, torch.full((2,), math.log(here) / 4), side.context_b1d, side.y_bd, 3)
            sides.append(v.unflatten(0, (2, 3)))
        v = sides[1] + scale * (sides[0] - sides[1])
        clean = x / (here**2 + 1) - v * here / (here**2 + 1) ** 0.5
        x = clean + (x - clean) / here * after
    torch.testing.assert_close(sampling.sample(unet, given, course), x.float(), atol=2e-4, rtol=2e-4)


def test_the_running_mean_forgets_its_youth():
    torch.manual_seed(0)
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    training = Averaged(model, average, BlockOptimizer(model, model))
    assert torch.equal(average.weight, model.weight)
    wanted = average.weight.detach().clone()
    for number in (1, 2, 400, 100_000):
        model.weight.data.normal_()
        keep = min(0.998, (number + 1) / (number + 10))
        wanted = keep * wanted + (1 - keep) * model.weight.detach()
        training.follow(number)
        torch.testing.assert_close(average.weight.detach(), wanted)


def test_learning_rates_are_those_of_the_recipes():
    for step in range(0, 1600, 7):
        wanted = 2e-3 * min(1.0, (step + 1) / 60, max(0.02, 2 * (1 - step / 1600)))
        assert train_unet.lr_at(step, 1600) == pytest.approx(wanted, rel=1e-12)
    for step in range(700):
        wanted = min(1.0, (step + 1) / 50, (700 - step) / 350)
        assert ramp(step, 700, warm_up=50, least=0.0) == pytest.approx(wanted, rel=1e-9)
    begun = 0
    for stage in train_vae.STAGES:
        for step in range(stage.steps):
            part, warm = step / stage.steps, min(1.0, (step + 1) / 20)
            wanted = stage.peak_lr * warm * (1.0 if part < 0.4 else max(0.05, (1 - part) / 0.6))
            assert train_vae.lr_at(begun + step) == (stage, pytest.approx(wanted, rel=1e-9))
        begun += stage.steps


class Learner:
    """Learns random targets; its check draws random numbers, too."""

    def __init__(self, out):
        torch.manual_seed(7)
        self.out, self.model, self.average = out, nn.Linear(4, 4), nn.Linear(4, 4)
        self.training = Averaged(self.model, self.average, BlockOptimizer(self.model, self.model))

    def learn(self, step):
        loss = (self.model(torch.randn(2, 4)) - torch.randn(2, 4)).square().mean()
        loss.backward()
        return {"loss": loss.item(), "norm": self.training.apply(1e-2, step)}

    def run(self, total, check_every=4):
        train(self.out, self.training, Plan(total, 2, 3, check_every), self.learn, self.check)
        return self.model.weight.detach()

    def check(self):
        return {"drawn": torch.rand(100).mean().item()}


def steps_in(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_run_writes_when_it_is_due_and_goes_on_after_a_stop(tmp_path):
    Learner(tmp_path / "a").run(7)
    assert steps_in(tmp_path / "a" / "log.jsonl") == [2, 4, 6]
    assert steps_in(tmp_path / "a" / "checks.jsonl") == [4, 7]
    assert torch.load(tmp_path / "a" / "state.pt", weights_only=True)["step"] == 7
    resumed = Learner(tmp_path / "a")
    before = resumed.model.weight.detach().clone()
    resumed.run(9)
    assert steps_in(tmp_path / "a" / "checks.jsonl") == [4, 7, 8, 9]
    fresh = Learner(tmp_path / "b")
    assert fresh.training.open(tmp_path / "a") == 9
    assert torch.equal(fresh.average.weight, resumed.average.weight)
    assert not torch.equal(fresh.model.weight, before)


def test_checking_changes_nothing_that_is_learned(tmp_path):
    often, rarely = (Learner(tmp_path / str(every)).run(6, every) for every in (1, 6))
    assert torch.equal(often, rarely)


def test_cells_near_the_shape_in_any_of_their_frames_count_fully():
    still, left = (sample_clip(5, ("red", "circle", way)) for way in ("standing still", "moving left"))
    weights = train_outlines.cell_weights([still, left])
    assert weights.shape == (2, 1, 5, 8, 8)
    # pixels from a cell's nearest point to the circle's rim, in the first frame of each clip
    for clip, first in zip((still, left), weights[:, 0, 0], strict=True):
        x, y = clip.centres()[0]
        low = torch.arange(8.0) * 8
        off_x, off_y = (torch.maximum(low - at, at - low - 8).clamp_min(0) for at in (x, y))
        off = torch.hypot(off_x[None, :], off_y[:, None]) - clip.radius
        assert (first[off < 3] == 1).all() and (first[off > 7] == train_outlines.FAR).all()
    # four frames of a moving shape touch more than its first one
    assert weights[1, 0, 2].sum() > weights[1, 0, 0].sum()
    assert torch.equal(weights[0, 0, 0], weights[0, 0, 4])


def test_outlines_learn_from_errors_near_the_shape():
    torch.manual_seed(0)
    training = train_outlines.OutlineTraining(torch.randn(91, 16, 32))
    x0, weights = torch.randn(12, 16, 5, 8, 8), torch.rand(12, 1, 5, 8, 8)
    clips, asked = train_outlines.Clips(x0, weights, torch.arange(12)), []

    def silent(x_bcthw, t_b, context_bld):
        asked.append((x_bcthw, t_b, context_bld))
        return torch.zeros_like(x_bcthw) * training.model.proj_out.bias.sum()

    training.velocity = silent
    state = torch.get_rng_state()
    figures = training.step(clips, 1e-3, 1)
    torch.set_rng_state(state)
    n = train_outlines.BATCH
    pick, dropped = torch.randint(12, (n,)), torch.rand(n) < 0.15
    t = ((1 - torch.rand(n) ** 0.75) * 1000).long().clamp(0, 999)
    noise, bars = torch.randn(n, 16, 5, 8, 8), beside(alpha_bars()[t], x0)
    ((x, told_t, context),) = asked
    assert torch.equal(told_t, t)
    torch.testing.assert_close(x, (bars.sqrt() * x0[pick] + (1 - bars).sqrt() * noise).float(), **NEAR)
    assert torch.equal(context, training.features[torch.where(dropped, 90, pick)])
    v, w = bars.sqrt() * noise - (1 - bars).sqrt() * x0[pick], weights[pick].expand(-1, 16, -1, -1, -1)
    errors = (w * v.square()).flatten(1).sum(1) / w.flatten(1).sum(1)
    assert figures["loss"] == pytest.approx(errors.mean().item(), rel=1e-4)
    assert figures["low"] == pytest.approx(errors[t < 300].mean().item(), rel=1e-4)


def test_gradients_are_cut_to_norm_one():
    model, average = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    training = Averaged(model, average, SimpleNamespace(step=lambda lr: None))
    (model(torch.tensor([[30.0, 40.0]])).sum()).backward()
    assert training.apply(1e-3, 1) == pytest.approx(50)
    assert model.weight.grad.norm().item() == pytest.approx(1, rel=1e-4)


def test_the_unet_learns_from_the_error_of_the_denoised_clip():
    clips = train_unet.unseen_clips(3)
    torch.manual_seed(0)
    drawn, unet = train_unet.draw_sample(clips, 2, Pictures(), drop=0.0), Drifting()
    drawn = train_unet.Sample(drawn.x_btchw, drawn.v_btchw, drawn.sigma_b, told_like(drawn))
    errors, denoised = train_unet.errors_of(unet, drawn)
    v = sampling.velocity(unet, drawn.x_btchw, drawn.sigma_b, drawn.told)
    z = torch.stack([latents_of(draw_frames(clip, 2)) for clip in clips])
    s = beside(drawn.sigma_b, z)
    clean = drawn.x_btchw / (s**2 + 1) - v * s / (s**2 + 1).sqrt()
    torch.testing.assert_close(errors, (v - drawn.v_btchw).square().mean((1, 2, 3, 4)))
    torch.testing.assert_close(denoised, (clean - z).square().mean((1, 2, 3, 4)), atol=1e-4, rtol=1e-3)


def told_like(drawn):
    b, _, _, h, w = drawn.x_btchw.shape
    return sampling.Told(torch.randn(b, 1, 5), torch.randn(b, 4, h, w), torch.randn(b, 6))
