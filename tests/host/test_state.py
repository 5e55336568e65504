"""No run leaves anything behind: A, then B, then A again, bit for bit, through the real queue.

A second A would be answered from the host's cache and test nothing: an input that the sampler does not
know, changed each time, makes it run while the loader stays cached with whatever B did to its objects.
"""

import json
import threading

import pytest
from safetensors.torch import load_file

from kinetograph.tests import tiny
from kinetograph.tests.host.graphs import node, text_to_video
from kinetograph.tests.host.state import NONCES, latents, probed_server, same, wait_until_free, write_lora


@pytest.fixture(scope="module")
def client(host, base, tmp_path_factory):
    """A server of its own with the test nodes beside the pack."""
    own = tmp_path_factory.mktemp("state")
    loras = own / "models" / "loras"
    loras.mkdir(parents=True)
    (own / "models" / "CogVideo").symlink_to(base / "models" / "CogVideo", target_is_directory=True)
    weights = load_file(tiny.weights_of(base / "models" / "CogVideo" / "tiny-5B" / "transformer"))
    write_lora(weights, loras / "all.safetensors")
    with probed_server(host, own, ("norm_final", "proj_out")) as client:
        yield client


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


@pytest.mark.parametrize("way", ["options", "forward", "weight"])
def test_planted_leaks_are_seen(client, first, way):
    """Canaries: were this suite blind to a trace, it would pass here."""
    private = next(NONCES)
    assert same(latents(client, sampling(loaded=private), loader_cached=False), first)
    assert not same(latents(client, sampling(node("ProbeLeak", way=way), loaded=private)), first)
    assert not same(latents(client, sampling(loaded=private), loader_cached=True), first)
