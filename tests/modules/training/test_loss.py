"""What training asks of a network: the published numbers, the formulas written out, diffusers."""

import math

import pytest
import torch
from torch import nn

from kinetograph.benchmarks import peers
from kinetograph.modules.noise import DiscreteNoise, EDMNoise, ReadNoise
from kinetograph.modules.training import batch
from kinetograph.modules.training.loss import check_loss, clip_weights, losses
from kinetograph.modules.training.recipe import Levels, Loss
from kinetograph.modules.training.subject import Example, Subject
from kinetograph.tests.training_cases import clips_at, draw, wave

SCALED, LINEAR = (0.00085, 0.012, "scaled_linear"), (0.00085, 0.012, "linear")
EPSILON, SVD = DiscreteNoise("epsilon", *LINEAR), EDMNoise(0.002, 700.0)


def cogvideox(shift=1.0):
    return DiscreteNoise("v", *SCALED, snr_shift=shift, zero_terminal_snr=True)


# timestep: loss, motion term, a quarter of it mixed in; 48 values, frames of 12
V_LOSS = {
    0: (0.219007820, 0.756596755, 0.353405054),
    249: (0.054689149, 0.213200319, 0.094316942),
    499: (0.071320734, 0.214103439, 0.107016410),
    749: (0.160779387, 0.516746904, 0.249771266),
    999: (0.237361442, 0.809712124, 0.380449112),
}
SHIFTED = {0: 0.209582911, 249: 0.051842786, 499: 0.117417055, 749: 0.191226176}
SHARES = (0.0, 1.0, 0.25)
# frames behind channels, and on the batch axis
CAUSAL, ON_BATCH = ((1, 1, 4, 3, 4), 2), ((1, 4, 1, 3, 4), 1)


def v_case(shape, dtype=torch.float64):
    parts = (
        wave(48, 0.7, 0.1),
        wave(48, 1.3, of=torch.cos),
        0.5 * wave(48, 1.3, of=torch.cos) - 0.5 * wave(48, 0.7),
    )
    return [part.view(shape).to(dtype) for part in parts]


@pytest.mark.parametrize("layout", [CAUSAL, ON_BATCH], ids=["causal", "frames on batch"])
@pytest.mark.parametrize("t", V_LOSS)
def test_v_loss_and_motion_term_are_the_published_numbers(t, layout):
    shape, axis = layout
    noise = cogvideox()
    for dtype, near in ((torch.float64, 2e-9), (torch.float32, 1e-6)):
        x0, epsilon, output = v_case(shape, dtype)
        noisy = clips_at(noise, noise.sigmas()[t], x0, epsilon, axis)
        for share, wanted in zip(SHARES, V_LOSS[t], strict=True):
            loss = losses(output, noisy, noise, Loss(motion_sub=share))
            assert loss.shape == (1,) and loss.dtype == dtype
            assert loss.item() == pytest.approx(wanted, abs=near)


@pytest.mark.parametrize("t", SHIFTED)
def test_v_loss_with_the_shift_of_2b(t):
    noise = cogvideox(3.0)
    x0, epsilon, output = v_case(CAUSAL[0])
    loss = losses(output, clips_at(noise, noise.sigmas()[t], x0, epsilon), noise, Loss())
    assert loss.item() == pytest.approx(SHIFTED[t], abs=2e-9)


def test_noise_and_target_at_the_middle_are_the_published_numbers():
    noise = cogvideox()
    x0, epsilon, _ = v_case(CAUSAL[0])
    noisy = clips_at(noise, noise.sigmas()[499], x0, epsilon)
    v = noise.target(x0, epsilon, noisy.sigma).flatten()[:3]
    assert v.tolist() == pytest.approx([0.4054023, -0.4927155, -1.2900915], abs=1e-7)
    x = noise.scaled(noisy.x, noisy.sigma).flatten()[:3]
    assert x.tolist() == pytest.approx([0.9195736, 0.5859922, -0.2547913], abs=1e-7)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_v_loss_is_that_of_diffusers_in_both_forms(shift):
    """The velocity of its scheduler, and its LoRA example's error of the clip with a weight; terminal one included."""
    scheduler = peers.load_diffusers().CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=shift,
    )
    noise, t = cogvideox(shift), torch.tensor([0, 1, 333, 998, 999])
    x0, epsilon, output = (draw(5, 3, 4, 2, 2, seed=seed, dtype=torch.float32) for seed in range(3))
    noisy = clips_at(noise, noise.sigmas()[t], x0, epsilon)
    ours = losses(output, noisy, noise, Loss())
    v = scheduler.get_velocity(x0, epsilon, t)
    assert torch.allclose(ours, (output - v).square().flatten(1).mean(1), rtol=2e-5, atol=1e-6)
    seen = scheduler.add_noise(x0, epsilon, t)
    clean = scheduler.get_velocity(output, seen, t)
    # x0 = sqrt(a) x - sqrt(1 - a) v: what it calls a velocity with the two the other way about
    weight = 1 / (1 - scheduler.alphas_cumprod[t].double())
    error = (clean.double() - x0).square().flatten(1).mean(1)
    assert torch.allclose(ours.double()[2:], (weight * error)[2:], rtol=1e-4, atol=1e-6)


