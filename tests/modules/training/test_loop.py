"""The loop: what it changes, where it goes on, and what it does not depend on."""

import dataclasses

import pytest
import torch

from kinetograph.modules.training import checkpointing, state
from kinetograph.modules.training.loop import Training, run
from kinetograph.modules.training.low_rank import LowRank
from kinetograph.modules.training.recipe import Levels, Loss
from kinetograph.tests import tiny_training as tiny

SUBJECTS = {
    "cogvideox": (tiny.cogvideox, Loss(), Levels()),
    "svd": (tiny.svd, Loss("denoised", "root_edm", target_scale=1.01), Levels("karras")),
    "pixart": (tiny.pixart, Loss("learned_range"), Levels()),
    "easyanimate": (lambda: tiny.pixart(motion=True), Loss("learned_range"), Levels()),
}
families = pytest.mark.parametrize("name", SUBJECTS)


def is_told_nothing(name, subject):
    """Whether a layer has no gradient: SVD looks at one token, which gets all attention whatever its key."""
    return subject.family == "svd" and any(part in name for part in ("attn2.to_q", "attn2.to_k"))


def linears(network):
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and "to_" in name
    }


def training(name, total=6, **steps):
    """A training of LoRAs whose upper halves are not zero."""
    make, loss, levels = SUBJECTS[name]
    subject = make()
    low = LowRank(linears(subject.network), 2, 4.0)
    dice = torch.Generator().manual_seed(1)
    for _, up in low.halves.values():
        up.data = torch.randn(up.shape, generator=dice) * 0.1
    low.attach()
    recipe = tiny.recipe(
        loss=loss, levels=levels, total=total, **{"batch": 2, "at_once": 2, "seed": 11, **steps}
    )
    return Training(subject, low.parameters(), tiny.examples(subject), recipe), subject


@families
def test_only_what_is_trained_changes_and_all_of_it(name):
    course, subject = training(name)
    before = {key: value.clone() for key, value in subject.network.state_dict().items()}
    halves = {key: value.detach().clone() for key, value in course.trained.items()}
    run(course, lambda progress: None)
    assert len(halves) >= 8
    for key, value in halves.items():
        assert torch.equal(value, course.trained[key]) == is_told_nothing(key, subject), key
    assert all(torch.equal(value, subject.network.state_dict()[key]) for key, value in before.items())


@families
def test_a_run_that_was_stopped_goes_on_byte_for_byte(name, tmp_path):
    whole, _ = training(name, ema=0.9)
    losses = []
    run(whole, lambda progress: losses.append(progress.loss))
    first, _ = training(name, ema=0.9)
    for _ in range(3):
        first.step()
    state.save(tmp_path, first.state())
    second, _ = training(name, ema=0.9)
    second.go_on(state.load(tmp_path))
    again = []
    run(second, lambda progress: again.append(progress.loss))
    assert again == losses[3:] and len(again) == 3
    for key, value in whole.result().items():
        assert torch.equal(value, second.result()[key])


@families
def test_how_many_go_through_at_once_changes_nothing(name):
    """Each clip has its own noise and level, and counts by itself."""
    together, _ = training(name, batch=4, at_once=4)
    alone, _ = training(name, batch=4, at_once=1)
    a, b = together.step(), alone.step()
    assert a.loss == pytest.approx(b.loss, rel=1e-5) and a.norm == pytest.approx(b.norm, rel=1e-4)


@families
def test_computing_blocks_anew_gives_the_same_gradients(name):
    plain, _ = training(name)
    anew, subject = training(name)
    checkpointing.checkpoint_blocks(subject.blocks)
    for course in (plain, anew):
        course._gradients([0, 1])
    for key, value in plain.trained.items():
        assert is_told_nothing(key, subject) or torch.equal(value.grad, anew.trained[key].grad), key


def test_a_loss_that_is_no_number_changes_nothing():
    course, _ = training("cogvideox")
    clips = course.examples
    clips[:] = [dataclasses.replace(clip, mean=clip.mean * float("nan")) for clip in clips]
    halves = {key: value.detach().clone() for key, value in course.trained.items()}
    with pytest.raises(ArithmeticError, match="step 1"):
        course.step()
    assert all(torch.equal(value, course.trained[key]) for key, value in halves.items()) and course.done == 0


def test_an_empty_data_set_is_refused():
    subject = tiny.cogvideox()
    low = LowRank(linears(subject.network), 2, 4.0)
    with pytest.raises(ValueError, match="no clip"):
        Training(subject, low.parameters(), tiny.Examples(), tiny.recipe())


def test_the_state_of_another_training_is_refused(tmp_path):
    course, _ = training("cogvideox")
    state.save(tmp_path, course.state())
    other, _ = training("pixart")
    with pytest.raises(ValueError, match="another training"):
        other.go_on(state.load(tmp_path))


def test_states_may_be_read_by_whoever_reads_the_users_files(tmp_path):
    """safetensors by itself makes files for their owner alone."""
    course, _ = training("cogvideox")
    (tmp_path / "usual").touch()
    state.save(tmp_path / "run", course.state())
    (file,) = (tmp_path / "run").glob("state-*.safetensors")
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode
