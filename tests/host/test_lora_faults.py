"""LoRA files that are damaged, misshapen or of another family, and MODELs of the host: never a silent success."""

import random

import pytest
import torch
from safetensors.torch import save

from kinetograph.tests import tiny, tiny_svd
from kinetograph.tests.host import lora_files, wide_svd
from kinetograph.tests.host.lora_files import DIALECTS, SVD, SVD_DIALECTS
from kinetograph.tests.host.test_lora_dialects import bench, folder, model_of, output, stacked
from kinetograph.tests.host.workbench import relative

__all__ = ["bench", "folder"]

FUZZ = 240
LETTERS = "abcdefghijklmnopqrstuvwxyzAB0123456789_."


@pytest.fixture(scope="module")
def good(bench, folder):
    """(the MODEL, a file's tensors, what they make of the MODEL)."""
    made = lora_files.changes(lora_files.reference("5B"), alphas=True)
    tensors = lora_files.tensors_of(made, DIALECTS["Fun"])
    name = lora_files.write(folder, "good.safetensors", tensors)
    model = model_of(bench, "5B")
    return model, tensors, output(stacked(bench, model, (name, 1.0))[0])


def rename(dice, tensors):
    key = dice.choice(list(tensors))
    place = dice.randrange(len(key))
    new = key[:place] + dice.choice(LETTERS) + key[place + 1 :]
    assert new == key or new not in tensors
    tensors[new] = tensors.pop(key)


def misshape(dice, tensors):
    key = dice.choice(list(tensors))
    value = tensors[key]
    tensors[key] = dice.choice(
        [
            lambda: value[:-1] if value.ndim else value.repeat(2),
            lambda: torch.cat([value, value], -1) if value.ndim else value.new_zeros(0),
            lambda: value.flatten() if value.ndim else value.repeat(3, 1),
            lambda: value.transpose(0, 1) if value.ndim > 1 else value.repeat(2, 2),
            lambda: value[None].repeat(*[1] * value.ndim, 2) if value.ndim else value.repeat(4),
            lambda: value[..., None].repeat(*[1] * value.ndim, 2),
        ]
    )()


def spoil(dice, tensors):
    key = dice.choice(list(tensors))
    value = tensors[key].clone()
    value.view(-1)[dice.randrange(value.numel())] = dice.choice([float("nan"), float("inf"), -float("inf")])
    tensors[key] = value


def retype(dice, tensors):
    key = dice.choice(list(tensors))
    tensors[key] = tensors[key].to(dice.choice([torch.int8, torch.bool, torch.uint8]))


def separate(dice, tensors):
    key = dice.choice([key for key in tensors if not key.endswith("alpha")])
    del tensors[key]


def add_strange(dice, tensors):
    key = dice.choice([key for key in tensors if key.endswith("alpha")]).removesuffix("alpha")
    word = dice.choice(["dora_scale", "lora_mid.weight", "hada_w1_a", "lokr_w1", "lora_B.bias", "something"])
    tensors[key + word] = torch.ones(2)


def double(dice, tensors):
    key = dice.choice([key for key in tensors if "lora_down" in key])
    tensors["transformer." + key.removeprefix("lora_unet__")] = tensors[key].clone()


DAMAGES = (rename, misshape, spoil, retype, separate, add_strange, double)


def written(dice, tensors, folder):
    """A file of damaged tensors; or of good ones whose bytes are cut, or changed in the header."""
    damage = dice.choice((*DAMAGES, "cut", "header"))
    tensors = dict(tensors)
    if callable(damage):
        damage(dice, tensors)
    content = bytearray(save({key: value.contiguous() for key, value in tensors.items()}))
    if damage == "cut":
        content = content[: dice.randrange(len(content))]
    elif damage == "header":
        content[dice.randrange(8 + int.from_bytes(content[:8], "little"))] = dice.randrange(256)
    (folder / "fuzz.safetensors").write_bytes(content)
    return damage


@pytest.mark.newest
def test_a_damaged_file_is_an_error_or_does_what_the_good_one_does(bench, good, folder):
    model, tensors, right = good
    plain = output(model)
    dice, errors, silent = random.Random(7), 0, []
    for number in range(FUZZ):
        damage = written(dice, tensors, folder)
        try:
            patched, _, report = stacked(bench, model, ("fuzz.safetensors", 1.0))
        except ValueError as error:
            errors += 1
            assert "fuzz.safetensors" in str(error)
        else:
            if not torch.equal(output(patched), right):
                silent.append((number, damage, report))
    assert silent == [] and errors > 0.85 * FUZZ
    assert torch.equal(output(model), plain)


@pytest.mark.newest
def test_a_partial_one_says_what_it_left_out(bench, good, folder):
    """Allowed, and still never silent: the report names what did not fit, and numbers that are none stay an error."""
    model, tensors, right = good
    dice, partial = random.Random(8), 0
    for _ in range(80):
        written(dice, tensors, folder)
        try:
            patched, _, report = stacked(bench, model, ("fuzz.safetensors", 1.0), allow_partial=True)
        except ValueError as error:
            assert "fuzz.safetensors" in str(error)
        else:
            partial += "left out" in report
            assert "left out" in report or torch.equal(output(patched), right)
    assert partial > 20


