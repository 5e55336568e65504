"""How to see that a run left nothing behind: A, then B, then A again, through the real queue.

A second A would be answered from the host's cache and test nothing: an input that the sampler does not
know, changed each time, makes it run while the loader stays cached with whatever B did to its objects.
"""

import itertools
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load, save_file

from kinetograph.tools.server import PACK, Server

NONCES = itertools.count()
PROBE = '''
"""Test nodes: a run that fails at its second step, and three ways to leave a trace on purpose."""

import torch


class Fail:
    """A copy of a MODEL whose second step raises."""

    CATEGORY = "testing"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "way": ("STRING", {"default": "error"})}}

    def run(self, model, way):
        from comfy.model_management import OOM_EXCEPTION

        model, calls = model.clone(), []

        def second(args):
            calls.append(1)
            if len(calls) == 2:
                raise OOM_EXCEPTION("planned") if way == "memory" else RuntimeError("planned")
            return args["denoised"]

        model.set_model_sampler_post_cfg_function(second)
        return (model,)


class Leak(Fail):
    """The MODEL itself, harmed: its options, a layer's forward, or a layer's weight."""

    def run(self, model, way):
        layers = dict(model.model.diffusion_model.named_modules())
        norm, last = (layers[name] for name in LAYERS)
        if way == "options":
            model.model_options["sampler_cfg_function"] = lambda args: args["cond"] * 0.9
        elif way == "forward":
            before = norm.forward
            norm.forward = lambda x: before(x) * 1.01
        else:
            with torch.inference_mode():
                last.weight.data = last.weight.data * 1.01
        return (model,)


NODE_CLASS_MAPPINGS = {"ProbeFail": Fail, "ProbeLeak": Leak}
'''


@contextmanager
def probed_server(host, own, layers):
    """A server on the base directory `own` with the test nodes beside the pack; yields its client.

    `layers` are the two layers of the network that the planted leaks harm.
    """
    (own / "custom_nodes" / "probe").mkdir(parents=True)
    text = PROBE + f"LAYERS = {layers!r}\n"
    (own / "custom_nodes" / "probe" / "__init__.py").write_text(text)
    with Server(
        Path(sys.executable), host, own, arguments=["--whitelist-custom-nodes", PACK, "probe"]
    ) as server:
        yield server.client
        assert server.is_running(), server.tail()


def write_lora(tensors_by_key, path):
    """A LoRA for every layer of a checkpoint."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for key, weight in tensors_by_key.items():
        if weight.ndim >= 2 and key.endswith(".weight"):
            name = "diffusion_model." + key.removesuffix(".weight")
            down, up = (2, *weight.shape[1:]), (weight.shape[0], 2, *[1] * (weight.ndim - 2))
            tensors[f"{name}.lora_down.weight"] = torch.randn(down, generator=generator) * 0.1
            tensors[f"{name}.lora_up.weight"] = torch.randn(up, generator=generator) * 0.1
    save_file(tensors, path)


def latents(client, graph, loader_cached=None):
    """The sampled latents; fails when the sampler did not run."""
    result = client.run(graph)
    assert result.status == "success", result.message
    assert "sampler" not in result.cached
    if loader_cached is not None:
        assert ("loader" in result.cached) is loader_cached
    (file,) = result.files()
    return client.view(file)


def tensors_of(content):
    return load(content)["latent_tensor"]


def same(first, second):
    return torch.equal(tensors_of(first), tensors_of(second))


def wait_until_free(client):
    """The queue's thread acts on the request between prompts."""
    time.sleep(1.5)


def in_turn_with_a_cancel(client, graph_of, shape):
    """With motion, without, cancelled in the middle, without, with: the same latents each time.

    `graph_of` makes a graph that saves latents of this shape; it takes `motion` and `steps`.
    """
    first, plain = latents(client, graph_of()), latents(client, graph_of(motion=False))
    assert tensors_of(first).shape == shape and not same(first, plain)
    asked = []

    def stop(event, data):
        if event == "progress" and not asked:
            asked.append(event)
            threading.Thread(target=client.interrupt).start()

    assert client.run(graph_of(steps=1000), stop).status == "interrupted"
    assert same(latents(client, graph_of(motion=False)), plain)
    assert same(latents(client, graph_of()), first)