def test_epsilon_loss_is_the_error_of_the_noise_of_each_clip():
    x0, epsilon, output = (draw(3, 2, 4, 2, 2, seed=seed) for seed in range(3))
    noisy = clips_at(EPSILON, EPSILON.sigmas()[torch.tensor([0, 500, 999])], x0, epsilon, 1)
    wanted = [sum((o - e) ** 2 for o, e in zip(a, b, strict=True)) / 32 for a, b in rows(output, epsilon)]
    assert losses(output, noisy, EPSILON, Loss()).tolist() == pytest.approx(wanted, abs=1e-12)


def rows(*parts):
    return zip(*[part.flatten(1).tolist() for part in parts], strict=True)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_two_frames_have_no_motion_term(frames, axis):
    """CogVideoX-Fun asks for more than two latent frames; one has no neighbour at all."""
    shape = [2, 5, 5, 2, 2]
    shape[axis] = frames
    noise = cogvideox()
    x0, epsilon, output = (draw(*shape, seed=seed) for seed in range(3))
    noisy = clips_at(noise, noise.sigmas()[torch.tensor([10, 999])], x0, epsilon, axis)
    plain = losses(output, noisy, noise, Loss())
    assert torch.equal(losses(output, noisy, noise, Loss(motion_sub=0.25)), plain) and plain.isfinite().all()


def test_differences_run_along_time_alone():
    """An error that is the same in every frame, whatever it is in channels and pixels, has no motion term."""
    noise = cogvideox()
    for axis in (1, 2):
        x0, epsilon, error = draw(2, 4, 4, 3, 5), draw(2, 4, 4, 3, 5, seed=1), draw(2, 4, 4, 3, 5, seed=2)
        error = error.narrow(axis, 0, 1).expand_as(error)
        noisy = clips_at(noise, noise.sigmas()[torch.tensor([100, 700])], x0, epsilon, axis)
        output = noise.target(x0, epsilon, noisy.sigma) + error
        assert torch.all(losses(output, noisy, noise, Loss(motion_sub=1.0)) < 1e-20)
        assert torch.all(losses(output, noisy, noise, Loss()) > 0.1)


def test_epsilon_up_to_a_bound_is_the_error_of_v():
    x0, epsilon, output = (draw(3, 2, 2, 3, 3, seed=seed) for seed in range(3))
    noisy = clips_at(EPSILON, [0.1, 2.0, 10.0], x0, epsilon, 1)
    plain = losses(output, noisy, EPSILON, Loss())
    bounded = losses(output, noisy, EPSILON, Loss(weight="bounded", most_weight=20.0))
    assert (bounded / plain).tolist() == pytest.approx([1.01, 5.0, 20.0], rel=1e-12)
    # v of the clip that an epsilon stands for
    sigma = noisy.sigma.view(-1, 1, 1, 1, 1)
    v = lambda noise: (noise - sigma * (noisy.x - sigma * noise)) / (sigma**2 + 1) ** 0.5  # noqa: E731
    of_v = (v(output) - v(epsilon)).square().flatten(1).mean(1)
    assert torch.allclose(bounded[:2], of_v[:2], rtol=1e-9)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_min_snr_is_that_of_diffusers(prediction):
    diffusers = peers.load_diffusers()
    from diffusers.training_utils import compute_snr

    zero = prediction == "v"
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=zero
    )
    noise, t = (
        DiscreteNoise(prediction, *SCALED, zero_terminal_snr=zero),
        torch.tensor([0, 100, 300, 700, 998, 999]),
    )
    snr = compute_snr(scheduler, t)
    wanted = snr.clamp(max=5.0) / (snr + 1 if zero else snr)
    ours = clip_weights(noise, noise.sigmas()[t].float(), Loss(weight="min_snr"))
    assert torch.allclose(ours, wanted, rtol=2e-3, atol=1e-6)
    assert 0 < (ours > 0.99).sum() < 6 or zero
    output, x0, epsilon = (draw(6, 2, 2, 3, 3, seed=seed, dtype=torch.float32) for seed in range(3))
    noisy = clips_at(noise, noise.sigmas()[t], x0, epsilon)
    weighted = losses(output, noisy, noise, Loss(weight="min_snr"))
    assert torch.allclose(weighted, ours * losses(output, noisy, noise, Loss()), rtol=1e-6)


