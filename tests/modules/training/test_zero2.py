"""DeepSpeed's ZeRO-2: two processes train as one does, each holds half of gradients and moments, states go either way.

Trainings run where DeepSpeed is installed. To run them, keep it out of the environment:
`pip install --no-deps --target DIR deepspeed hjson py-cpuinfo ninja msgpack einops` (with DS_BUILD_OPS=0), then
`PYTHONPATH=DIR python -m pytest tests/modules/training/test_zero2.py`.
"""

import dataclasses
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

from kinetograph.modules.training import optimizers
from kinetograph.modules.training.processes import Alone
from kinetograph.modules.training.recipe import Machine
from kinetograph.tests import tiny_training as tiny
from kinetograph.tests.modules.training.test_processes import SAME, check_same, run_trainings, worst
from kinetograph.tools import zero2

ROOT = Path(__file__).resolve().parents[3]
trainings = pytest.mark.skipif(
    not hasattr(os, "fork") or find_spec("deepspeed") is None, reason="deepspeed is not installed"
)
ENVIRONMENT = "ACCELERATE_DEEPSPEED_"


@pytest.fixture(scope="module")
def came(tmp_path_factory):
    """(tensors, facts, what each process held) of what `tests/zero2_trainings.py` trained, by name."""
    folder = tmp_path_factory.mktemp("zero2")
    run_trainings("zero2_trainings", folder, DS_ACCELERATOR="cpu")

    def read(name):
        tensors, facts = folder / f"{name}.safetensors", folder / f"{name}.json"
        held = [json.loads(file.read_text()) for file in sorted(folder.glob(f"{name}-held-*.json"))]
        return load_file(tensors) if tensors.exists() else {}, json.loads(facts.read_text()), held

    return read


@trainings
@pytest.mark.parametrize("name", ["lora", "svd_lora", "motion_module", "lion"])
def test_two_processes_train_as_one_does(came, name):
    """Weights, means, moments, network and a sampled clip, by the recipe's clipping and rates; no weight is lost."""
    (one, alone, _), (two, shared, _) = came(f"{name}-1"), came(f"{name}-2")
    check_same(one, two, alone, shared)
    a, b = torch.tensor(alone["sample"]), torch.tensor(shared["sample"])
    assert len(a) == 50 and (a - b).norm() <= 1e-5 * a.norm()


@trainings
def test_weights_that_no_clip_reaches_stay(came):
    """As with one process they neither decay nor have moments: DeepSpeed alone takes them for zero gradients."""
    two, _, _ = came("svd_lora-2")
    moments = {key for key in two if key.endswith(".exp_avg")}
    weights = {key for key in two if key.startswith("model.")}
    untold = {key for key in weights if f"optimizer.{key.removeprefix('model.')}.exp_avg" not in moments}
    assert untold and all("attn2.to_q" in key or "attn2.to_k" in key for key in untold)
    assert len(untold) + len(moments) == len(weights)


@trainings
@pytest.mark.parametrize("name", ["lora", "svd_lora", "motion_module", "lion"])
def test_each_process_holds_half_of_gradients_and_moments(came, name):
    (alone,), halves = came(f"{name}-1")[2], came(f"{name}-2")[2]
    assert len(halves) == 2
    for kind in ("state", "gradients"):
        assert alone[kind] > 0 and all(half[kind] <= 0.52 * alone[kind] for half in halves)


@trainings
@pytest.mark.parametrize("count", [1, 2])
def test_a_run_goes_on_with_another_number_of_processes(came, count):
    """From a state of one process by two, and from one of two by one."""
    (resumed, rest, _), (unbroken, _, _) = came(f"svd_lora-resumed-{count}"), came("svd_lora-1")
    distance, key = worst(resumed, unbroken)
    assert rest["began"] == 2 and len(rest["losses"]) == 1
    assert distance <= SAME, key


@trainings
@pytest.mark.parametrize("rank", [0, 1])
def test_what_cannot_be_is_said_in_each_process(came, rank):
    said = came(f"refuse-{rank}")[1]
    no_number, others = said["words"]
    assert no_number.startswith("ArithmeticError: The loss of step 1 is nan") and said["same"]
    assert "depends on 1 of the weights, that of the first on 52" in others


def told(monkeypatch, **settings):
    """As `accelerate launch` tells it to the processes."""
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT)]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(ENVIRONMENT + name, value)


