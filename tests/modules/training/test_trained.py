"""What a training changes for each part, what its loss is by the papers' own formulas, and through which attention it goes."""

import math

import pytest
import torch

from kinetograph.modules.families.svd.exvideo import ExVideoBranches
from kinetograph.modules.training import draws
from kinetograph.modules.training.loop import Training
from kinetograph.modules.training.recipe import Levels, Loss, PartChoice
from kinetograph.modules.training.trained import trained_of
from kinetograph.tests import tiny_training as tiny


def exvideo():
    """A tiny SVD with ExVideo's branches in it."""
    subject = tiny.svd()
    branches = ExVideoBranches(subject.network.config)
    branches.start_from(subject.network)
    tiny.randomise(branches, 7)
    branches.put_into(subject.network)
    return subject


def easyanimate(**options):
    return tiny.pixart(motion=True, **options)


PARTS = {
    "cogvideox lora": (tiny.cogvideox, PartChoice("lora", 2, 4.0), None),
    "cogvideox all": (tiny.cogvideox, PartChoice("lora", 2, 4.0, "all"), None),
    "cogvideox whole": (tiny.cogvideox, PartChoice("whole"), "transformer_blocks.1.ff.net.2.weight"),
    "svd lora": (tiny.svd, PartChoice("lora", 2, 4.0), None),
    "svd temporal lora": (tiny.svd, PartChoice("lora", 2, 4.0, "temporal"), None),
    "svd temporal": (tiny.svd, PartChoice("temporal"), "input_blocks.1.1.time_stack.0.attn1.to_q.weight"),
    "exvideo": (exvideo, PartChoice("exvideo"), "input_blocks.1.1.positional.conv.weight"),
    "pixart lora": (tiny.pixart, PartChoice("lora", 2, 4.0, "all"), None),
    "easyanimate module": (
        easyanimate,
        PartChoice("motion_module"),
        "transformer_blocks.0.attn_temporal.temporal_transformer.proj_in.weight",
    ),
}


def course_of(make, choice, loss=None, levels=None, **steps):
    subject = make()
    recipe = tiny.recipe(choice, loss, levels, **{"batch": 2, "at_once": 2, "seed": 5, **steps})
    trained = trained_of(subject, recipe)
    # ExVideo's positions are folded at the edges: two cells are needed in the middle
    cells = 16 if make is exvideo else 8
    return Training(subject, trained, tiny.examples(subject, cells=cells), recipe), subject


@pytest.mark.parametrize("name", PARTS)
def test_a_step_changes_only_the_part(name):
    make, choice, one = PARTS[name]
    course, subject = course_of(make, choice)
    before = {key: value.clone() for key, value in subject.network.state_dict().items()}
    halves = {key: value.detach().clone() for key, value in course.trained.items()}
    course.step()
    after = subject.network.state_dict()
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    if one is None:
        assert not changed and len(halves) >= 16
        # the upper halves start at zero, and so do the gradients of the lower ones
        ups = [key for key in halves if key.endswith("lora_up")]
        moved = [key for key in ups if not torch.equal(halves[key], course.trained[key])]
        assert len(ups) == len(halves) // 2 and len(moved) >= len(ups) // 2
    else:
        assert one in changed and changed <= set(course.trained)
    assert all(p.requires_grad == (key in course.trained) for key, p in subject.network.named_parameters())


def parts_of(course, place):
    """What the draws of a clip are, as the loop makes them: (example, latent, noise, uniform number of the level)."""
    example = course._example(place)
    key = (example.index, example.visit, course.recipe.steps.seed)
    shape = tuple(example.mean.shape)
    posterior = draws.normal(shape, "posterior", *key)
    z = example.mean + (0.5 * example.log_variance).exp() * posterior
    return example, z, draws.normal(shape, "noise", *key), draws.uniform("level", *key)


def alphas(start, end, scaled, zero_snr=False):
    """alpha-bar by Ho et al. (arXiv 2006.11239), and Lin et al. (arXiv 2305.08891)."""
    betas = [
        (start**0.5 + (end**0.5 - start**0.5) * i / 999) ** 2 if scaled else start + (end - start) * i / 999
        for i in range(1000)
    ]
    bars, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        bars.append(product)
    if not zero_snr:
        return bars
    first, last = bars[0] ** 0.5, bars[-1] ** 0.5
    return [((bar**0.5 - last) * first / (first - last)) ** 2 for bar in bars]


