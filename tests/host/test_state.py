"""No run leaves anything behind: A, then B, then A again, bit for bit, through the real queue.

A second A would be answered from the host's cache and test nothing: an input that the sampler does not
know, changed each time, makes it run while the loader stays cached with whatever B did to its objects.
"""

import itertools
import json
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.tests import tiny
from kinetograph.tests.host.graphs import node, text_to_video

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
    """The MODEL itself, harmed."""

    def run(self, model, way):
        network = model.model.diffusion_model
        if way == "options":
            model.model_options["sampler_cfg_function"] = lambda args: args["cond"] * 0.9
        elif way == "forward":
            before = network.norm_final.forward
            network.norm_final.forward = lambda x: before(x) * 1.01
        else:
            with torch.inference_mode():
                network.proj_out.weight.data = network.proj_out.weight.data * 1.01
        return (model,)


NODE_CLASS_MAPPINGS = {"ProbeFail": Fail, "ProbeLeak": Leak}
'''


@pytest.fixture(scope="module")
def client(host, base, tmp_path_factory):
    """A server of its own with the test nodes beside the pack."""
    import sys
    from pathlib import Path

    from kinetograph.tools.server import PACK, Server

    own = tmp_path_factory.mktemp("state")
    (own / "custom_nodes" / "probe").mkdir(parents=True)
    (own / "custom_nodes" / "probe" / "__init__.py").write_text(PROBE)
    (own / "models").mkdir()
    (own / "models" / "CogVideo").symlink_to(base / "models" / "CogVideo", target_is_directory=True)
    loras = own / "models" / "loras"
    loras.mkdir()
    write_lora(
        tiny.weights_of(base / "models" / "CogVideo" / "tiny-5B" / "transformer"), loras / "all.safetensors"
    )
    with Server(
        Path(sys.executable), host, own, arguments=["--whitelist-custom-nodes", PACK, "probe"]
    ) as server:
        yield server.client
        assert server.is_running(), server.tail()


def write_lora(weights, path):
    """A LoRA for every layer of a checkpoint."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for key, weight in load_file(weights).items():
        if weight.ndim >= 2 and key.endswith(".weight"):
            name = "diffusion_model." + key.removesuffix(".weight")
            down, up = (2, *weight.shape[1:]), (weight.shape[0], 2, *[1] * (weight.ndim - 2))
            tensors[f"{name}.lora_down.weight"] = torch.randn(down, generator=generator) * 0.1
            tensors[f"{name}.lora_up.weight"] = torch.randn(up, generator=generator) * 0.1
    save_file(tensors, path)


def sampling(through=None, steps=3, loaded=0, kind="KinetographVideoSampler", **changes):
    """Loader to latent file. `through` stands between MODEL and sampler; `loaded` tells loaders apart."""
    graph = text_to_video("5B", steps=steps, **changes)
    graph["loader"]["inputs"]["nonce"] = loaded
    inputs = graph["sampler"]["inputs"]
    if kind == "KSampler":
        kept = ("model", "positive", "negative", "seed", "steps", "scheduler", "denoise", "sampler_name")
        inputs = {name: inputs[name] for name in kept} | {"latent_image": ["latent", 0], "cfg": 6.0}
        graph["sampler"] = node(kind, **inputs)
        inputs = graph["sampler"]["inputs"]
    inputs["nonce"] = next(NONCES)
    if through:
        graph["through"] = {**through, "inputs": {**through["inputs"], "model": ["loader", 0]}}
        graph["through"]["inputs"]["nonce"] = next(NONCES)
        inputs["model"] = ["through", 0]
    graph["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="state")
    return graph


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
    from safetensors.torch import load

    return load(content)["latent_tensor"]


def same(first, second):
    return torch.equal(tensors_of(first), tensors_of(second))


LORA = node("LoraLoaderModelOnly", lora_name="all.safetensors", strength_model=1.0)
OTHERS = {
    "LoRA": {"through": LORA},
    "KSampler": {"kind": "KSampler"},
    "another size": {"frames": 17, "size": 96},
    "guidance by frame": {"guidance": "per-frame linear", "guidance.min_cfg": 1.0, "guidance.max_cfg": 3.0},
    "our sampler": {"sampler_name": "cogvideox_dpm", "preview": True},
}


def prompt_of(changes):
    graph = sampling(**changes)
    if "guidance" in changes:
        del graph["sampler"]["inputs"]["guidance.cfg"]
    return graph


@pytest.fixture(scope="module")
def first(client):
    """A: what every later A must give again."""
    return latents(client, sampling(), loader_cached=False)


@pytest.mark.parametrize("name", OTHERS)
def test_after_success(client, first, name):
    other = latents(client, prompt_of(OTHERS[name]), loader_cached=True)
    assert name == "KSampler" or not same(other, first)
    assert same(latents(client, sampling(), loader_cached=True), first)


@pytest.mark.parametrize("way", ["error", "memory"])
@pytest.mark.parametrize("sampler", ["KinetographVideoSampler", "KSampler"])
def test_after_failure_at_the_second_step(client, first, way, sampler):
    result = client.run(sampling(node("ProbeFail", way=way), kind=sampler))
    assert result.status == "error" and "planned" in result.message
    assert result.error["node_id"] == "sampler"
    assert same(latents(client, sampling()), first)


@pytest.mark.parametrize("through", [None, LORA], ids=["plain", "LoRA"])
def test_after_interrupt(client, first, through):
    asked = []

    def stop(event, data):
        if event == "progress" and not asked:
            asked.append(event)
            threading.Thread(target=client.interrupt).start()

    assert client.run(sampling(through, steps=1000), stop).status == "interrupted"
    assert same(latents(client, sampling()), first)


def test_after_the_models_were_unloaded(client, first):
    """The Unload button: weights leave, the cache goes, the loader runs again."""
    status, _ = client.post("/free", json.dumps({"unload_models": True, "free_memory": True}).encode())
    assert status == 200
    wait_until_free(client)
    assert same(latents(client, sampling()), first)
    client.post("/free", json.dumps({"unload_models": True}).encode())
    wait_until_free(client)
    assert same(latents(client, sampling()), first)


def wait_until_free(client):
    """The queue's thread acts on the request between prompts."""
    import time

    time.sleep(1.5)


@pytest.mark.parametrize("way", ["options", "forward", "weight"])
def test_planted_leaks_are_seen(client, first, way):
    """Canaries: were this suite blind to a trace, it would pass here."""
    private = next(NONCES)
    assert same(latents(client, sampling(loaded=private), loader_cached=False), first)
    assert not same(latents(client, sampling(node("ProbeLeak", way=way), loaded=private)), first)
    assert not same(latents(client, sampling(loaded=private), loader_cached=True), first)
