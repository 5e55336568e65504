"""What a training writes: names against lists of the published files, numbers against the formula of each dialect.

Files are read back by the pack's own readers, and merged by hand. Merge vectors are those of the specification, sec. 10.
"""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kinetograph.modules.families import ANIMATEDIFF, COGVIDEOX, EASYANIMATE, FAMILIES, PIXART, SVD
from kinetograph.modules.families.animatediff.adapter import find_adapter
from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.training.files import Notes, Outcome, contents, host_lora, num_bytes, storing, write
from kinetograph.modules.training.parts import lora_modules, whole_names
from kinetograph.modules.training.recipe import Data, Files, PartChoice, Recipe
from kinetograph.modules.weights.files import read_header
from kinetograph.modules.weights.load import read_part
from kinetograph.modules.weights.lora import match_lora, with_alphas
from kinetograph.modules.weights.lora_names import names_of
from kinetograph.tests import motion_files, tiny_pixart
from kinetograph.tests import motion_loras as loras
from kinetograph.tests.checkpoints import BY_NAME, KEYS, read_key_list

RECIPE = Recipe(
    "my style", Files("base.safetensors"), PartChoice("lora"), Data("clips", width=256, height=192)
)
NOTES = Notes(RECIPE, 120, "0123abcd", 20, "bf16", "a base", {"latent_scale": 0.18215})
TINY_SVD = SVDConfig(
    channels=(32, 64, 64, 64), head_dim=16, context_dim=32, adm_dim=48, num_frames=6, width=128, height=128
)
TINY_COG = CogVideoXConfig(
    num_layers=2,
    num_heads=2,
    head_dim=16,
    time_embed_dim=8,
    text_dim=16,
    sample_width=8,
    sample_height=8,
    sample_frames=17,
)
SIZE = (320, 256, 24)


def drawn(shapes, seed=0):
    """Random weights for shapes, none zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator) * max(1, math.prod(shape[1:])) ** -0.5
        for key, shape in shapes.items()
    }


def halves(layers, rank, seed=1):
    """A training's tensors for layers {name: (out, in)}."""
    shapes = {}
    for layer, (out, into) in layers.items():
        shapes |= {f"{layer}.lora_down": (rank, into), f"{layer}.lora_up": (out, rank)}
    return drawn(shapes, seed)


def change(trained, layer, alpha):
    """What a layer's weight changes by: alpha / rank * up @ down."""
    down, up = (trained[f"{layer}.{half}"].double() for half in ("lora_down", "lora_up"))
    return alpha / len(down) * up @ down


def layers_of(network, choice):
    modules = dict(network.named_modules())
    return {name: tuple(modules[name].weight.shape) for name in lora_modules(choice, modules)}


@cache
def host_layers(more=()):
    """{layer of the host's UNet of SD1.5: (out, in)}."""
    return {f"unet.{loras.to_host(name)}": shape for name, shape in loras.of_unet(more=more).items()}


def unet_state(layers):
    """Names of a UNet around these layers: its downsamplers tell how many blocks a level has."""
    samplers = [f"unet.input_blocks.{number}.0.op.weight" for number in (3, 6, 9)]
    return dict.fromkeys([*(f"{layer}.weight" for layer in layers), *samplers], torch.zeros(1))


