"""The host's EasyCache and LazyCache on our MODELs: steps are really saved, in KSampler and in Video Sampler alike."""

import pytest

from kinetograph.tests.host.workbench import SVDWorkbench, Workbench, per_frame, relative, run

BOUND = 1e-5
STEPS = 5
SETTINGS = {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
SEQUENTIAL = {"long_clip": "on", "sequential_cfg": True, "equalise_frames": False, "contrast_scale": 1.0}
SVD = {"scheduler": "karras", "cfg": 2.5, "denoise": 0.5}


# a layer that a pass goes through once
TIME = {"HostedSVDUNet": "time_embed.0", "HostedCogVideoXTransformer": "time_embedding.linear_1"}


@pytest.fixture(scope="module")
def benches(comfy_here):
    return {"cogvideox": Workbench(), "svd": SVDWorkbench()}


class Counted:
    """A MODEL's network counted: how often it computed, not how often it was asked."""

    def __init__(self, model):
        self.count = 0
        network = model.model.diffusion_model
        self.hook = network.get_submodule(TIME[type(network).__name__]).register_forward_hook(self)

    def __call__(self, *_):
        self.count += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hook.remove()


@pytest.mark.parametrize("family", ["cogvideox", "svd"])
@pytest.mark.parametrize("name", ["EasyCacheNode", "LazyCacheNode"])
def test_steps_are_saved_and_the_clip_is_the_same_in_both_samplers(benches, family, name):
    from comfy_extras import nodes_easycache

    bench = benches[family]
    model, latent, more = (
        (bench.shared()[0], bench.clip(), {})
        if family == "cogvideox"
        else (bench.svd()[0], bench.empty(), SVD)
    )
    cached = run(getattr(nodes_easycache, name), model=model, **SETTINGS)[0]
    told = {**more, "steps": STEPS}
    plain = bench.ksampler(model, latent, **told)
    with Counted(model) as network:
        theirs = bench.ksampler(cached, latent, **told)
        saved = STEPS - network.count
    assert 0 < saved < STEPS and relative(theirs, plain) > 1e-3
    assert relative(bench.sampler(cached, latent, **told), theirs) <= BOUND
    with Counted(model) as network:
        alone = bench.sampler(cached, latent, **told, long_clip=SEQUENTIAL)
    assert network.count == 2 * (STEPS - saved) and relative(alone, theirs) <= 1e-4
    with Counted(model) as network:
        bench.sampler(cached, latent, **told, guidance=per_frame(1.0, 3.0))
    assert network.count == STEPS - saved