FOREIGN = {  # key -> shape of a pair's two halves, and what the error calls it
    "SD1.5": {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (768, 320)},
    "SDXL": {"lora_te2_text_model_encoder_layers_0_mlp_fc1": (1280, 5120)},
    "Wan": {"diffusion_model.blocks.0.cross_attn.k": (1536, 1536)},
    "Flux": {"transformer.double_blocks.0.img_attn.qkv": (3072, 9216)},
    "HunyuanVideo": {"transformer.double_blocks.0.img_attn_qkv": (3072, 9216)},
    "AnimateDiff": {"unet.down_blocks.0.motion_modules.0.temporal_transformer.proj_in": (320, 320)},
    "PixArt 512 or 1024-MS": {"lora_unet__transformer_blocks_0_attn1_to_q": (1152, 1152)},
    "SVD": {"unet.down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q": (320, 320)},
    "CogVideoX 2B": {"transformer.transformer_blocks.0.attn1.to_q": (1920, 1920)},
}


@pytest.mark.parametrize("label", FOREIGN)
def test_a_lora_of_another_family_is_called_by_its_name(bench, folder, label):
    tensors = {}
    for module, (into, out) in FOREIGN[label].items():
        tensors |= {
            f"{module}.lora_A.weight": torch.ones(4, into),
            f"{module}.lora_B.weight": torch.ones(out, 4),
        }
    name = lora_files.write(folder, "foreign.safetensors", tensors)
    for allow_partial in (False, True):
        with pytest.raises(ValueError, match=f"foreign.* changes nothing in this model.* made for {label}"):
            stacked(bench, model_of(bench, "5B"), (name, 1.0), allow_partial=allow_partial)


@pytest.mark.parametrize("notes", ["no json", "[]", '{"lora_alpha": "many"}', '{"lora_alpha": NaN}'])
def test_alphas_that_cannot_be_read(bench, folder, good, notes):
    tensors = lora_files.tensors_of(lora_files.changes(lora_files.reference("5B")), DIALECTS["PEFT"])
    name = lora_files.write(folder, "noted.safetensors", tensors, {"lora_adapter_metadata": notes})
    with pytest.raises(ValueError, match=r"noted\.safetensors .*metadata"):
        stacked(bench, good[0], (name, 1.0))


class TestExVideoPatch:
    """What it refuses of LoRA files and of MODELs."""

    def patched(self, bench, model, name):
        kind = bench.ours["ExVideoPatch"]
        kind.GET_SCHEMA()
        if (said := kind.validate_inputs(name)) is not True:
            raise ValueError(said)
        return kind.execute(model=model, exvideo=name).args[0]

    @pytest.mark.parametrize("variant", ["2B", "5B-I2V", "1.5-5B"])
    def test_other_networks(self, bench, folder, variant):
        name = lora_files.write_exvideo(folder, family=variant)
        with pytest.raises(ValueError, match=f"is ExVideo for CogVideoX 5B, .* CogVideoX {variant}"):
            self.patched(bench, model_of(bench, variant), name)

    def test_svd_and_the_lora(self, bench, folder):
        name = lora_files.write_exvideo(folder)
        with pytest.raises(ValueError, match="is a LoRA, as ExVideo has for CogVideoX 5B: got SVD"):
            self.patched(bench, model_of(bench, SVD), name)

    def test_cogvideox_and_layers_for_svd(self, bench, folder):
        import folder_paths

        tiny_svd.write_exvideo(folder.parent / "SVD" / "tiny-exvideo.safetensors")
        assert folder.parent.samefile(folder_paths.models_dir)
        with pytest.raises(ValueError, match="is for SVD models: got CogVideoX 5B"):
            self.patched(bench, model_of(bench, "5B"), "SVD/tiny-exvideo.safetensors")

    def test_a_lora_of_a_part_and_one_of_another_family(self, bench, folder, good):
        made = lora_files.changes(lora_files.reference("5B"))
        made = {name: change for name, change in made.items() if "norm2" not in name}
        name = lora_files.write(folder, "some.safetensors", lora_files.tensors_of(made, DIALECTS["PEFT"]))
        with pytest.raises(
            ValueError, match="changes 16 modules of this model, this file lacks 2 .*LoRA Stack"
        ):
            self.patched(bench, good[0], name)
        made = lora_files.changes(lora_files.reference(SVD))
        name = lora_files.write(folder, "svd.safetensors", lora_files.tensors_of(made, SVD_DIALECTS["kohya"]))
        with pytest.raises(ValueError, match="is a LoRA for SVD of another size"):
            self.patched(bench, good[0], name)


TEMPORAL = {  # SVD's layers in diffusers and in the original
    "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q": "input_blocks.1.1.time_stack.0.attn1.to_q",
    "mid_block.attentions.0.temporal_transformer_blocks.0.ff_in.net.2": "middle_block.1.time_stack.0.ff_in.net.2",
}


