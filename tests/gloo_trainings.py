"""Trainings that gloo processes share, for tests: run as `python tools/pack.py kinetograph.tests.gloo_trainings FOLDER`.

Packages are imported once; the processes are forks, told of one another as `accelerate launch` tells them. What came of
each lies in the folder: `NAME.safetensors` and `NAME.json`.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import accelerate  # noqa: F401
import torch
import torch._dynamo  # an optimizer's first step would
import torch.distributed.fsdp  # noqa: F401
from safetensors.torch import save_file

from kinetograph.modules.training import parts, sampling, sharding, state
from kinetograph.modules.training.loop import Training, run
from kinetograph.modules.training.low_rank import LowRank
from kinetograph.modules.training.processes import Alone, agree
from kinetograph.modules.training.recipe import Evaluation, Loss
from kinetograph.tests import tiny_training as tiny
from kinetograph.tools.accelerated import Accelerated

# of a run that is killed, and of the one that is not
STEPS = 7


def lora(processes, **steps):
    """LoRAs of a CogVideoX whose upper halves are not zero."""
    subject = tiny.cogvideox()
    return Training(subject, low_rank(subject), tiny.examples(subject), _recipe("lora", **steps), processes)


def low_rank(subject):
    """The halves of a LoRA on all projections of a network, the upper ones not zero."""
    layers = {
        n: m for n, m in subject.network.named_modules() if isinstance(m, torch.nn.Linear) and "to_" in n
    }
    low = LowRank(layers, 2, 4.0)
    dice = torch.Generator().manual_seed(1)
    for _, up in low.halves.values():
        up.data = torch.randn(up.shape, generator=dice) * 0.1
    low.attach()
    return low.parameters()


def motion_module(processes, **steps):
    """EasyAnimate's modules inside PixArt."""
    return _whole(tiny.pixart(motion=True), "motion_module", processes, Loss("learned_range"), **steps)


def whole(processes, **steps):
    """All of a CogVideoX, shared by the processes where they are several."""
    return _whole(tiny.cogvideox(), "whole", processes, Loss(), True, **steps)


def shared_module(processes, **steps):
    """The same modules, shared with the frozen weights around them."""
    return _whole(tiny.pixart(motion=True), "motion_module", processes, Loss("learned_range"), True, **steps)


def _whole(subject, part, processes, loss, shares=False, **steps):
    parameters = dict(subject.network.named_parameters())
    trained = {name: parameters[name].requires_grad_() for name in parts.whole_names(part, parameters)}
    if shares and processes.count > 1:
        trained = sharding.shard(subject, trained, processes.device, torch.float32)
    recipe = _recipe(part, loss, **steps)
    return Training(subject, trained, tiny.examples(subject), recipe, processes)


def _recipe(part, loss=None, **steps):
    return tiny.recipe(part, loss, **{"batch": 2, "seed": 11, "ema": 0.9, "clip": 0.05, "lr": 1e-3, **steps})


