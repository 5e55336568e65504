"""The bound that PixArt's and EasyAnimate's variances are trained by: EasyAnimate's numbers, and each value by itself."""

import math

import pytest
import torch

from kinetograph.modules.noise import DiscreteNoise, ReadNoise
from kinetograph.modules.training.learned_range import bits, posterior
from kinetograph.modules.training.loss import losses
from kinetograph.modules.training.recipe import Loss
from kinetograph.modules.training.subject import Noisy

NOISE = DiscreteNoise("epsilon", 1e-4, 0.02, "linear")
RANGE, SNR = Loss("learned_range"), Loss("learned_range", x0_below_250=True)
MSE = 0.011843219
# timestep: the bound, and what snr_loss puts in the place of the square
BITS = {
    0: (1.475584450, 1.1844403e-6),
    1: (0.077833107, 2.6049905e-6),
    249: (0.000095877, 0.0107546617),
    250: (0.000095668, MSE),
    500: (0.000094278, MSE),
    999: (0.000174356, MSE),
}
# pictures are clips of one frame; frames on the batch axis have channels behind
LAYOUTS = {"picture": ((1, 1, 4, 2, 4), 1), "clip": ((1, 4, 2, 2, 2), 1), "causal": ((1, 2, 4, 2, 2), 2)}


def k(count=32):
    return torch.arange(count, dtype=torch.float64)


def case(t, layout="clip", dtype=torch.float64):
    shape, axis = LAYOUTS[layout]
    x0, epsilon = (0.7 * k() + 0.1).sin(), (1.3 * k()).cos()
    predicted, spread = 0.9 * epsilon + 0.1 * k().sin(), (0.5 * k()).sin().tanh()
    x0, epsilon, predicted, spread = (part.view(shape).to(dtype) for part in (x0, epsilon, predicted, spread))
    sigma = NOISE.sigmas()[[t]].to(dtype)
    noisy = Noisy(x0, epsilon, sigma, NOISE.noisy(x0, epsilon, sigma), axis)
    return torch.cat([predicted, spread], 3 - axis), noisy


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("t", BITS)
def test_the_loss_is_easyanimates(t, layout):
    bound, square = BITS[t]
    for dtype, near in ((torch.float64, 2e-9), (torch.float32, 1e-6)):
        output, noisy = case(t, layout, dtype)
        assert losses(output, noisy, NOISE, RANGE).item() == pytest.approx(MSE + bound, abs=near)
        assert losses(output, noisy, NOISE, SNR).item() == pytest.approx(square + bound, abs=near)


def test_16_bit_outputs_are_compared_in_fp32():
    for t in (0, 400):
        output, noisy = case(t, dtype=torch.float32)
        loss = losses(output.bfloat16(), noisy, NOISE, RANGE)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, losses(output.bfloat16().float(), noisy, NOISE, RANGE))


def test_the_mass_is_floored_where_a_clip_is_far_off():
    """A clip that the network took for quite another one at the first timestep: 1e-12 of mass, no infinity."""
    output, noisy = case(0)
    x0 = torch.zeros_like(noisy.x0)
    far = Noisy(x0, noisy.noise, noisy.sigma, NOISE.noisy(x0 + 0.5, noisy.noise, noisy.sigma), 1)
    epsilon, spread = output.chunk(2, dim=2)
    assert bits(epsilon, spread, far, NOISE).item() == pytest.approx(-math.log2(1e-12), rel=1e-9)


def one_value(x0, x, epsilon, nu, t, alphas):
    """The bound of one value in bits, from the distributions themselves."""
    alpha, before = alphas[t], alphas[t - 1] if t else 1.0
    beta = 1 - alpha / before
    tilde = (
        beta * (1 - before) / (1 - alpha)
        if t
        else (1 - alphas[1] / alphas[0]) * (1 - alphas[0]) / (1 - alphas[1])
    )
    share = (1 + nu) / 2
    variance = math.exp(share * math.log(beta) + (1 - share) * math.log(tilde))
    mean = lambda clip: (
        (  # noqa: E731
            beta * math.sqrt(before) * clip + (1 - before) * math.sqrt(1 - beta) * x
        )
        / (1 - alpha)
    )
    p = mean((x - math.sqrt(1 - alpha) * epsilon) / math.sqrt(alpha))
    if t:
        return 0.5 * (math.log(variance / tilde) - 1 + (tilde + (mean(x0) - p) ** 2) / variance) / math.log(2)

    def below(value):
        z = (value - p) / math.sqrt(variance)
        return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    upper = 1.0 if x0 > 0.999 else below(x0 + 1 / 255)
    lower = 0.0 if x0 < -0.999 else below(x0 - 1 / 255)
    return -math.log2(max(upper - lower, 1e-12))