def test_the_configuration_is_what_the_trainer_takes(monkeypatch):
    """And what accelerate knows: every key is one of its own."""
    written = yaml.safe_load((ROOT / zero2.CONFIGURATION).read_text(encoding="utf-8"))
    chosen = written["deepspeed_config"]
    assert written["distributed_type"] == "DEEPSPEED" and chosen["zero_stage"] == 2
    assert chosen["deepspeed_multinode_launcher"] == "standard"
    load_config_from_file(str(ROOT / zero2.CONFIGURATION))
    told(
        monkeypatch,
        ZERO_STAGE=str(chosen["zero_stage"]),
        OFFLOAD_OPTIMIZER_DEVICE=chosen["offload_optimizer_device"],
        OFFLOAD_PARAM_DEVICE=chosen["offload_param_device"],
    )
    monkeypatch.setattr(zero2, "find_spec", lambda name: name)
    zero2.check_wish()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ZERO_STAGE": "3"}, r"ZeRO stage 3\. .* stage 2 without offload: launch with configs/training/"),
        ({"ZERO_STAGE": "1"}, r"ZeRO stage 1\. .* takes stage 2"),
        ({"OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, r"ZeRO stage 2, optimizer on cpu\. .* without offload"),
        ({"OFFLOAD_PARAM_DEVICE": "nvme"}, r"ZeRO stage 2, parameters on nvme\."),
        ({"CONFIG_FILE": "zero.json"}, r"deepspeed_config_file\) is not read"),
    ],
)
def test_other_ways_of_deepspeed_are_refused(monkeypatch, settings, words):
    told(monkeypatch, **settings)
    with pytest.raises(ValueError, match=words):
        zero2.check_wish()


def test_a_missing_package_is_told_with_what_to_do(monkeypatch):
    told(monkeypatch)
    monkeypatch.setattr(zero2, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match='deepspeed is not there. Install it with "pip install deepspeed"'):
        zero2.check_wish()


def test_the_trainer_says_so_before_anything_is_loaded(tmp_path):
    """From the shell, as a launcher would start it."""
    command = [sys.executable, str(ROOT / "tools" / "pack.py"), "kinetograph.tools.train", "none.toml"]
    wish = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "LOCAL_RANK": "0"}
    done = subprocess.run(
        [*command, "--host", str(tmp_path)], env={**os.environ, **wish}, capture_output=True, text=True
    )
    assert done.returncode == 1 and "This trainer takes stage 2 without offload" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("optimizer", ["muon", "adamw8bit", "torch.optim.RAdam"])
def test_optimizers_that_need_whole_weights_are_refused(optimizer):
    with pytest.raises(ValueError, match=f'"{optimizer}" needs whole weights.*choose adamw or lion'):
        zero2.ZeRO2(Alone()).check(tiny.recipe(optimizer=optimizer), torch.float32)


def test_fp16_and_two_ways_at_once_are_refused():
    engine, recipe = zero2.ZeRO2(Alone()), tiny.recipe()
    engine.check(recipe, torch.bfloat16)
    with pytest.raises(ValueError, match="fp16 with DeepSpeed's ZeRO-2 .* choose bf16 or fp32"):
        engine.check(recipe, torch.float16)
    recipe = dataclasses.replace(recipe, machine=Machine(sharing="weights"))
    with pytest.raises(ValueError, match='sharing is "weights", and accelerate was set to DeepSpeed'):
        engine.check(recipe, torch.float32)


def weights(*names):
    return {name: torch.nn.Parameter(torch.ones(2, 3)) for name in names}


def test_leaves_of_a_loss_are_those_it_depends_on():
    parameters = weights("a", "b", "c")
    loss = checkpoint(lambda x: (x * parameters["a"]).sum(), torch.ones(2, 3), use_reentrant=False)
    assert list(zero2.leaves_of(loss + (parameters["c"] * 2).mean(), parameters)) == ["a", "c"]


def test_a_state_is_split_by_what_it_holds():
    moment = torch.rand(2, 3)
    tensors = {
        "a.exp_avg": moment,
        "b.exp_avg": -moment,
        "a.step": torch.tensor(3.0),
        "b.step": torch.tensor(3.0),
        f"{optimizers.CLASS}AdamW": torch.zeros(()),
    }
    moments, rest = zero2.split_state(tensors, weights("a", "b"))
    assert moments == {"exp_avg": {"a": tensors["a.exp_avg"], "b": tensors["b.exp_avg"]}}
    assert rest == {"piece.step": tensors["a.step"], f"{optimizers.CLASS}AdamW": torch.zeros(())}
    with pytest.raises(ValueError, match="differ in step"):
        zero2.split_state({**tensors, "b.step": torch.tensor(2.0)}, weights("a", "b"))
    with pytest.raises(ValueError, match="exp_avg of 2 weights, and clips reach 3"):
        zero2.split_state(tensors, weights("a", "b", "c"))
