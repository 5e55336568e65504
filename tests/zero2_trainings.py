"""Trainings by DeepSpeed's ZeRO-2 on two gloo processes, beside those of one process: run like `gloo_trainings.py`."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import deepspeed
import deepspeed.ops
import torch

from kinetograph.modules.training.loop import Training
from kinetograph.modules.training.memory import bytes_of
from kinetograph.modules.training.recipe import Levels, Loss
from kinetograph.tests import gloo_trainings as gloo
from kinetograph.tests import tiny_training as tiny

BATCH = {"total": 2, "batch": 4}
# SVD's gradients are small, and AdamW makes much of their last digits; a sum of two has no order
PAIRS = {"total": 3, "batch": 2}


def svd_lora(processes, **steps):
    """LoRAs of an SVD, some of which no clip reaches: whoever looks at one token does so whatever its key."""
    subject = tiny.svd()
    loss, levels = Loss("denoised", "root_edm", target_scale=1.01), Levels("karras")
    recipe = tiny.recipe(
        "lora", loss, levels, **{"batch": 4, "seed": 11, "ema": 0.9, "clip": 0.05, "lr": 1e-3, **steps}
    )
    return Training(subject, gloo.low_rank(subject), tiny.examples(subject), recipe, processes)


def motion_module(processes, **steps):
    """EasyAnimate's modules inside PixArt, by Fun's rule of clipping and a course of the learning rate."""
    return gloo.motion_module(processes, clip_rule="fun", schedule="cosine", warm_up=2, **steps)


def lion(processes, **steps):
    return gloo.lora(processes, optimizer="lion", lr=1e-4, **steps)


def finish(processes, folder, name, make, **named):
    """A training to its end, and how many bytes this process holds: of what the optimizer remembers, of gradients."""
    course = gloo.finish(processes, folder, name, make, **named)
    updates, is_one = course.updates, processes.count == 1
    optimizer = updates.optimizer if is_one else updates._engine.optimizer
    state = [value for state in optimizer.state.values() for value in state.values()]
    course._gradients([processes.rank])
    grads = [p.grad for p in course.trained.values() if p.grad is not None]
    if not is_one:
        grads += optimizer.averaged_gradients[0]
    held = {"state": bytes_of(state), "gradients": bytes_of(grads)}
    (folder / f"{name}-held-{processes.rank}.json").write_text(json.dumps(held))


def refuse(processes, folder):
    """What is said of a loss that is no number, and of clips that reach other weights."""
    course = motion_module(processes, total=2)
    before = {name: value.detach().clone() for name, value in course.trained.items()}
    clips = list(course.examples)
    course.examples[:] = [dataclasses.replace(clip, mean=clip.mean * float("nan")) for clip in clips]
    words = [said_by(course.step)]
    same = all(torch.equal(value, course.trained[name]) for name, value in before.items())
    course.examples[:] = clips
    course.step()
    loss = course.losses_of
    parameter = next(iter(course.trained.values()))
    course.losses_of = lambda examples: loss(examples).detach() + parameter.sum()
    words.append(said_by(course.step))
    (folder / f"refuse-{processes.rank}.json").write_text(json.dumps({"words": words, "same": same}))


def said_by(call):
    try:
        call()
    except (ValueError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(folder):
    torch.set_num_threads(1)
    # on a CPU DeepSpeed would compile one that training does not use
    deepspeed.ops.__compatible_ops__ = {}
    # as `accelerate launch` tells it; one process alone does not look
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    for make, steps in ((gloo.lora, BATCH), (svd_lora, PAIRS), (motion_module, BATCH), (lion, BATCH)):
        for count in (1, 2):
            gloo.together(count, finish, folder, f"{make.__name__}-{count}", make, keep=2, **steps)
    for count in (1, 2):
        resume = folder / f"svd_lora-{3 - count}-at-2"
        gloo.together(count, finish, folder, f"svd_lora-resumed-{count}", svd_lora, resume=resume, **PAIRS)
    gloo.together(2, refuse, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
