"""ExVideo's layers come and go without a trace, with a LoRA on top, after failures and after Cancel.

Through the real queue: one loader stays cached for all runs, so whatever a patched run left behind on its MODEL
would show in the next one. The method is that of `state.py`.
"""

import threading

import pytest

from kinetograph.tests import tiny_svd
from kinetograph.tests.host.graphs import node
from kinetograph.tests.host.state import NONCES, latents, probed_server, same, write_lora

FRAMES, SIZE = 4, 128
OWN = "from the checkpoint"
PATCH = ("KinetographExVideoPatch", {"exvideo": "SVD/tiny-exvideo.safetensors"})
LORA = ("LoraLoaderModelOnly", {"lora_name": "all.safetensors", "strength_model": 1.0})


@pytest.fixture(scope="module")
def client(host, tmp_path_factory):
    """A server with tiny SVD, ExVideo, and a LoRA for every layer of the UNet, those ExVideo replaces included."""
    own = tmp_path_factory.mktemp("exvideo")
    models = own / "models"
    tiny_svd.write_file(models / "SVD" / "tiny-svd.safetensors")
    tiny_svd.write_exvideo(models / "SVD" / "tiny-exvideo.safetensors")
    (models / "loras").mkdir()
    weights = tiny_svd.renamed(tiny_svd.unet(), tiny_svd.keys.DIFFUSERS)
    write_lora(weights, models / "loras" / "all.safetensors")
    (own / "input").mkdir()
    write_picture(own / "input" / "picture.png")
    with probed_server(host, own, ("input_blocks.1.1.norm", "out.2")) as client:
        yield client


def write_picture(path):
    import numpy as np
    from PIL import Image

    dice = np.random.default_rng(0)
    Image.fromarray(dice.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((SIZE, SIZE)).save(path)


def sampling(*through, steps=2, kind="KinetographVideoSampler", loaded=0):
    """Loader to latent file; the nodes of `through` stand between MODEL and sampler, in order."""
    graph = {
        "loader": node(
            "KinetographSVDLoader",
            model="SVD/tiny-svd.safetensors",
            image_encoder=OWN,
            vae=OWN,
            weight_dtype="fp32",
            nonce=loaded,
        ),
        "picture": node("LoadImage", image="picture.png"),
        "latent": node(
            "KinetographVideoLatent", family="svd", width=SIZE, height=SIZE, num_frames=FRAMES, batch_size=1
        ),
        "conditioning": node(
            "KinetographSVDConditioning",
            clip_vision=["loader", 1],
            vae=["loader", 2],
            image=["picture", 0],
            latent=["latent", 0],
            fps=7,
            motion_bucket_id=127,
            noise_aug_strength=0.0,
            seed=0,
            fit="exact",
        ),
    }
    last = "loader"
    for number, (name, inputs) in enumerate(through):
        graph[f"through{number}"] = node(name, model=[last, 0], nonce=next(NONCES), **inputs)
        last = f"through{number}"
    graph["sampler"] = node(kind, model=[last, 0], nonce=next(NONCES), **sampler_inputs(kind, steps))
    graph["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="exvideo")
    return graph


def sampler_inputs(kind, steps):
    shared = {
        "positive": ["conditioning", 0],
        "negative": ["conditioning", 1],
        "seed": 1,
        "steps": steps,
        "sampler_name": "euler",
        "denoise": 1.0,
    }
    if kind == "KSampler":
        return {**shared, "latent_image": ["latent", 0], "cfg": 2.0, "scheduler": "karras"}
    ours = {"guidance": "per-frame linear", "guidance.min_cfg": 1.0, "guidance.max_cfg": 2.0}
    return {**shared, **ours, "latent": ["latent", 0], "scheduler": "edm", "preview": False}


def run(client, *through, cached=True, **changes):
    return latents(client, sampling(*through, **changes), loader_cached=cached)


@pytest.fixture(scope="module")
def plain(client):
    return run(client, cached=False)


@pytest.fixture(scope="module")
def patched(client, plain):
    result = run(client, PATCH)
    assert not same(result, plain)
    return result


def test_patch_and_no_patch_in_turn(client, plain, patched):
    assert same(run(client), plain)
    assert same(run(client, PATCH), patched)
    assert same(run(client), plain)


def test_a_lora_on_top_reaches_the_new_layers_and_leaves(client, plain, patched):
    both = run(client, PATCH, LORA)
    assert not same(both, patched)
    assert same(run(client, LORA, PATCH), both)  # the order of the nodes does not matter
    assert same(run(client, PATCH), patched)
    lora = run(client, LORA)
    assert not same(lora, plain) and not same(lora, both)
    assert same(run(client), plain)
    assert same(run(client, PATCH, LORA), both)


@pytest.mark.newest
def test_the_hosts_sampler_between(client, plain, patched):
    other = run(client, PATCH, kind="KSampler")
    assert not same(other, patched)
    assert same(run(client, PATCH), patched)
    assert same(run(client), plain)


@pytest.mark.newest
@pytest.mark.parametrize("way", ["error", "memory"])
@pytest.mark.parametrize("through", [(PATCH,), (PATCH, LORA)], ids=["patch", "patch and LoRA"])
def test_after_failure_at_the_second_step(client, plain, patched, way, through):
    result = client.run(sampling(*through, ("ProbeFail", {"way": way}), steps=3))
    assert result.status == "error" and "planned" in result.message
    assert result.error["node_id"] == "sampler"
    assert same(run(client), plain)
    assert same(run(client, PATCH), patched)


@pytest.mark.parametrize("through", [(PATCH,), (PATCH, LORA)], ids=["patch", "patch and LoRA"])
def test_after_interrupt(client, plain, patched, through):
    asked = []

    def stop(event, data):
        if event == "progress" and not asked:
            asked.append(event)
            threading.Thread(target=client.interrupt).start()

    assert client.run(sampling(*through, steps=1000), stop).status == "interrupted"
    assert same(run(client), plain)
    assert same(run(client, PATCH), patched)


@pytest.mark.newest
@pytest.mark.parametrize("way", ["options", "forward", "weight"])
def test_planted_leaks_are_seen_through_the_patch(client, plain, patched, way):
    """Canaries: a trace that a patched run leaves on the MODEL must show in the plain run after it."""
    private = next(NONCES)
    assert same(run(client, PATCH, loaded=private, cached=False), patched)
    leaked = run(client, PATCH, ("ProbeLeak", {"way": way}), loaded=private)
    assert not same(leaked, patched)
    after = [run(client, loaded=private), run(client, PATCH, loaded=private)]
    if way == "options":  # the patch hands out a clone: what is set on it stays on it
        assert same(after[0], plain) and same(after[1], patched)
    else:
        assert not same(after[0], plain) and not same(after[1], patched)