@pytest.mark.parametrize("axis", [1, 2])
def test_debias_compares_every_frame_with_one_of_its_own_clip(axis):
    """MotionDirector's term, frame by frame; which frame is the key's, and every frame has its turn."""
    shape = [2, 3, 3, 2, 4]
    shape[axis] = 4
    x0, epsilon, output = (draw(*shape, seed=seed) for seed in range(3))
    noisy = clips_at(EPSILON, EPSILON.sigmas()[torch.tensor([10, 800])], x0, epsilon, axis)
    by_anchor = [[debiased(output[i], epsilon[i], axis - 1, j) for j in range(4)] for i in range(2)]
    seen = [set(), set()]
    for visit in range(40):
        keys = [(7, visit, 0), (8, visit, 0)]
        loss = losses(output, noisy, EPSILON, Loss(debias=True), keys)
        assert torch.equal(loss, losses(output, noisy, EPSILON, Loss(debias=True), keys))
        for i, value in enumerate(loss.tolist()):
            (anchor,) = [j for j, one in enumerate(by_anchor[i]) if one == pytest.approx(value, rel=1e-9)]
            seen[i].add(anchor)
    assert seen == [{0, 1, 2, 3}] * 2
    with pytest.raises(ValueError, match="give the key of each"):
        losses(output, noisy, EPSILON, Loss(debias=True))


def debiased(output, epsilon, axis, anchor):
    k, frames = math.sqrt(2), output.shape[axis]
    term = 0.0
    for frame in range(frames):
        told = k * output.select(axis, frame) - output.select(axis, anchor)
        wanted = k * epsilon.select(axis, frame) - epsilon.select(axis, anchor)
        term += (told - wanted).square().mean().item() / frames
    return (output - epsilon).square().mean().item() + term


def test_16_bit_outputs_are_compared_in_fp32():
    noise = cogvideox()
    x0, epsilon, output = (draw(2, 4, 3, 4, 4, seed=seed, dtype=torch.float32) for seed in range(3))
    noisy = clips_at(noise, noise.sigmas()[torch.tensor([5, 999])], x0, epsilon)
    for kind in (torch.bfloat16, torch.float16):
        loss = losses(output.to(kind), noisy, noise, Loss(motion_sub=0.25))
        assert loss.dtype == torch.float32
        assert torch.equal(loss, losses(output.to(kind).float(), noisy, noise, Loss(motion_sub=0.25)))


def test_little_noise_is_not_rounded_away():
    """CogVideoX-Fun adds noise in bf16: at the first two timesteps none, at the tenth 7 % amiss."""
    noise = cogvideox()
    bars = noise.alphas_cumprod()[torch.tensor([0, 1, 10])]
    assert (bars.bfloat16()[:2] == 1).all()
    rounded = (1 - bars.bfloat16()[2]).sqrt() / (1 - bars[2]).sqrt()
    assert abs(rounded.item() - 1) > 0.05
    subject = Subject("", "", nn.Identity(), noise, 0.7, False, lambda request: {}, lambda x, t, told: x)
    example = Example(3, draw(4, 3, 6, 6).bfloat16())
    for seed in range(30):
        noisy = batch.add_noise(subject, [example], Levels(power=0.01), seed, "cpu")
        t = noise.timestep(noisy.sigma).item()
        bar = noise.alphas_cumprod()[t]
        wanted = bar.sqrt() * 0.7 * example.mean.double() + (1 - bar).sqrt() * noisy.noise.double()
        seen = noise.scaled(noisy.x, noisy.sigma)
        assert seen.dtype == torch.float32 and noisy.x0.dtype == torch.float32
        assert torch.allclose(seen[0].double(), wanted[0], rtol=0, atol=2e-6)


