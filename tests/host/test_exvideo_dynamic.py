"""ExVideo Patch under dynamic VRAM, whose copies of small weights the host keeps by name; simulated on a CPU.

A card does the same with its memory behind it: `python -m benchmarks.gpu --steps "pictures dynamic"` looks there.
"""

import pytest

from kinetograph.tests import tiny_svd
from kinetograph.tests.host.workbench import SVDWorkbench, relative, run

SIZE = 128


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    file = base / "models" / "SVD" / "tiny-exvideo.safetensors"
    if not file.exists():
        tiny_svd.write_exvideo(file)
    return SVDWorkbench()


@pytest.fixture
def dynamic(bench, monkeypatch):
    """MODELs come with the host's patcher for dynamic VRAM, which it uses on cards alone."""
    host_buffer = pytest.importorskip("comfy_aimdo.host_buffer")
    import comfy.model_patcher

    kind = comfy.model_patcher.ModelPatcherDynamic
    if not hasattr(kind, "restore_loaded_backups"):
        pytest.skip("this host copies no weight by name")

    class OnCPU(kind):
        def __new__(cls, *arguments, **options):
            return object.__new__(cls)

        def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False):
            return self.restore_loaded_backups()

    class NoBuffer:
        size = 0

        def __init__(self, *sizes):
            pass

    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", OnCPU)
    monkeypatch.setattr(host_buffer, "HostBuffer", NoBuffer)


def patched(bench, model):
    return run(bench.ours["ExVideoPatch"], model=model, exvideo="SVD/tiny-exvideo.safetensors")[0]


def load(bench):
    bench._loaded.clear()
    return bench.svd()[0]


@pytest.fixture
def expected(bench):
    """{name: samples} without dynamic VRAM."""
    model, latent = load(bench), bench.empty(size=SIZE)
    return {
        "plain": bench.sampler(model, latent, steps=1),
        "patched": bench.sampler(patched(bench, model), latent, steps=1),
    }


@pytest.mark.parametrize(
    "order", ["plain patched plain patched", "patched plain patched unload plain patched"]
)
def test_every_layer_keeps_its_own_weights(bench, expected, dynamic, order):
    from comfy.model_management import unload_all_models

    model, latent = load(bench), bench.empty(size=SIZE)
    models = {"plain": model, "patched": patched(bench, model)}
    assert model.is_dynamic()
    for name in order.split():
        if name == "unload":
            unload_all_models()
            continue
        assert relative(bench.sampler(models[name], latent, steps=1), expected[name]) <= 1e-4, name
    bench._loaded.clear()