def test_cogvideoxs_loss_is_that_of_v():
    """v = sqrt(a) noise - sqrt(1 - a) x0 (Salimans and Ho, arXiv 2202.00512), one timestep a clip."""
    course, subject = course_of(tiny.cogvideox, PartChoice("lora", 2, 4.0), batch=1)
    bars = alphas(0.00085, 0.012, scaled=True, zero_snr=True)
    for place in range(4):
        example, z, noise, u = parts_of(course, place)
        t = int((1 - u) * 1000)
        a, x0 = bars[t], z * 0.7
        x = math.sqrt(a) * x0 + math.sqrt(1 - a) * noise
        v = math.sqrt(a) * noise - math.sqrt(1 - a) * x0
        with torch.no_grad():
            output = subject.network(x[None], torch.tensor([float(t)]), example.context[None])[0]
            loss = course.losses_of([example]).item()
        assert loss == pytest.approx((output - v).square().mean().item(), rel=2e-6)


def test_pixarts_loss_is_that_of_the_noise():
    course, subject = course_of(tiny.pixart, PartChoice("lora", 2, 4.0), batch=1)
    bars = alphas(0.0001, 0.02, scaled=False)
    for place in range(4):
        example, z, noise, u = parts_of(course, place)
        t = int((1 - u) * 1000)
        x = math.sqrt(bars[t]) * z * 0.18215 + math.sqrt(1 - bars[t]) * noise
        with torch.no_grad():
            output = subject.network(
                x, torch.full((len(x),), float(t)), example.context[None], num_video_frames=len(x)
            )
            loss = course.losses_of([example]).item()
        assert loss == pytest.approx((output - noise).square().mean().item(), rel=2e-6)


def test_exvideos_loss_is_that_of_its_own_code():
    """Specification of training, sec. 2.6: a Karras grid from 700, 1.01 of the clip, the root of EDM's weight."""
    loss, levels = Loss("denoised", "root_edm", target_scale=1.01), Levels("karras")
    course, subject = course_of(exvideo, PartChoice("exvideo"), loss, levels, batch=1)
    for place in range(4):
        example, z, noise, u = parts_of(course, place)
        ramp = int(1000 * u) / 999
        sigma = (700 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 700 ** (1 / 7))) ** 7
        x0 = z * 0.18215
        noisy = x0 + sigma * noise
        told = subject.conditions(_request(example))
        seen = torch.cat([noisy / math.sqrt(sigma**2 + 1), told["concat"]], 1)
        time = torch.full((len(z),), 0.25 * math.log(sigma))
        with torch.no_grad():
            f = subject.network(seen, time, told["context"], y=told["y"], num_video_frames=len(z))
            mine = course.losses_of([example]).item()
        denoised = noisy / (sigma**2 + 1) - sigma / math.sqrt(sigma**2 + 1) * f
        wanted = math.sqrt(1 + sigma**2) / sigma * (denoised - 1.01 * x0).square().mean().item()
        assert mine == pytest.approx(wanted, rel=1e-5)


def _request(example):
    from kinetograph.modules.families.family import Request

    return Request(
        tuple(example.mean.shape),
        example.context[None],
        example.image,
        len(example.mean),
        example.numbers,
    )


@pytest.mark.parametrize(
    ("make", "calls"),
    [(tiny.cogvideox, 2), (easyanimate, 2 * 2 + 2 * 2), (tiny.svd, 16 * 2)],
    ids=["cog", "ea", "svd"],
)
def test_every_attention_of_a_step_is_the_one_that_was_handed_in(make, calls):
    """The temporal ones, too, with gradients on: EasyAnimate's two beside two of a block, SVD's over space and over time.

    What SVD asks of its one token is that token's value, whatever the kernel.
    """
    counted = tiny.Counting()
    subject = make(attention=counted)
    recipe = tiny.recipe(PartChoice("lora", 2, 4.0), batch=1)
    course = Training(subject, trained_of(subject, recipe), tiny.examples(subject), recipe)
    counted.calls = 0
    course.losses_of([course._example(0)]).sum()
    assert counted.calls == calls
