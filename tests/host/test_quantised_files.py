"""Files that the host quantised layer by layer: its own networks read them, our loaders refuse them by name.

Written as the host saves them, and each is read by the host first: it is not the file that is at fault.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.tests import tiny
from kinetograph.tests.host import patch_bench
from kinetograph.tests.host.workbench import OWN, SVD, SVDWorkbench, relative, run

REFUSAL = r"layers are quantised \({}\), .* published in fp32, bf16, fp16 or fp8 without scales"
# not to_k, off whose shape the host reads how wide a context is
LAYERS = (".to_q.weight", ".to_out.0.weight", "SelfAttention.q.weight", "DenseReluDense.wo.weight")
# how it is called, its entry in the host's QUANT_ALGOS, how far off its rounding puts the host's own result
FORMATS = {
    "int8": ("int8_tensorwise", 0.1),
    "4 bits, such as nvfp4": ("nvfp4", 0.7),
    "fp8 with scales": ("float8_e4m3fn", 0.3),
}


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


@pytest.fixture(scope="module")
def plain(bench, base):
    """The SVD that is quantised, as the host's MODEL, and its file."""
    path = patch_bench.svd_file(base / "models" / "checkpoints")
    return patch_bench.hosts_svd(path), path


def quantised(tensors, algorithm):
    """The same weights, every attention layer as the host saves it in a format; None for a host without it."""
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    if algorithm not in QUANT_ALGOS:
        return None
    marker = torch.tensor(list(json.dumps({"format": algorithm}).encode()), dtype=torch.uint8)
    written = {}
    for key, weight in tensors.items():
        if weight.ndim == 2 and key.endswith(LAYERS):
            layout = QUANT_ALGOS[algorithm]["comfy_tensor_layout"]
            written |= QuantizedTensor.from_float(weight, layout, scale="recalculate").state_dict(key)
            written[key.replace("weight", "comfy_quant")] = marker.clone()
        else:
            written[key] = weight
    return written


def newer_fp8(tensors):
    return quantised(tensors, "float8_e4m3fn")


def older_fp8(tensors):
    """As files were written before: scales under other names, and one marker for the whole."""
    written = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for key, weight in tensors.items():
        if key.endswith(LAYERS):
            scale = weight.abs().max() / 448
            written[key] = (weight / scale).to(torch.float8_e4m3fn)
            written[key.replace(".weight", ".scale_weight")] = scale.float()
        else:
            written[key] = weight
    return written


def refusal(bench, loader, said, **choice):
    """What the post of a prompt says to a choice of files; the run says the same."""
    refused = bench.ours[loader].validate_inputs(**choice)
    with pytest.raises(ValueError, match=REFUSAL.format(said)) as raised:
        run(bench.ours[loader], **choice, weight_dtype="fp32")
    assert str(raised.value) == refused
    return refused


@pytest.mark.parametrize("said", FORMATS)
def test_the_host_reads_a_quantised_svd_and_our_loader_refuses_it(bench, plain, said):
    (algorithm, rounding), (model, path) = FORMATS[said], plain
    tensors = quantised(load_file(path), algorithm)
    if tensors is None:
        return  # this host cannot have written one
    file = path.with_name("tiny-quantised.safetensors")
    save_file(tensors, file)
    with torch.inference_mode():  # as nodes run; the host cannot use what it loaded otherwise
        theirs = patch_bench.hosts_svd(file)
    clip = patch_bench.svd_clip(bench, frames=2, size=64)
    told = {"positive": clip.prompts[0], "negative": clip.prompts[1], "cfg": 2.5}
    sampled = bench.ksampler(theirs, clip.latent, **told)
    assert 1e-4 < relative(sampled, bench.ksampler(model, clip.latent, **told)) < rounding
    # a way to sample it all the same: the host's MODEL in our sampler
    assert torch.equal(bench.sampler(theirs, clip.latent, **told), sampled)
    refusal(bench, "SVDLoader", said, model=file.name, image_encoder=SVD, vae=SVD)
    with pytest.raises(ValueError, match="ExVideo Patch is for SVD models: .* quantised"):
        own_model(theirs)


def own_model(model):
    from kinetograph.modules.families import FAMILIES
    from kinetograph.nodes.pipeline import adoption

    (svd,) = (family for family in FAMILIES if family.id == "svd")
    return adoption.own_model(model, "ExVideo Patch", svd)


@pytest.mark.parametrize("said", FORMATS)
def test_a_quantised_cogvideox_is_refused(bench, base, said):
    folder = base / "models" / "CogVideo" / "tiny-5B"
    tensors = quantised(load_file(tiny.weights_of(folder / "transformer")), FORMATS[said][0])
    if tensors is not None:
        file = base / "models" / "diffusion_models" / "tiny-quantised.safetensors"
        file.parent.mkdir(exist_ok=True)
        save_file(tensors, file)
        choice = {
            "model": "tiny-quantised.safetensors",
            "text_encoder": "CogVideo/tiny-5B",
            "vae": "CogVideo/tiny-5B",
        }
        refusal(bench, "CogVideoXLoader", said, **choice)


@pytest.mark.parametrize("write", [older_fp8, newer_fp8], ids=["scaled_fp8", "comfy_quant"])
def test_a_text_encoder_in_fp8_with_scales_is_the_hosts_own_and_works(bench, base, write):
    folder = base / "models" / "CogVideo" / "tiny-5B" / "text_encoder"
    file = base / "models" / "text_encoders" / "tiny-fp8.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(write(load_file(tiny.weights_of(folder))), file)
    choice = {"model": "CogVideo/tiny-5B", "text_encoder": file.name, "vae": OWN}
    assert bench.ours["CogVideoXLoader"].validate_inputs(**choice) is True
    clip = run(bench.ours["CogVideoXLoader"], **choice, weight_dtype="fp32")[1]
    prompts = [
        run(bench.host.CLIPTextEncode, clip=one, text="a red circle")[0][0][0]
        for one in (clip, bench.shared()[1])
    ]
    assert 1e-3 < relative(*prompts) < 0.2