class TestModelsOfTheHost:
    """By our names where the network is of a family known here, else by the host's own."""

    def test_its_svd(self, bench, folder):
        """Files in diffusers' names, which the host's own loader does not know for SVD's temporal layers."""
        _, model = wide_svd.load_both(bench, folder.parent / "SVD")
        weights = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
        tensors = {}
        for theirs, ours in TEMPORAL.items():
            weight = weights[f"{ours}.weight"]
            down, up = torch.randn(2, weight.shape[1]), torch.randn(len(weight), 2)
            tensors |= {f"unet.{theirs}.lora_A.weight": down, f"unet.{theirs}.lora_B.weight": up}
            weights[f"{ours}.weight"] = weight + lora_files.STRENGTH * (up @ down)
        name = lora_files.write(folder, "svd.safetensors", tensors)
        patched, _, report = stacked(bench, model, (name, lora_files.STRENGTH))
        assert "2 modules" in report
        check_weights(patched, weights)

    @pytest.mark.newest
    def test_its_cogvideox(self, bench, folder):
        import comfy.sd

        made = lora_files.changes(tiny.transformer("1.5-5B", attention_head_dim=64))
        state = tiny.transformer("1.5-5B", attention_head_dim=64).state_dict()
        model = comfy.sd.load_diffusion_model_state_dict(
            {lora_files.to_comfy(key): value for key, value in state.items()}
        )
        name = lora_files.write(folder, "cog.safetensors", lora_files.tensors_of(made, DIALECTS["PEFT"]))
        patched, _, report = stacked(bench, model, (name, lora_files.STRENGTH))
        assert f"{len(made)} modules" in report
        merged = lora_files.merged(tiny.transformer("1.5-5B", attention_head_dim=64), made).state_dict()
        check_weights(patched, {lora_files.to_comfy(key): value for key, value in merged.items()})

    def test_an_image_model(self, bench, folder):
        """The host's names decide; what does not fit is an error as elsewhere."""
        model, tensors, merged = image_model()
        name = lora_files.write(folder, "image.safetensors", tensors)
        patched, _, report = stacked(bench, model, (name, lora_files.STRENGTH))
        assert "2 weights of BaseModel" in report
        check_weights(patched, merged)
        key = next(key for key in tensors if "lora_up" in key)
        for change in (
            {key: tensors[key][:-1]},
            {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.ones(())},
        ):
            name = lora_files.write(folder, "bad.safetensors", {**tensors, **change})
            with pytest.raises(ValueError, match=r"bad\.safetensors fits this model only in part"):
                stacked(bench, model, (name, 1.0))
        foreign = {f"lora_unet__{i}.lora_down.weight": torch.ones(2, 2) for i in range(3)}
        name = lora_files.write(folder, "bad.safetensors", foreign)
        with pytest.raises(ValueError, match=r"bad\.safetensors changes nothing"):
            stacked(bench, model, (name, 1.0))


def image_model():
    """(SD1.5 of the host at a small size, a kohya LoRA for it, its weights with the LoRA)."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(
        {
            **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_heads": 8},
            **{
                "num_res_blocks": [1, 1],
                "channel_mult": [1, 2],
                "transformer_depth": [1, 1],
                "context_dim": 64,
            },
            **{
                "transformer_depth_output": [1] * 4,
                "transformer_depth_middle": 1,
                "use_spatial_transformer": True,
            },
            **{"num_heads": 8, "num_head_channels": -1, "legacy": False, "use_linear_in_transformer": False},
            **{"adm_in_channels": None, "use_temporal_attention": False},
        }
    )
    config.unet_config["dtype"] = torch.float32
    cpu = torch.device("cpu")
    model = comfy.model_patcher.ModelPatcher(
        config.get_model({}, "", cpu), load_device=cpu, offload_device=cpu
    )
    tiny.randomise(model.model.diffusion_model, 5)
    places = {
        "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
        "down_blocks_0_resnets_0_conv1": "input_blocks.1.0.in_layers.2",
    }
    weights = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
    tensors, generator = {}, torch.Generator().manual_seed(1)
    for theirs, ours in places.items():
        weight = weights[f"{ours}.weight"]
        down = torch.randn(2, *weight.shape[1:], generator=generator)
        up = torch.randn(len(weight), 2, *[1] * (weight.ndim - 2), generator=generator)
        stem = f"lora_unet_{theirs}"
        tensors |= {
            f"{stem}.lora_down.weight": down,
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": torch.tensor(1.0),
        }
        change = (up.flatten(1) @ down.flatten(1)).view(weight.shape)
        weights[f"{ours}.weight"] = weight + lora_files.STRENGTH / 2 * change
    return model, tensors, weights


def check_weights(patched, expected):
    """The weights of a MODEL of the host, patched as it patches them."""
    with torch.inference_mode():
        patched.patch_model(torch.device("cpu"))
        found = {key: value.clone() for key, value in patched.model.diffusion_model.state_dict().items()}
        patched.unpatch_model(torch.device("cpu"))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert relative(found[key], value) <= 1e-6
    plain = patched.model.diffusion_model.state_dict()
    assert sum(not torch.equal(plain[key], value) for key, value in expected.items()) >= 2
