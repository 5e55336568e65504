"""torch.compile on our MODEL, the way ComfyUI's TorchCompileModel node applies it."""

import pytest
import torch

from kinetograph.tests.host.workbench import SVDWorkbench, relative

pytestmark = pytest.mark.newest


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


def pytorch_attention(kernel, *arguments, **options):
    """Instead of the host's kernel for a CPU, which breaks the graph."""
    from comfy.ldm.modules.attention import attention_pytorch

    return attention_pytorch(*arguments, **options)


def test_a_compiled_model_gives_the_same_and_comes_apart_again(bench):
    """Traced by dynamo and run as it was traced; what inductor makes of it is a matter of minutes."""
    helpers = pytest.importorskip("comfy_api.torch_helpers")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = bench.svd()[0]
    latent = bench.empty()
    plain = bench.sampler(model, latent)
    compiled = model.clone()
    options = compiled.model_options.setdefault("transformer_options", {})
    options["optimized_attention_override"] = pytorch_attention
    helpers.set_torch_compile_wrapper(model=compiled, backend="eager", options=None)
    assert relative(bench.sampler(compiled, latent), plain) <= 1e-4
    assert (
        torch._dynamo.utils.counters["stats"]["calls_captured"] > 500
    )  # the network was traced, not skipped
    assert torch.equal(bench.sampler(model, latent), plain)