def test_gradients_reach_a_network_as_by_hand():
    """A convolution that gives v, with the mixed loss of Fun: its gradient by the formula in double precision."""
    torch.manual_seed(0)
    noise, net = cogvideox(), nn.Conv3d(2, 2, 3, padding=1).double()
    x0, epsilon = draw(2, 2, 4, 3, 3), draw(2, 2, 4, 3, 3, seed=1)
    noisy = clips_at(noise, noise.sigmas()[torch.tensor([77, 999])], x0, epsilon)
    seen = noise.scaled(noisy.x, noisy.sigma)
    losses(net(seen), noisy, noise, Loss(motion_sub=0.25)).mean().backward()
    ours = net.weight.grad.clone()
    net.zero_grad()
    bars = noise.alphas_cumprod()[torch.tensor([77, 999])].view(-1, 1, 1, 1, 1)
    error = (
        net(bars.sqrt() * x0 + (1 - bars).sqrt() * epsilon) - bars.sqrt() * epsilon + (1 - bars).sqrt() * x0
    )
    moved = error[:, :, 1:] - error[:, :, :-1]
    (0.75 * error.square().mean() + 0.25 * moved.square().mean()).backward()
    # the stand-in for an infinite level hides 6e-8 of the noise
    assert torch.allclose(ours, net.weight.grad, rtol=0, atol=1e-6) and ours.abs().max() > 0.01


WRONG = {
    "weight of another kind": (Loss(weight="edm"), EPSILON, "loss.weight is .edm.*none, min_snr, bounded"),
    "min-SNR of a clip": (Loss("denoised", "min_snr"), SVD, "none, edm, root_edm"),
    "range of v": (Loss("learned_range"), cogvideox(), "learned_range.*gives v"),
    "bound of v": (Loss(weight="bounded"), cogvideox(), "bounded.*gives v"),
    "clip below 250 of v": (Loss(x0_below_250=True), cogvideox(), "x0_below_250.*gives v"),
    "range without timesteps": (Loss("learned_range"), EDMNoise(0.01, 9.0, "epsilon"), "1000 timesteps"),
    "motion of a range": (Loss("learned_range", motion_sub=0.25), EPSILON, "loss.motion_sub is for"),
    "debias of a clip": (Loss("denoised", debias=True), SVD, "loss.debias is for"),
    "scale of v": (Loss(target_scale=1.01), SVD, "loss.target_scale is for"),
    "clip at every level": (Loss("denoised", x0_below_250=True), EPSILON, "at every level"),
}


@pytest.mark.parametrize("name", WRONG)
def test_losses_that_mean_nothing_are_refused_before_the_first_step(name):
    settings, noise, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        check_loss(noise, settings)
    # and by whoever did not ask before
    x0, epsilon = draw(1, 4, 3, 2, 2), draw(1, 4, 3, 2, 2, seed=1)
    with pytest.raises(ValueError, match=words):
        losses(epsilon, clips_at(noise, [1.0], x0, epsilon), noise, settings)


@pytest.mark.parametrize(
    "settings",
    [Loss(), Loss(weight="bounded", debias=True, motion_sub=0.25), Loss("learned_range"), Loss("denoised")],
)
def test_what_fits_together_passes(settings):
    check_loss(EPSILON, settings)
    check_loss(ReadNoise("epsilon", EPSILON.sigmas()), settings)


def test_an_output_of_another_shape_is_refused():
    x0, epsilon = draw(1, 4, 3, 2, 2), draw(1, 4, 3, 2, 2, seed=1)
    noisy = clips_at(EPSILON, [1.0], x0, epsilon)
    with pytest.raises(ValueError, match=r"gave \(1, 8, 3, 2, 2\).*needs \(1, 4, 3, 2, 2\)"):
        losses(draw(1, 8, 3, 2, 2), noisy, EPSILON, Loss())
    with pytest.raises(ValueError, match=r"needs \(1, 8, 3, 2, 2\)"):
        losses(draw(1, 4, 3, 2, 2), noisy, EPSILON, Loss("learned_range"))
    # one that would broadcast
    with pytest.raises(ValueError, match="this loss needs"):
        losses(draw(1, 4, 1, 2, 2), noisy, EPSILON, Loss())