def meta(shapes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes_of(tensors):
    return {key: tuple(value.shape) for key, value in tensors.items()}


def published(family, kind, number=0):
    (part,) = [one.parts[kind] for one in FAMILIES if one.id == family.id]
    return part, part.published[number]


class TestPublishedNames:
    """Keys and shapes of files of the published sizes."""

    @pytest.mark.parametrize(
        "name, version", [("v2", "v2"), ("v1", "v1"), ("v3", "v3"), ("sdxl-beta", "SDXL beta")]
    )
    def test_animatediff(self, name, version):
        shapes = ANIMATEDIFF.parts["motion_module"].shapes(motion_files.PUBLISHED[version])
        state = meta(
            {f"motion.{key}": shape for key, shape in shapes.items()} | {"unet.out.2.weight": (4, 320)}
        )
        trained = {key: state[key] for key in whole_names("motion_module", state)}
        tensors, _ = contents(Outcome("animatediff", PartChoice("motion_module"), trained, state))
        assert shapes_of(tensors) == BY_NAME[f"animatediff-{name}"].shapes

    def test_easyanimate(self):
        part, config = published(EASYANIMATE, "motion_module")
        pixart, base = published(PIXART, "diffusion_model")
        state = meta({**pixart.shapes(base), **part.shapes(config)})
        outcome = Outcome("pixart", PartChoice("motion_module"), {}, state, config, SIZE)
        tensors, facts = contents(outcome)
        assert shapes_of(tensors) == BY_NAME["easyanimate-v1-mm"].shapes
        assert json.loads(facts["config"]) == {"block_size": 2, "width": 320, "height": 256, "num_frames": 24}
        # README of the tag v1: 4.1 GB, in GiB of float32
        assert num_bytes(outcome, torch.float32) / 2**30 == pytest.approx(4.1, abs=0.1)

    def test_exvideo(self):
        part, config = SVD.parts["extension"], SVDConfig()
        state = meta({**SVD.parts["diffusion_model"].shapes(config), **part.shapes(config)})
        tensors, facts = contents(Outcome("svd", PartChoice("exvideo"), {}, state, config, (512, 512, 128)))
        assert shapes_of(tensors) == BY_NAME["svd-exvideo"].shapes
        assert json.loads(facts["config"]) == {"head_dim": 64, "width": 512, "height": 512, "num_frames": 128}

    @pytest.mark.parametrize(
        "family, number, listed",
        [(COGVIDEOX, 0, "cogvideox-2b"), (PIXART, 0, "easyanimate-portrait"), (SVD, 0, "svd-xt")],
    )
    def test_whole_networks(self, family, number, listed):
        part, config = published(family, "diffusion_model", number)
        state = meta(part.shapes(config))
        tensors, _ = contents(Outcome(family.id, PartChoice("whole"), {}, state, config))
        wanted = BY_NAME[listed].shapes
        own = {
            key: shape for key, shape in wanted.items() if not key.startswith(("first_stage", "conditioner"))
        }
        assert shapes_of(tensors) == own

    def test_easyanimates_lora(self):
        """But for the second underscore of its own files, which ComfyUI's loader does not know."""
        part, config = published(PIXART, "diffusion_model")
        choice = PartChoice("lora", 128, 64.0, "all")
        trained = meta(shapes_of_halves(layers_of(part.empty(config), choice), 128))
        tensors, _ = contents(Outcome("pixart", choice, trained, meta(part.shapes(config)), config))
        listed = read_key_list(KEYS / "loras" / "easyanimate-portrait.txt").shapes
        wanted = {
            key.replace("unet__", "unet_"): shape for key, shape in listed.items() if "lora_te" not in key
        }
        assert shapes_of(tensors) == wanted

    def test_svds_peft_file_has_diffusers_names(self):
        part, config = published(SVD, "diffusion_model")
        choice = PartChoice("lora", 4, 4.0, dialect="PEFT")
        trained = meta(shapes_of_halves(layers_of(part.empty(config), choice), 4))
        tensors, facts = contents(Outcome("svd", choice, trained, {}, config))
        modules = {key.rsplit(".lora_", 1)[0].removeprefix("unet.") for key in tensors}
        wanted = {
            key.removesuffix(".weight") for key in BY_NAME["svd-diffusers-unet"].shapes if ".to_" in key
        }
        assert modules == {name for name in wanted if not name.endswith(".bias")}
        assert json.loads(facts["lora_adapter_metadata"])["unet.target_modules"] == sorted(modules)

    @pytest.mark.parametrize("layers, spelling", [("attention", "AnimateDiff"), ("all", "MotionDirector")])
    def test_loras_of_motion(self, layers, spelling):
        config = motion_files.PUBLISHED["v2"]
        network = ANIMATEDIFF.parts["motion_module"].empty(config)
        choice = PartChoice("motion_lora", layers=layers)
        found = {f"motion.{name}": shape for name, shape in layers_of(network, choice).items()}
        tensors, facts = contents(Outcome("animatediff", choice, meta(shapes_of_halves(found, 64)), {}))
        assert shapes_of(tensors) == loras.shapes_of(loras.of_motion(config, layers == "all"), 64, spelling)
        assert facts == ({} if layers == "attention" else {"model_type": "motion_director", "rank": "64"})

    def test_the_domain_adapter_is_known_as_one(self):
        found = host_layers()
        choice = PartChoice("domain_adapter", 128)
        outcome = Outcome("animatediff", choice, meta(shapes_of_halves(found, 128)), unet_state(found))
        shapes = shapes_of(contents(outcome)[0])
        assert shapes == loras.shapes_of(loras.of_unet(), 128)
        assert find_adapter(shapes) is not None

    def test_sd15_has_diffusers_names(self):
        found = host_layers(loras.FORWARD)
        choice = PartChoice("lora", 8, 8.0, "all")
        outcome = Outcome("animatediff", choice, meta(shapes_of_halves(found, 8)), unet_state(found))
        modules = {key.rsplit(".lora_down", 1)[0] for key in contents(outcome)[0] if "lora_down" in key}
        assert modules == {loras.flat(name) for name in loras.of_unet(more=loras.FORWARD)}
        with pytest.raises(ValueError, match="ComfyUI reads no PEFT file for SD1.5 and SDXL"):
            contents(replace(outcome, part=replace(choice, dialect="PEFT")))


def shapes_of_halves(layers, rank):
    shapes = {}
    for layer, (out, into) in layers.items():
        shapes |= {f"{layer}.lora_down": (rank, into), f"{layer}.lora_up": (out, rank)}
    return shapes


def read_back(path, part, config):
    """{layer: what its weight changes by} of a LoRA file, by the pack's own reader."""
    header = read_header(path)
    names = names_of(part, part.shapes(config))
    lora = match_lora(header.shapes, names, place="")
    assert lora.unmatched == ()
    ready = with_alphas(path.name, load_file(path), lora, header.metadata)
    changes = {}
    for layer in lora.modules:
        down, up = (ready[f"{layer}.lora_{half}.weight"].double() for half in "AB")
        scale = float(ready[f"{layer}.alpha"]) / len(down) if f"{layer}.alpha" in ready else 1.0
        changes[layer] = scale * up @ down
    return changes


NETWORKS = {
    "CogVideoX": (COGVIDEOX, TINY_COG, "all"),
    "PixArt": (PIXART, tiny_pixart.CONFIG, "all"),
    "SVD": (SVD, TINY_SVD, "attention"),
    "SVD over time": (SVD, TINY_SVD, "temporal"),
}


@pytest.mark.parametrize("dialect", ["kohya", "PEFT"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_lora_is_read_back_as_it_was_trained(name, dialect, tmp_path):
    """Alpha is not the rank: read without it, every change would be another."""
    family, config, layers = NETWORKS[name]
    part = family.parts["diffusion_model"]
    choice = PartChoice("lora", 3, 2.0, layers, dialect)
    found = layers_of(part.empty(config), choice)
    trained = halves(found, 3)
    outcome = Outcome(family.id, choice, trained, meta(part.shapes(config)), config)
    path = write(tmp_path / "a.safetensors", outcome, NOTES, torch.float32)
    changes = read_back(path, part, config)
    assert changes.keys() == found.keys()
    for layer in found:
        wanted = change(trained, layer, 2.0)
        torch.testing.assert_close(changes[layer], wanted, rtol=1e-6, atol=1e-7)
        assert (1.5 * wanted - wanted).norm() > 0.1 * wanted.norm()


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_a_motion_lora_needs_no_alpha(layers, tmp_path):
    part, config = ANIMATEDIFF.parts["motion_module"], motion_files.SMALL["v2"]
    choice = PartChoice("motion_lora", 3, 2.0, layers)
    found = layers_of(part.empty(config), choice)
    trained = halves({f"motion.{layer}": shape for layer, shape in found.items()}, 3)
    path = write(
        tmp_path / "a.safetensors", Outcome("animatediff", choice, trained, {}), NOTES, torch.float32
    )
    assert not any("alpha" in key for key in read_header(path).shapes)
    changes = read_back(path, part, config)
    assert changes.keys() == found.keys()
    for layer in found:
        torch.testing.assert_close(
            changes[layer], change(trained, f"motion.{layer}", 2.0), rtol=1e-6, atol=1e-7
        )


def sequence(shape, seed):
    count = math.prod(shape)
    values = [math.sin(0.37 * j + seed) + 0.1 * math.cos(1.1 * j * seed) for j in range(count)]
    return torch.tensor(values, dtype=torch.float64).view(shape)


# (part, alpha, how a reader puts it on) -> sum, [0, 0], [5, 4] of the merged weight
VECTORS = {
    ("kohya", 1.5, 0.55): (0.041163578, 0.862121302, -0.634983514),
    ("kohya", 3.0, 1.0): (0.585002140, 0.652926685, -0.585626637),
    ("PEFT", 2.0, 1.0): (0.334961421, 0.749108118, -0.608319454),
    ("motion", 3.0, 0.8): (0.434977709, 0.710635545, -0.599242327),
    ("motion", 3.0, 1.0): (0.585002140, 0.652926685, -0.585626637),
    ("motion", 2.0, 1.0): (0.334961421, 0.749108118, -0.608319454),
}


@pytest.mark.parametrize("row", VECTORS, ids=str)
def test_merge_vectors(row):
    dialect, alpha, strength = row
    down, up = sequence((3, 5), 3), sequence((6, 3), 2)
    place = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q"
    layer = f"motion.{place}" if dialect == "motion" else "transformer_blocks.0.attn1.to_q"
    if dialect == "motion":
        choice = PartChoice("motion_lora", 3, alpha)
    else:
        choice = PartChoice("lora", 3, alpha, dialect=dialect)
    trained = {f"{layer}.lora_down": down, f"{layer}.lora_up": up}
    tensors, facts = contents(Outcome("cogvideox", choice, trained, {f"{layer}.weight": up}))
    (down,) = [value for key, value in tensors.items() if key.endswith(("down.weight", "lora_A.weight"))]
    (up,) = [value for key, value in tensors.items() if key.endswith(("up.weight", "lora_B.weight"))]
    scale = next((float(value) / 3 for key, value in tensors.items() if key.endswith("alpha")), 1.0)
    if dialect == "PEFT":
        told = json.loads(facts["lora_adapter_metadata"])
        scale = told["transformer.lora_alpha"] / told["transformer.r"]
    merged = sequence((6, 5), 1) + strength * scale * up @ down
    seen = (merged.sum().item(), merged[0, 0].item(), merged[5, 4].item())
    assert seen == pytest.approx(VECTORS[row], abs=2e-9)


def test_alpha_is_kept_whatever_the_rest_is_stored_in(tmp_path):
    """kohya-ss/sd-scripts stores it with the halves: 200.5 became 200 in bf16."""
    layer = "transformer_blocks.0.attn1.to_q"
    outcome = Outcome("cogvideox", PartChoice("lora", 2, 200.5), halves({layer: (4, 4)}, 2), {})
    path = write(tmp_path / "a.safetensors", outcome, NOTES)
    tensors = load_file(path)
    alpha = tensors.pop("lora_unet_transformer_blocks_0_attn1_to_q.alpha")
    assert (alpha.item(), alpha.dtype, alpha.shape) == (200.5, torch.float32, ())
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    assert torch.tensor(200.5).bfloat16().item() == 200.0


def test_the_host_gets_the_same_under_its_own_names():
    layer = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    for prefix in ("unet.", ""):
        trained = halves({prefix + layer: (4, 6)}, 2)
        tensors = host_lora(trained, 1.0)
        name = f"diffusion_model.{layer}"
        assert tensors.keys() == {f"{name}.lora_up.weight", f"{name}.lora_down.weight", f"{name}.alpha"}
        merged = (
            tensors[f"{name}.alpha"]
            / 2
            * tensors[f"{name}.lora_up.weight"]
            @ tensors[f"{name}.lora_down.weight"]
        )
        torch.testing.assert_close(merged.double(), change(trained, prefix + layer, 1.0))
    with pytest.raises(ValueError, match="reaches no motion module"):
        host_lora(halves({"motion.down_blocks.0.x": (4, 4)}, 2), 1.0)


class TestNotes:
    @pytest.fixture
    def path(self, tmp_path):
        layer = "transformer_blocks.0.attn1.to_q"
        outcome = Outcome("cogvideox", PartChoice("lora", 2, 4.0), halves({layer: (4, 4)}, 2), {})
        recipe = replace(RECIPE, part=outcome.part)
        return write(tmp_path / "a.safetensors", outcome, replace(NOTES, recipe=recipe))

    def test_ours(self, path):
        metadata = read_header(path).metadata
        told = json.loads(metadata["kinetograph_training"])
        assert (told["name"], told["step"], told["data"], told["num_items"]) == (
            "my style",
            120,
            "0123abcd",
            20,
        )
        assert told["recipe"]["part"]["alpha"] == 4.0 and told["recipe"]["data"]["folder"] == "clips"
        assert json.loads(metadata["latent_scale"]) == 0.18215

    def test_kohyas(self, path):
        metadata = read_header(path).metadata
        wanted = {
            "ss_network_dim": "2",
            "ss_network_alpha": "4.0",
            "ss_network_module": "networks.lora",
            "ss_base_model_version": "a base",
            "ss_learning_rate": "0.0001",
            "ss_optimizer": "adamw",
            "ss_steps": "120",
            "ss_seed": "0",
            "ss_mixed_precision": "bf16",
            "ss_num_train_images": "20",
            "ss_resolution": "(256, 192)",
            "ss_output_name": "my style",
        }
        assert {key: value for key, value in metadata.items() if key.startswith("ss_")} == wanted

    def test_the_hash_is_that_of_the_numbers(self, path):
        data = path.read_bytes()
        numbers = data[8 + int.from_bytes(data[:8], "little") :]
        assert read_header(path).metadata["sshs_model_hash"] == hashlib.sha256(numbers).hexdigest()


class TestWholeWeights:
    def test_motion_modules_of_animatediff(self, tmp_path):
        part, config = ANIMATEDIFF.parts["motion_module"], motion_files.SMALL["v3"]
        state = {f"motion.{key}": value for key, value in motion_files.tensors(config).items()}
        trained = drawn(shapes_of({key: state[key] for key in whole_names("motion_module", state)}), 5)
        outcome = Outcome("animatediff", PartChoice("motion_module"), trained, state)
        path = write(tmp_path / "a.safetensors", outcome, NOTES, torch.float16)
        finding, tensors = read_part(path, FAMILIES, "motion_module")
        assert finding.config == config and finding.dtype == "float16"
        # of two levels: one a level on the way down, two on the way up
        assert len(tensors) == 28 * 6
        for key, value in tensors.items():
            # tables as they were
            wanted = state[f"motion.{key}"] if key.endswith(".pe") else trained[f"motion.{key}"].half()
            assert torch.equal(value, wanted), key
        assert part.shapes(config) == shapes_of(tensors)

    @pytest.mark.parametrize("family", ["animatediff", "pixart"])
    def test_an_unfinished_motion_module_is_refused(self, family, tmp_path):
        if family == "animatediff":
            config, prefix = motion_files.SMALL["v3"], "motion."
            network = ANIMATEDIFF.parts["motion_module"].build(config)
        else:
            config, prefix = tiny_pixart.GRID, ""
            network = EASYANIMATE.parts["motion_module"].build(config)
        network.start()
        state = {prefix + key: value for key, value in network.state_dict().items()}
        outcome = Outcome(family, PartChoice("motion_module"), {}, state, config)
        # how much room it takes can be asked before the first step
        assert num_bytes(outcome) > 0
        with pytest.raises(ValueError, match="motion modules change nothing yet"):
            write(tmp_path / "a.safetensors", outcome, NOTES)
        assert list(tmp_path.iterdir()) == []

    def test_motion_modules_of_easyanimate(self, tmp_path):
        config = replace(tiny_pixart.GRID, native_size=SIZE)
        state = dict(tiny_pixart.modules(config=config).state_dict())
        outcome = Outcome("pixart", PartChoice("motion_module"), {}, state, config, SIZE)
        path = write(tmp_path / "a.safetensors", outcome, NOTES, torch.float32)
        finding, tensors = read_part(path, FAMILIES, "motion_module")
        assert (finding.label, finding.config) == ("EasyAnimate", config)
        assert tensors.keys() == state.keys() and all(torch.equal(tensors[key], state[key]) for key in state)
        tables = [value for key, value in load_file(path).items() if key.endswith(".pe")]
        assert len(tables) == 2 * config.num_layers
        torch.testing.assert_close(tables[0][:, : tiny_pixart.ROWS], tiny_pixart.position_table())

    def test_exvideo(self, tmp_path):
        config = TINY_SVD
        shapes = {**SVD.parts["diffusion_model"].shapes(config), **SVD.parts["extension"].shapes(config)}
        state = drawn(shapes)
        quantiles = [index / 128 for index in range(128)]
        notes = replace(NOTES, more={"motion_quantiles": quantiles, "latent_scale": 0.13025})
        outcome = Outcome("svd", PartChoice("exvideo"), {}, state, config, SIZE)
        path = write(tmp_path / "a.safetensors", outcome, notes, torch.float16)
        finding, tensors = read_part(path, FAMILIES, "extension")
        assert len(tensors) == 528 and finding.dtype == "float16"
        assert finding.config.native_size == SIZE and finding.config.head_dim == config.head_dim
        assert all(torch.equal(value, state[key].half()) for key, value in tensors.items())
        metadata = read_header(path).metadata
        assert json.loads(metadata["motion_quantiles"]) == quantiles
        assert json.loads(metadata["latent_scale"]) == 0.13025

    @pytest.mark.parametrize(
        "family, config",
        [
            (COGVIDEOX, replace(TINY_COG, in_channels=33, noised_image=True, max_text_tokens=32)),
            (PIXART, replace(tiny_pixart.CONFIG, sample_size=8)),
            (SVD, TINY_SVD),
        ],
        ids=lambda value: getattr(value, "id", ""),
    )
    def test_whole_networks_are_loaded_as_what_they_are(self, family, config, tmp_path):
        """Their preview colours, too, where they are their own as those of the pocket models are."""
        factors = tuple(
            (0.1 * channel, 0.2, 0.3) for channel in range(config.out_channels if family is not PIXART else 4)
        )
        config = replace(
            config, latents=replace(config.latents, rgb_factors=factors, rgb_bias=(0.1, 0.0, 0.2))
        )
        part = family.parts["diffusion_model"]
        state = drawn(part.shapes(config))
        first = next(iter(state))
        trained = {first: state[first] + 1}
        path = write(
            tmp_path / "a.safetensors", Outcome(family.id, PartChoice("whole"), trained, state, config), NOTES
        )
        finding, tensors = read_part(path, FAMILIES, "diffusion_model")
        assert finding.config == config and tensors.keys() == state.keys()
        assert torch.equal(tensors[first], trained[first].bfloat16())

    def test_a_picture_unet_keeps_the_hosts_names(self):
        state = {"unet.out.2.weight": torch.ones(2), "motion.down_blocks.0.motion_modules.0.x": torch.ones(1)}
        tensors, _ = contents(Outcome("animatediff", PartChoice("whole"), {}, state))
        assert tensors.keys() == {"model.diffusion_model.out.2.weight"}

    def test_half_of_a_network_is_refused(self):
        state = drawn(COGVIDEOX.parts["diffusion_model"].shapes(TINY_COG))
        state.pop("proj_out.bias")
        with pytest.raises(ValueError, match=r"1 of the weights .* proj_out\.bias"):
            contents(Outcome("cogvideox", PartChoice("whole"), {}, state, TINY_COG))


class TestStoring:
    @pytest.fixture
    def outcome(self):
        layer = "transformer_blocks.0.attn1.to_q"
        return Outcome("cogvideox", PartChoice("lora", 2, 2.0), halves({layer: (4, 4)}, 2), {})

    def test_nothing_is_replaced_in_silence(self, outcome, tmp_path):
        path = tmp_path / "below" / "a.safetensors"
        write(path, outcome, NOTES)
        before = path.read_bytes()
        assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]
        with pytest.raises(ValueError, match="a.safetensors is there already"):
            write(path, outcome, replace(NOTES, step=200))
        assert path.read_bytes() == before
        write(path, outcome, replace(NOTES, step=200), over=True)
        assert json.loads(read_header(path).metadata["kinetograph_training"])["step"] == 200
        assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]

    def test_a_full_disk(self, outcome, tmp_path):
        free = shutil.disk_usage(tmp_path).free
        with pytest.raises(ValueError, match="The disk is too full for what is written"):
            storing.check_room(tmp_path / "not" / "there", free + 10**12)
        storing.check_room(tmp_path, 1)

    def test_what_breaks_off_leaves_what_was_there(self, outcome, tmp_path):
        """The system lets files grow to 1000 bytes, as a full disk would."""
        import resource

        path = write(tmp_path / "a.safetensors", outcome, NOTES)
        before = path.read_bytes()
        assert len(before) > 1000
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(ValueError, match="a.safetensors could not be written: "):
                write(path, outcome, replace(NOTES, step=200), over=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
        assert path.read_bytes() == before

    def test_a_folder_that_cannot_be(self, outcome, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="a.safetensors could not be written: "):
            write(tmp_path / "file" / "a.safetensors", outcome, NOTES)

    @pytest.mark.parametrize(
        "value, dtype, words",
        [
            (float("nan"), torch.bfloat16, "no finite numbers: its training failed"),
            (1e5, torch.float16, "numbers beyond torch.float16: choose bf16"),
        ],
    )
    def test_numbers_that_are_none(self, outcome, tmp_path, value, dtype, words):
        trained = dict(outcome.trained)
        key = next(iter(trained))
        trained[key] = torch.full_like(trained[key], value)
        with pytest.raises(ValueError, match=words):
            write(tmp_path / "a.safetensors", replace(outcome, trained=trained), NOTES, dtype)
        assert list(tmp_path.iterdir()) == []

    def test_its_size_is_known_before(self, outcome, tmp_path):
        path = write(tmp_path / "a.safetensors", outcome, NOTES)
        with safe_open(path, "pt") as file:
            numbers = sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118
        assert numbers <= num_bytes(outcome) <= numbers + 1000

    def test_what_is_no_lora(self):
        with pytest.raises(ValueError, match="These are not the halves of a LoRA: a"):
            contents(Outcome("cogvideox", PartChoice("lora"), {"a": torch.ones(1)}, {}))
