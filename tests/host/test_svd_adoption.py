"""The host's own SVD MODEL in our nodes: the same tensors, its LoRAs, and what cannot be taken over."""

import copy

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.families.svd import keys
from kinetograph.tests import tiny, tiny_svd
from kinetograph.tests.host.workbench import SVDWorkbench, per_frame, relative, run

# Guidance multiplies the rounding of the host's network, 1e-5 a pass against its own float64; 8e-6 is reached.
TOLERANCE = 3e-5
CHANNELS = 64  # the host reads the heads off the width: 64 channels each
SIZES = {
    "block_out_channels": (CHANNELS, CHANNELS, 2 * CHANNELS, 2 * CHANNELS),
    "num_attention_heads": (1, 1, 2, 2),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
}


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


@pytest.fixture(scope="module")
def file(base):
    """A UNet file in the original layout, of heads and numbers that the host knows."""
    from diffusers import UNetSpatioTemporalConditionModel

    model = tiny_svd.randomise(UNetSpatioTemporalConditionModel(**{**tiny_svd.UNET, **SIZES}), 0)
    tensors = tiny_svd.renamed(model, keys.DIFFUSERS)
    path = base / "models" / "checkpoints" / "tiny-stock-svd.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({f"model.diffusion_model.{key}": value.clone() for key, value in tensors.items()}, path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def hosts(bench, file):
    """The MODEL as the host's checkpoint loaders make it, told that SVD may be this narrow."""
    import comfy.sd
    import comfy.supported_models

    narrow = {"model_channels": CHANNELS, "context_dim": tiny_svd.CONTEXT}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in narrow.items():
            patch.setitem(comfy.supported_models.SVD_img2vid.unet_config, name, value)
        loaded = comfy.sd.load_checkpoint_guess_config(
            str(file), output_vae=False, output_clip=False, model_options={"dtype": torch.float32}
        )
    assert type(loaded[0].model).__name__ == "SVD_img2vid"
    return loaded[0]


def adopt(model):
    from kinetograph.modules.families import SVD
    from kinetograph.nodes.pipeline.adoption import own_model

    return own_model(model, "ExVideo Patch", SVD)


@pytest.fixture(scope="module")
def told(bench):
    positive, negative = bench.condition(bench.empty())
    return {"positive": positive, "negative": negative, "cfg": 2.5}


def traces(model):
    """What a node could have left on a MODEL."""
    options = {name: sorted(map(str, value)) for name, value in model.model_options.items()}
    return len(model.patches), sorted(model.object_patches), dict(model.wrappers), options, model.patches_uuid


def test_the_hosts_model_samples_as_with_the_hosts_sampler(bench, hosts, told):
    before = traces(hosts), {key: value.clone() for key, value in hosts.model.state_dict().items()}
    theirs = bench.ksampler(hosts, bench.empty(), **told)
    ours = bench.sampler(hosts, bench.empty(), **told)
    assert relative(ours, theirs) <= TOLERANCE and theirs.std() > 0.01
    edm = bench.sampler(hosts, bench.empty(), **{**told, "scheduler": "edm"})
    assert relative(edm, theirs) <= TOLERANCE
    ramped = bench.sampler(hosts, bench.empty(), guidance=per_frame(1.0, 3.0), **told)
    assert relative(ramped, theirs) > 1e-3
    assert traces(hosts) == before[0]
    for key, value in hosts.model.state_dict().items():
        assert torch.equal(value, before[1][key]), key


def test_our_model_is_the_same_tensors(hosts):
    ours, theirs = adopt(hosts).model.diffusion_model, hosts.model.diffusion_model
    places = {key: value.data_ptr() for key, value in theirs.state_dict().items()}
    assert {key: value.data_ptr() for key, value in ours.state_dict().items()} == places
    assert type(ours).__name__ == "HostedSVDUNet"


def test_our_network_is_the_hosts_in_float64(hosts):
    """One pass at a high and at a low level: 1e-6 is reached, where the host's float32 itself is 1e-5 off."""
    exact = copy.deepcopy(hosts.model.diffusion_model).double()
    exact.dtype = torch.float64
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for level in (1.64, -1.55):
            x = torch.randn((3, 8, 8, 8), generator=generator)
            token, y = (
                torch.randn((3, 1, 32), generator=generator),
                torch.randn((3, 768), generator=generator),
            )
            given = x, torch.full((3,), level), token[:1].repeat(3, 1, 1), y[:1].repeat(3, 1)
            x64, t64, token64, y64 = (tensor.double() for tensor in given)
            options = {"num_video_frames": 3, "transformer_options": {}}
            theirs = exact(x64, t64, context=token64, y=y64, **options)
            ours = adopt(hosts).model.diffusion_model(*given[:3], y=given[3], **options)
            assert relative(ours, theirs) <= 5e-6