@pytest.mark.parametrize("t", [0, 1, 2, 400, 999])
def test_each_value_by_itself(t):
    """Latents reach beyond -1..1, where the outermost of 256 steps is open."""
    torch.manual_seed(t)
    x0 = torch.cat([torch.randn(20) * 1.5, torch.tensor([-1.0, 1.0, -0.9995, 0.9985])]).double()
    epsilon = torch.randn(24).double()
    predicted, spread = epsilon + 0.2 * torch.randn(24), torch.randn(24).double().tanh()
    shape = (24, 1, 1, 1, 1)
    sigma = NOISE.sigmas()[[t]].expand(24)
    noisy = Noisy(x0.view(shape), epsilon.view(shape), sigma, NOISE.noisy(x0, epsilon, sigma).view(shape), 1)
    ours = bits(predicted.view(shape), spread.view(shape), noisy, NOISE)
    alphas = NOISE.alphas_cumprod().tolist()
    x = NOISE.scaled(noisy.x, sigma).flatten().tolist()
    told = zip(x0.tolist(), x, predicted.tolist(), spread.tolist(), strict=True)
    wanted = [one_value(*values, t, alphas) for values in told]
    assert ours.tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_the_bound_trains_the_variance_alone():
    for t in (0, 1, 300):
        output, noisy = case(t)
        output.requires_grad_()
        (of_both,) = torch.autograd.grad(losses(output, noisy, NOISE, RANGE).sum(), output)
        predicted, spread = of_both.chunk(2, dim=2)
        square = 2 * (output.detach().chunk(2, dim=2)[0] - noisy.noise) / 32
        assert torch.allclose(predicted, square, rtol=0, atol=1e-15)
        assert spread.abs().max() > 1e-8


def test_the_variances_gradient_is_that_of_its_formula():
    """By differences of the written-out bound."""
    output, noisy = case(1)
    output.requires_grad_()
    (gradient,) = torch.autograd.grad(losses(output, noisy, NOISE, RANGE).sum(), output)
    bumped = []
    for step in (1e-5, -1e-5):
        moved = output.detach().clone()
        moved[0, 1, 2, 1, 0] += step
        bumped.append(losses(moved, noisy, NOISE, RANGE).item())
    assert gradient[0, 1, 2, 1, 0].item() == pytest.approx((bumped[0] - bumped[1]) / 2e-5, rel=1e-6)


def test_clips_of_one_batch_have_their_own_timesteps():
    cases = [case(t) for t in BITS]
    output = torch.cat([output for output, _ in cases])
    parts = [
        torch.cat([getattr(noisy, name) for _, noisy in cases]) for name in ("x0", "noise", "sigma", "x")
    ]
    together = losses(output, Noisy(*parts, 1), NOISE, SNR)
    assert together.tolist() == pytest.approx([square + bound for bound, square in BITS.values()], abs=2e-9)


def test_variances_and_shares_are_those_of_the_betas():
    table = posterior(NOISE)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(table.log_beta, betas.log(), rtol=0, atol=1e-9)
    assert table.share[0].item() == pytest.approx(1, abs=1e-9)
    assert torch.equal(table.log_variance[0], table.log_variance[1])
    assert torch.all(table.log_variance < table.log_beta)


def test_a_table_of_levels_that_was_read_does_as_well():
    output, noisy = case(249)
    read = ReadNoise("epsilon", NOISE.sigmas())
    assert losses(output, noisy, read, SNR).item() == pytest.approx(sum(BITS[249]), abs=2e-9)
