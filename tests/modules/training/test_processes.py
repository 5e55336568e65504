"""Several processes train as one does, weights they share are whole where they are saved, and a kill loses nothing."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinetograph.modules.training import sharding
from kinetograph.modules.training.loop import Training
from kinetograph.modules.training.processes import Alone, agree, share_of
from kinetograph.tests import tiny_training as tiny

ROOT = Path(__file__).resolve().parents[3]
SAME = 1e-6
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of this test are forks")


def run_trainings(program, folder, **variables):
    """Have a program of `tests/` train into a folder, in a process of its own."""
    command = [sys.executable, str(ROOT / "tools" / "pack.py"), f"kinetograph.tests.{program}", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def came(tmp_path_factory):
    """(tensors, facts) of what `tests/gloo_trainings.py` trained, by name."""
    folder = tmp_path_factory.mktemp("gloo")
    run_trainings("gloo_trainings", folder)

    def read(name):
        tensors = folder / f"{name}.safetensors"
        return load_file(tensors) if tensors.exists() else {}, json.loads(
            (folder / f"{name}.json").read_text()
        )

    return read


def worst(a, b):
    """The largest relative distance between tensors of equal names, and the name; moments of a kind are one vector."""
    assert a.keys() == b.keys() and len(a) > 20
    whole, apart = Counter(), Counter()
    for key, value in b.items():
        name = f"all {key.rpartition('.')[2]}" if key.startswith("optimizer.") else key
        whole[name] += value.double().square().sum().item()
        apart[name] += (a[key].double() - value.double()).square().sum().item()
    return max((sqrt(apart[name] / max(whole[name], 1e-24)), name) for name in whole)


def learned(facts):
    """Losses and norms are those of work: none is zero, no two are equal."""
    numbers = [number for pair in facts["losses"] for number in pair]
    return len(set(numbers)) == len(numbers) and all(number > 0 for number in numbers)


def check_same(one, two, alone, shared):
    """Tensors and losses of two processes are those of one, which learned something."""
    distance, key = worst(two, one)
    assert distance <= SAME, key
    for a, b in zip(alone["losses"], shared["losses"], strict=True):
        assert b == pytest.approx(a, rel=SAME)
    assert learned(alone)


@forks
@pytest.mark.parametrize("name", ["lora", "motion_module", "shared_module", "whole"])
def test_two_processes_train_as_one_does(came, name):
    """Weights, means, moments, network and a sampled clip; of `shared_module` and `whole` each process held a share."""
    (one, alone), (two, shared) = came(f"{name}-1"), came(f"{name}-2")
    check_same(one, two, alone, shared)
    # and the next step does not go on from the running mean
    a, b = torch.tensor(alone["sample"]), torch.tensor(shared["sample"])
    assert len(a) == 50 and (a - b).norm() <= 1e-5 * a.norm()
    if name in ("shared_module", "whole"):
        assert shared["local"] <= 0.6 * shared["numbers"] == 0.6 * alone["local"]
    else:
        assert shared["local"] == alone["local"]


@forks
def test_of_two_clips_an_update_every_bit_is_the_same(came):
    (one, alone), (two, shared) = came("exact-1"), came("exact-2")
    assert all(torch.equal(one[key], two[key]) for key in one) and alone["losses"] == shared["losses"]


@forks
def test_a_killed_run_goes_on_byte_for_byte(came):
    (unbroken, whole), (resumed, rest) = came("killed-unbroken"), came("killed-resumed-2")
    assert 0 < rest["began"] < len(whole["losses"])
    assert rest["losses"] == whole["losses"][rest["began"] :]
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)


@forks
def test_a_killed_run_goes_on_with_another_number_of_processes(came):
    distance, key = worst(came("killed-resumed-1")[0], came("killed-unbroken")[0])
    assert distance <= SAME, key


@forks
@pytest.mark.parametrize("count", [1, 2])
def test_shared_weights_go_on_with_another_number_of_processes(came, count):
    (resumed, rest), (unbroken, _) = came(f"whole-resumed-{count}"), came("whole-1")
    distance, key = worst(resumed, unbroken)
    assert rest["began"] > 0 and len(rest["losses"]) == 1
    assert distance <= SAME, key


@forks
def test_a_state_is_whole_whenever_its_writer_is_killed(came):
    _, facts = came("states")
    assert len(set(facts["steps"])) == 10 and facts["steps"] == sorted(facts["steps"])
    assert facts["files"] == ["state-00000000.safetensors", "state.json"]


@forks
def test_processes_that_differ_say_so_in_each_of_them(came):
    said = [came(f"disagree-{rank}")[1] for rank in (0, 1)]
    assert [words for words, _ in (one["words"] for one in said)] == ["", ""]
    assert all("2 processes differ in their clips" in one["words"][1] for one in said)


@forks
def test_a_gradient_that_one_process_lacks_is_halved_and_that_all_lack_is_none(came):
    for rank in (0, 1):
        assert came(f"disagree-{rank}")[1]["grads"] == [[1.5], [2.5], None]


class Few(Alone):
    """One of several processes, without the others."""

    def __init__(self, count, rank=0):
        super().__init__()
        self.count, self.rank = count, rank


def test_clips_are_shared_in_their_order_or_not_at_all():
    shares = [share_of([4, 5, 6, 7, 8, 9], Few(3, rank)) for rank in range(3)]
    assert shares == [[4, 5], [6, 7], [8, 9]]
    weights = {"w": torch.nn.Parameter(torch.zeros(2, 2))}
    subject = tiny.cogvideox()
    with pytest.raises(
        ValueError, match="3 clips of an update .* by 2 processes: set batch to a multiple of 2"
    ):
        Training(subject, weights, tiny.examples(subject), tiny.recipe(batch=3), Few(2))


def test_one_process_agrees_with_itself():
    agree(Alone(), "nothing", float("nan"))


def test_calls_that_would_not_meet_are_refused():
    examples = tiny.examples(tiny.cogvideox())
    sharding.check_calls(examples, 2)
    examples[3] = dataclasses.replace(examples[3], mean=examples[3].mean[:, :2])
    sharding.check_calls(examples, 1)
    with pytest.raises(ValueError, match="2 different shapes .* set steps.at_once to 1"):
        sharding.check_calls(examples, 2)


@pytest.mark.parametrize("optimizer", ["muon", "adamw8bit", "torch.optim.RAdam"])
def test_optimizers_that_need_whole_weights_are_refused(optimizer):
    with pytest.raises(ValueError, match=f'"{optimizer}" needs whole weights'):
        sharding.check(tiny.recipe(optimizer=optimizer), torch.float32)


def test_shared_weights_in_fp16_are_refused():
    sharding.check(tiny.recipe(), torch.bfloat16)
    with pytest.raises(ValueError, match="choose bf16 or fp32"):
        sharding.check(tiny.recipe(), torch.float16)
