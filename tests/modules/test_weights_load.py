"""Strict loading: every key or an error, and the tensors of the file become the parameters."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import open_weights
from kinetograph.modules.weights.load import load_into, read_part, storage_dtype
from kinetograph.tests.checkpoints import BY_NAME


def tiny_shapes():
    """5B-I2V's keys at a sixteenth of its width, two blocks."""
    shapes = {}
    for key, shape in BY_NAME["cogvideox-5b-i2v"].shapes.items():
        block = key.split(".")[1] if key.startswith("transformer_blocks.") else "0"
        if int(block) < 2 if block.isdigit() else True:
            shapes[key] = tuple(
                {3072: 192, 12288: 768, 18432: 1152, 6144: 384, 4096: 32, 512: 16, 17776: 106}.get(n, n)
                for n in shape
            )
    return shapes


@pytest.fixture
def checkpoint(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(shape, generator=generator) for key, shape in tiny_shapes().items()}
    path = tmp_path / "tiny.safetensors"
    save_file(tensors, path, metadata={"config": json.dumps({"max_text_seq_length": 16, "sample_width": 8})})
    return path, tensors


def build(finding):
    return finding.part.empty(finding.config)


def test_a_checkpoint_becomes_a_model_without_a_copy(checkpoint):
    path, tensors = checkpoint
    finding, mapped = read_part(path, FAMILIES, "diffusion_model")
    assert (finding.variant, finding.config.max_text_tokens) == ("5B-I2V", 16)
    model = load_into(build(finding), mapped, finding.name)
    state = model.state_dict()
    assert set(state) == set(tensors)
    for key, tensor in tensors.items():
        assert torch.equal(state[key], tensor)
        assert state[key].data_ptr() == mapped[key].data_ptr(), "assigned, not copied"
    assert not any(buffer.is_meta for buffer in model.buffers())


def test_keys_in_the_hosts_naming_and_half_precision(checkpoint, tmp_path):
    _, tensors = checkpoint
    native = FAMILIES[0].parts["diffusion_model"].dialects["comfy"].reverse()
    path = tmp_path / "native.safetensors"
    renamed = {"model.diffusion_model." + native.find(key)[1]: value.half() for key, value in tensors.items()}
    save_file(renamed, path)
    finding, mapped = read_part(path, FAMILIES)
    assert (finding.dialect, finding.dtype) == ("comfy", "float16")
    model = load_into(build(finding), mapped)
    assert all(torch.equal(model.state_dict()[key], value.half()) for key, value in tensors.items())


def test_fp8_file_loads_in_its_own_dtypes(checkpoint, tmp_path):
    _, tensors = checkpoint
    path = tmp_path / "fp8.safetensors"
    save_file(
        {
            key: value.to(torch.float8_e4m3fn if value.ndim == 2 and "blocks" in key else torch.bfloat16)
            for key, value in tensors.items()
        },
        path,
    )
    finding, mapped = read_part(path, FAMILIES)
    assert finding.dialect == "diffusers-fp8"
    model = load_into(build(finding), mapped)
    assert model.state_dict()["transformer_blocks.1.attn1.to_q.weight"].dtype == torch.float8_e4m3fn
    assert model.state_dict()["patch_embed.proj.weight"].dtype == torch.bfloat16


def test_a_truncated_model_is_refused_when_read(checkpoint, tmp_path):
    _, tensors = checkpoint
    path = tmp_path / "lacks.safetensors"
    save_file({key: value for key, value in tensors.items() if "blocks.0.ff" not in key}, path)
    with pytest.raises(CheckpointError, match=r"lacks\.safetensors looks like CogVideoX 5B-I2V.* 4 missing"):
        read_part(path, FAMILIES)


def test_load_into_names_count_keys_and_module():
    layer = nn.Linear(2, 3, device="meta")
    cases = {
        "1 missing (bias)": {"weight": torch.zeros(3, 2)},
        "1 unexpected (gamma)": {
            "weight": torch.zeros(3, 2),
            "bias": torch.zeros(3),
            "gamma": torch.zeros(1),
        },
        "1 misshapen (bias: (2,) for (3,))": {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)},
    }
    for fault, tensors in cases.items():
        with pytest.raises(CheckpointError) as caught:
            load_into(layer, tensors, "file.safetensors")
        assert fault in str(caught.value)
        assert "file.safetensors does not fit Linear" in str(caught.value)
        assert layer.weight.is_meta, "nothing was assigned"


def test_a_module_with_a_tensor_no_checkpoint_holds_is_refused():
    layer = nn.Linear(2, 3, device="meta")
    layer.register_buffer("table", torch.zeros(4, device="meta"), persistent=False)
    with pytest.raises(ValueError, match="table"):
        load_into(layer, {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)})


@pytest.mark.parametrize(
    "name", [name for name in BY_NAME if name.startswith("cogvideox") and "comfy" not in name]
)
def test_no_model_keeps_tensors_beside_its_state(name):
    from kinetograph.modules.weights.detect import detect
    from kinetograph.tests.checkpoints import header

    finding = detect(header(BY_NAME[name].shapes), FAMILIES)
    module = build(finding)
    everything = {key for key, _ in (*module.named_parameters(), *module.named_buffers())}
    assert everything == set(module.state_dict())


def test_weights_open_without_pickle(checkpoint):
    path, tensors = checkpoint
    assert set(open_weights(path)) == set(tensors)


@pytest.mark.parametrize(
    "key, shape, stored",
    [
        ("transformer_blocks.1.attn1.to_q.weight", (8, 8), torch.float8_e4m3fn),
        ("transformer_blocks.1.scale_shift_table", (6, 8), torch.float32),
        ("transformer_blocks.1.attn1.to_q.bias", (8,), torch.float32),
        ("proj_out.weight", (8, 8), torch.float32),
    ],
)
def test_eight_bits_hold_matrices_of_blocks_alone(key, shape, stored):
    assert storage_dtype(key, torch.zeros(shape), torch.float8_e4m3fn) == stored
    assert storage_dtype(key, torch.zeros(shape), torch.bfloat16) == torch.bfloat16