def test_our_own_model_is_left_as_it_is(bench):
    model = bench.svd()[0]
    assert adopt(model) is model


def test_its_native_size_is_asked_for(bench, hosts):
    asked = {"family": "svd", "width": 0, "height": 0, "num_frames": 0, "batch_size": 1, "model": hosts}
    latent = run(bench.ours["VideoLatent"], **asked)[0]
    assert latent["samples"].shape == (25, 4, 72, 128) and latent["num_frames"] == 25


def lora(model, strength=1.0):
    """The MODEL with the host's own LoRA loader applied, on a spatial and a temporal layer."""
    import comfy.sd

    generator = torch.Generator().manual_seed(9)
    state = {}
    for place in ("transformer_blocks", "time_stack"):
        key = f"diffusion_model.input_blocks.1.1.{place}.0.attn1.to_v"
        state[f"{key}.lora_A.weight"] = torch.randn(4, CHANNELS, generator=generator)
        state[f"{key}.lora_B.weight"] = torch.randn(CHANNELS, 4, generator=generator) / 8
    return comfy.sd.load_lora_for_models(model, None, state, strength, 0)[0]


def test_its_loras_come_along(bench, hosts, told):
    plain = bench.sampler(hosts, bench.empty(), **told)
    patched = lora(hosts)
    assert len(patched.patches) == 2
    ours = bench.sampler(patched, bench.empty(), **told)
    theirs = bench.ksampler(patched, bench.empty(), **told)
    assert relative(ours, theirs) <= TOLERANCE and relative(ours, plain) > 1e-3
    again = bench.sampler(patched, bench.empty(), **told)  # now the host has its LoRA in the weights
    assert torch.equal(again, ours)
    assert torch.equal(bench.sampler(hosts, bench.empty(), **told), plain)


def test_patches_of_its_options_come_along(bench, hosts, told):
    from comfy_extras.nodes_video_model import VideoLinearCFGGuidance

    (linear,) = run(VideoLinearCFGGuidance, model=hosts, min_cfg=1.0)
    ours = bench.sampler(linear, bench.empty(), **told)
    assert relative(ours, bench.ksampler(linear, bench.empty(), **told)) <= TOLERANCE
    assert relative(ours, bench.sampler(hosts, bench.empty(), **told)) > 1e-3


def image_model():
    """A tiny SD1.5 of the host."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(
        {
            **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "legacy": False},
            **{"num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1], "num_heads": 2},
            **{"transformer_depth_output": [1] * 4, "transformer_depth_middle": 1, "context_dim": 16},
            **{"use_spatial_transformer": True, "use_linear_in_transformer": False, "adm_in_channels": None},
            **{"use_temporal_attention": False, "use_temporal_resblock": False},
        }
    )
    config.unet_config["dtype"] = torch.float32
    model = config.get_model({}, device="cpu")
    tiny.randomise(model.diffusion_model, 5)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def test_an_image_model_is_refused(bench, told):
    with pytest.raises(ValueError, match="ExVideo Patch is for SVD models: got BaseModel.* SVD Loader"):
        adopt(image_model())


def test_a_model_that_another_node_has_rebuilt_is_refused(bench, hosts, told):
    rebuilt = hosts.clone()
    rebuilt.add_object_patch("diffusion_model.out", torch.nn.Identity())
    with pytest.raises(
        ValueError, match=r"SVD_img2vid that another node has rebuilt \(diffusion_model.out\).*SVD L"
    ):
        adopt(rebuilt)
    from comfy.patcher_extension import WrappersMP

    wrapped = hosts.clone()
    wrapped.add_wrapper_with_key(
        WrappersMP.DIFFUSION_MODEL, "someone", lambda executor, *args: executor(*args)
    )
    with pytest.raises(ValueError, match="rebuilt: load the checkpoint with SVD Loader instead"):
        adopt(wrapped)