def finish(processes, folder, name, make, resume=None, keep=0, **steps):
    """A training to its end, from an earlier state where there is one; its state, network and losses lie in the folder."""
    course = make(processes, **steps)
    if resume:
        course.go_on(state.load(resume))
    began, losses, sample = course.done, [], []

    def after(progress):
        losses.append([progress.loss, progress.norm])
        if progress.step == keep:
            _save(course, folder / f"{name}-at-{keep}")
            sample.extend(_sample(course))

    run(course, after)
    kept, network = course.state(), course.network_state()
    if processes.rank == 0:
        tensors = {**kept.tensors, **{f"network.{key}": value for key, value in network.items()}}
        save_file({key: value.clone() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        local = sum(getattr(p, "_local_tensor", p).numel() for p in course.trained.values())
        numbers = sum(p.numel() for p in course.trained.values())
        (folder / f"{name}.json").write_text(
            json.dumps(
                {"losses": losses, "began": began, "local": local, "numbers": numbers, "sample": sample}
            )
        )
    return course


def _sample(course):
    """Some numbers of a clip sampled with the running mean, as a training shows it."""
    with course.average.swapped():
        wish = (course.examples.empty, Evaluation(steps=2), 1, "cpu", torch.float32)
        return sampling.sample(course.subject, course.examples[0], *wish).flatten()[:50].tolist()


def _save(course, folder):
    kept = course.state()
    if course.processes.rank == 0:
        state.save(folder, kept)


def save_each(processes, folder, make, **steps):
    """A training that saves every step, to be killed."""
    course = make(processes, **steps)
    run(course, lambda progress: _save(course, folder))


def write_states(processes, folder):
    """States that hold their own number everywhere, one after the other, to be killed."""
    earlier = state.load(folder)
    step = earlier.step if earlier else 0
    while True:
        step += 1
        tensors = {f"t{i}": torch.full((100_000,), float(step)) for i in range(8)}
        state.save(folder, state.State(step, tensors, {"again": step}))


def disagree(processes, folder):
    """What the processes say when they do not hold the same, and what gradients some of them lack become."""
    words = []
    for values in ((2.0, 1 / 3), (2.0, float(processes.rank))):
        try:
            agree(processes, "their clips", *values)
            words.append("")
        except ValueError as error:
            words.append(str(error))
    both, one, none = (torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
    both.grad = torch.full((2, 3), 1.0 + processes.rank)
    if processes.rank:
        one.grad = torch.full((2, 3), 5.0)
    processes.share_gradients([both, one, none])
    grads = [both.grad.unique().tolist(), one.grad.unique().tolist(), none.grad]
    (folder / f"disagree-{processes.rank}.json").write_text(json.dumps({"words": words, "grads": grads}))


def start(count, work, *arguments, **named):
    """So many processes at work."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("fork")
    started = [
        context.Process(target=_work, args=(rank, count, port, work, arguments, named))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    return started


def _work(rank, count, port, work, arguments, named):
    if count == 1:
        return work(Alone(), *arguments, **named)
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "MASTER_PORT": port,
        "LOCAL_WORLD_SIZE": count,
    }
    os.environ.update({key: str(value) for key, value in told.items()}, MASTER_ADDR="127.0.0.1")
    shared = Accelerated(cpu=True)
    work(shared, *arguments, **named)
    shared.close()


def together(count, work, *arguments, **named):
    """The same to their end; SystemExit unless all came there."""
    started = start(count, work, *arguments, **named)
    for process in started:
        process.join(300)
    if any(process.exitcode for process in started):
        kill(started)
        raise SystemExit(f"{work.__name__} {arguments} {named}: {[process.exitcode for process in started]}")


def kill(started):
    """As the system does it to who takes too much memory."""
    for process in started:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    for process in started:
        process.join()


def killed(folder):
    """A training killed at a random step, gone on with by two processes and by one; beside it one never stopped."""
    dice, place = random.Random(), folder / "killed"
    started = start(2, save_each, place, lora, total=STEPS)
    wanted = dice.randint(1, STEPS // 2)
    while step_of(place) < wanted:
        time.sleep(0.002)
        if not all(process.is_alive() for process in started):
            raise SystemExit("the training ended before it was killed")
    time.sleep(dice.uniform(0, 0.02))
    kill(started)
    for count in (2, 1):
        together(count, finish, folder, f"killed-resumed-{count}", lora, resume=place, total=STEPS)
    together(2, finish, folder, "killed-unbroken", lora, total=STEPS)


def step_of(place):
    """Where a training is that goes on meanwhile."""
    return json.loads(file.read_text())["step"] if (file := place / state.FACTS).exists() else 0


def whole_states(folder):
    """(steps found after each of several kills, files left at the end)."""
    dice, place, steps = random.Random(), folder / "states", []
    for _ in range(10):
        before, (process,) = step_of(place), start(1, write_states, place)
        while step_of(place) == before:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.03))
        kill([process])
        found = state.load(place)
        steps.append(found.step)
        same = all(value.eq(found.step).all() for value in found.tensors.values())
        if not same or found.facts["again"] != found.step or len(found.tensors) != 8:
            raise SystemExit(f"step {found.step} is not whole")
    state.save(place, state.State(0, {}, {}))
    return {"steps": steps, "files": sorted(path.name for path in place.iterdir())}


def main(folder):
    torch.set_num_threads(1)
    for make, steps in ((lora, 2), (motion_module, 2), (shared_module, 3), (whole, 3)):
        for count in (1, 2):
            name = f"{make.__name__}-{count}"
            together(count, finish, folder, name, make, keep=2, total=steps, batch=4)
    for count in (1, 2):
        together(count, finish, folder, f"exact-{count}", lora, total=3)
        resume = folder / f"whole-{3 - count}-at-2"
        together(count, finish, folder, f"whole-resumed-{count}", whole, resume=resume, total=3, batch=4)
    killed(folder)
    together(2, disagree, folder)
    (folder / "states.json").write_text(json.dumps(whole_states(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
