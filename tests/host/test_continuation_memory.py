"""What Video Continue holds does not grow with the video, and what names a segment is the same in every process."""

import asyncio
import subprocess
import sys

import pytest
import torch

from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.tests import tiny
from kinetograph.tools.commands import ROOT

pytestmark = pytest.mark.newest
SEGMENTS = (4, 16)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def loaded(comfy_here):
    """(MODEL, VAE, prompt) of a tiny image-to-video checkpoint."""
    import nodes as host

    import kinetograph
    from kinetograph.nodes.pipeline import loading

    async def register():
        await (await kinetograph.comfy_entrypoint()).on_load()

    asyncio.run(register())

    name, own = "CogVideo/tiny-5B-I2V", loading.FROM_MODEL
    model, clip, vae = loading.load_cogvideox(name, own, own, "auto")
    return model, vae, host.CLIPTextEncode().encode(clip, "a red circle")[0]


def a_run(loaded, folder, segments, seed=1, prompt=None):
    """A Run of Video Continue over a tiny model, one step a segment."""
    from kinetograph.modules.videofile.segments import SegmentStore
    from kinetograph.nodes.pipeline import continuation, inpainting, latents, long_video

    model, vae, text = loaded
    size = (tiny.WIDTH, tiny.HEIGHT, tiny.FRAMES)
    plan = {"plan": "open end", "segments": segments, "overlap": 0, "hold_colours": 1.0, "seeds": ""}
    sampling = {
        "sampling": "constant",
        "cfg": 1.0,
        "steps": 1,
        "seed": seed,
        "sampler_name": "euler",
        "scheduler": "simple",
    }
    video = long_video.Video(
        model=model,
        vae=vae,
        latent=latents.empty_clips("cogvideox", size, 1, None, "test"),
        prompts=(text if prompt is None else prompt,),
        negative=text,
        given=inpainting.Given(
            torch.rand(1, tiny.HEIGHT, tiny.WIDTH, 3, generator=torch.Generator().manual_seed(0))
        ),
        clip_vision=None,
        plan={**plan, "keep_segments": "keep all"},
        sampling=sampling,
        clip_file=long_video.clip_file_of({"file": "image/gif", "frame_rate": 8.0, "filename_prefix": "x"}),
    )
    return continuation.Run(video, SegmentStore(folder))


def test_sixteen_segments_take_no_more_memory_than_four(loaded, tmp_path):
    """Counted storage by storage: 1.01 of the tensors alive at once."""
    made = {}

    def consume(count):
        made[count] = sum(len(piece) for piece in a_run(loaded, tmp_path / str(count), count).frames())

    consume(2)
    peaks = {count: peak_live_bytes(lambda count=count: consume(count)) for count in SEGMENTS}
    assert made[16] == 1 + 16 * (tiny.FRAMES - 1) and peaks[4] > 0
    assert peaks[16] <= 1.01 * peaks[4]


def test_what_makes_a_segment_is_in_its_name(loaded, tmp_path):
    """One more of each: a weight patch, a seed, a prompt; and the same again is the same."""
    from kinetograph.nodes.host import digests

    def key(run):
        return run._key(0, run.video.given)

    model, vae, text = loaded
    names = [key(a_run(loaded, tmp_path, 2)) for _ in range(2)]
    names.append(key(a_run(loaded, tmp_path, 2, seed=2)))
    other = [[text[0][0] + 1e-6, text[0][1]]]
    names.append(key(a_run(loaded, tmp_path, 2, prompt=other)))
    patched = model.clone()
    patched.add_patches({"diffusion_model.proj_out.bias": (torch.ones(64),)}, 0.5)
    names.append(key(a_run((patched, vae, text), tmp_path, 2)))
    assert names[0] == names[1] and len(set(names)) == 4
    guided = model.clone()
    guided.set_model_sampler_cfg_function(lambda args: args["cond"])
    assert digests.digest_model(guided) != digests.digest_model(model)


def test_a_name_is_the_same_in_another_process():
    """Neither addresses nor a seed of hashes are in it."""
    script = (
        "import runpy, sys, torch; runpy.run_path('tools/pack.py')['register']();"
        "sys.argv = ['x'];"
        "sys.path.append(sys.path[0]);"
        "import importlib.util as u;"
        "s = u.spec_from_file_location('d', 'nodes/host/digests.py'); d = u.module_from_spec(s); s.loader.exec_module(d);"
        "f = lambda a, k={'x', 'y', 'z'}: a;"
        "print(d.digest({'b': [1, 2.5, None], 'a': {'q', 'r'}}, torch.arange(4), f, d.digest))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1 and len(told.pop().strip()) == 64
