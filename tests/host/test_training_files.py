"""Files of a training on the real host: each is put on by the pack's nodes and the host's, and the weights are as trained.

Weights are compared, not pictures: what the host's patcher makes of a weight must be W + alpha / rank * up @ down.
"""

from dataclasses import replace
from math import prod

import pytest
import torch

from kinetograph.modules.families import ANIMATEDIFF, COGVIDEOX, EASYANIMATE, PIXART, SVD
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.training.files import Notes, Outcome, contents, host_lora, write
from kinetograph.modules.training.files.names import picture_names
from kinetograph.modules.training.parts import lora_modules, whole_names
from kinetograph.modules.training.recipe import Data, Files, PartChoice, Recipe
from kinetograph.tests import motion_files, tiny_pixart
from kinetograph.tests.host import pictures
from kinetograph.tests.host.pixart_bench import FOLDER, PixArtBench
from kinetograph.tests.host.workbench import SVDWorkbench, run

RANK, ALPHA, STRENGTH = 3, 2.0, 0.7
NOTES = Notes(Recipe("test", Files("base"), PartChoice("lora"), Data("clips")), 10, "data", 20)
# as published, on the meta device
FULL = {
    "SD15": {"model_channels": 320, "context_dim": 768},
    "SDXL": {
        **{"model_channels": 320, "context_dim": 2048, "transformer_depth": [0, 0, 2, 2, 10, 10]},
        **{"transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10},
    },
}


class Bench(SVDWorkbench, PixArtBench):
    """Tiny MODELs of every family, and the two nodes that put LoRAs on them."""

    def __init__(self, base):
        super().__init__()
        self.models = base / "models"

    def base(self, kind):
        """A MODEL of a family of ours, or of pictures; the same for all tests: nobody may leave a trace on it."""
        makers = {
            "cogvideox": lambda: self.shared("5B")[0],
            "svd": lambda: self.svd()[0],
            "pixart": lambda: self.parts(FOLDER)[0],
        }
        return makers[kind]() if kind in makers else pictures.build(kind)

    def write(self, name, outcome, folder="loras", dtype=torch.float32):
        """The name of a new file."""
        write(self.models / folder / f"{name}.safetensors", outcome, NOTES, dtype, over=True)
        return f"{name}.safetensors"

    def stack_one(self, model, name):
        """(MODEL, report) of LoRA Stack."""
        rows = {"loras": "1", "lora_1": name, "strength_1": STRENGTH, "text_strength_1": 1.0}
        self.ours["LoRAStack"].GET_SCHEMA()
        told = {"loras": rows, "allow_partial": False, "adapter_alpha": STRENGTH}
        model, _, report = run(self.ours["LoRAStack"], model=model, **told)
        return model, report

    def load_one(self, model, name):
        """The host's own LoRA loader."""
        inputs = {"model": model, "lora_name": name, "strength_model": STRENGTH}
        return run(self.host.LoraLoaderModelOnly, **inputs)[0]


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return Bench(base)


def network_of(model):
    """(names before the network's, the network as a training has it) of a MODEL."""
    own = getattr(model.model, "recipe", None) is not None
    return ("" if own else "unet."), model.model.diffusion_model


def halves(layers, seed=1, rank=RANK):
    """A training's tensors for layers {name: module}."""
    generator, made = torch.Generator().manual_seed(seed), {}
    for name, layer in layers.items():
        out, into = layer.weight.shape
        made[f"{name}.lora_down"] = torch.randn(rank, into, generator=generator) * into**-0.5
        made[f"{name}.lora_up"] = torch.randn(out, rank, generator=generator)
    return made


def trained_lora(model, choice, seed=1):
    """The outcome of a LoRA on the network of a MODEL."""
    prefix, network = network_of(model)
    modules = {prefix + name: module for name, module in network.named_modules()}
    chosen = {name: modules[name] for name in lora_modules(choice, modules)}
    state = {prefix + key: value for key, value in network.state_dict().items()}
    family = model.model.recipe.family.id if not prefix else "animatediff"
    return Outcome(family, choice, halves(chosen, seed, choice.rank), state)


def check_weights(patcher, trained, weight_of, strength=STRENGTH, alpha=ALPHA):
    """All weights that a patcher changes, and no others, are those that were trained; `weight_of` gives them unchanged."""
    import comfy.lora

    layers = {name.removesuffix(".lora_down") for name in trained if name.endswith(".lora_down")}
    assert len(patcher.patches) == len(layers)
    for layer in layers:
        key, weight = weight_of(layer)
        down, up = (trained[f"{layer}.{half}"] for half in ("lora_down", "lora_up"))
        wanted = weight + strength * alpha / len(down) * up @ down
        made = comfy.lora.calculate_weight(patcher.patches[key], weight.clone(), key)
        torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
        assert (made - weight).norm() > 0.01 * weight.norm()


def in_network(model):
    """A layer's (key in the host's naming, weight) in a MODEL, layers that were put into it included."""
    weights = dict(model.model.state_dict())
    for place, layer in model.object_patches.items():
        if isinstance(layer, torch.nn.Module):
            weights |= {f"{place}.{key}": value for key, value in layer.state_dict().items()}

    def find(layer):
        key = f"diffusion_model.{layer.removeprefix('unet.')}.weight"
        return key, weights[key].float()

    return find


# names are read without the host: one model of ours and one of its own are enough on an older one
BOTH_HOSTS = ("cogvideox", "small")
CASES = [
    pytest.param(kind, layers, dialect, marks=() if kind in BOTH_HOSTS else pytest.mark.newest)
    for kind, layers in (
        ("cogvideox", "all"),
        ("pixart", "all"),
        ("svd", "temporal"),
        ("SD15", "all"),
        ("SDXL", "all"),
        ("small", "attention"),
    )
    for dialect in (("kohya", "PEFT") if kind in ("cogvideox", "pixart", "svd") else ("kohya",))
]


class TestLoRA:
    @pytest.mark.parametrize("kind, layers, dialect", CASES)
    def test_both_nodes_put_it_on(self, bench, kind, layers, dialect):
        """The host's own loader knows kohya's names on every model, and PEFT's on those that have such names there."""
        model = bench.base(kind)
        outcome = trained_lora(model, PartChoice("lora", RANK, ALPHA, layers, dialect))
        name = bench.write("trained", outcome)
        stacked, report = bench.stack_one(model, name)
        check_weights(stacked, outcome.trained, in_network(model))
        assert "left out: " not in report
        if dialect == "kohya":
            check_weights(bench.load_one(model, name), outcome.trained, in_network(model))

    @pytest.mark.parametrize("kind", ["cogvideox", "SD15"])
    def test_the_hosts_lora_model(self, bench, kind, tmp_path):
        """As TrainLoraNode gives it: into LoraModelLoader, and through SaveLoRA into a file that both nodes read."""
        from comfy_extras import nodes_train
        from safetensors.torch import save_file

        model = bench.base(kind)
        outcome = trained_lora(model, PartChoice("lora", RANK, ALPHA))
        made = host_lora(outcome.trained, ALPHA)
        put_on = run(
            nodes_train.LoraModelLoader, model=model, lora=made, strength_model=STRENGTH, bypass=False
        )[0]
        check_weights(put_on, outcome.trained, in_network(model))
        # SaveLoRA writes nothing but the tensors
        save_file(made, bench.models / "loras" / "saved.safetensors")
        check_weights(bench.stack_one(model, "saved.safetensors")[0], outcome.trained, in_network(model))
        check_weights(bench.load_one(model, "saved.safetensors"), outcome.trained, in_network(model))

    def test_on_easyanimate_with_its_motion_modules(self, bench):
        """LoRA Stack reaches the layers that were put in; the host's loader looks at the plain network's names alone."""
        model = bench.move(bench.base("pixart"))
        part = PIXART.parts["diffusion_model"]
        network = part.empty(tiny_pixart.CONFIG)
        EASYANIMATE.parts["motion_module"].empty(tiny_pixart.GRID).put_into(network)
        choice = PartChoice("lora", RANK, ALPHA, "all")
        modules = dict(network.named_modules())
        found = {name: modules[name] for name in lora_modules(choice, modules)}
        assert sum("attn_temporal" in name for name in found) == 12 * tiny_pixart.LAYERS
        outcome = Outcome("pixart", choice, halves(found), {})
        stacked, _ = bench.stack_one(model, bench.write("trained", outcome))
        check_weights(stacked, outcome.trained, in_network(model))

    def test_the_domain_adapter(self, bench):
        """On the UNet, at adapter_alpha times the strength; without alpha in the file."""
        model = bench.base("SD15")
        outcome = trained_lora(model, PartChoice("domain_adapter", 128, 64.0))
        name = bench.write("adapter", outcome)
        stacked, report = bench.stack_one(model, name)
        assert "domain adapter" in report
        check_weights(stacked, outcome.trained, in_network(model), STRENGTH * STRENGTH, 64.0)
        check_weights(bench.load_one(model, name), outcome.trained, in_network(model), STRENGTH, 64.0)


@pytest.fixture(scope="module")
def moving(bench):
    """(MODEL with motion modules from a training's file, what that training gave)."""
    config = motion_files.CONFIGS["v2"]
    state = {f"motion.{key}": value for key, value in motion_files.tensors(config).items()}
    trained = {
        key: torch.randn(state[key].shape, generator=torch.Generator().manual_seed(number))
        for number, key in enumerate(whole_names("motion_module", state))
    }
    name = bench.write(
        "module", Outcome("animatediff", PartChoice("motion_module"), trained, state), "animatediff_models"
    )
    told = {"motion_module": f"animatediff_models/{name}", "beta_schedule": "as trained", "strength": 1.0}
    told |= {"version": "from the file", "num_frames": 0}
    model = run(bench.ours["MotionModuleApply"], model=bench.base("SD15"), **told)[0]
    return model, {**state, **trained}


class TestMotion:
    def test_motion_module_apply_has_the_trained_weights(self, moving):
        model, wanted = moving
        (patcher,) = model.get_additional_models_with_key("kinetograph_motion")
        weights = {f"motion.{key}": value for key, value in patcher.model.state_dict().items()}
        assert weights.keys() == wanted.keys()
        for key, value in weights.items():
            torch.testing.assert_close(value.float(), wanted[key].float(), rtol=0, atol=0)

    @pytest.mark.newest
    @pytest.mark.parametrize("layers", ["attention", "all"])
    def test_a_motion_lora(self, bench, moving, layers):
        model, weights = moving
        choice = PartChoice("motion_lora", RANK, ALPHA, layers)
        network = ANIMATEDIFF.parts["motion_module"].empty(motion_files.CONFIGS["v2"])
        modules = {f"motion.{name}": module for name, module in network.named_modules()}
        found = {name: modules[name] for name in lora_modules(choice, modules)}
        outcome = Outcome("animatediff", choice, halves(found), {})
        name = bench.write("pan", outcome, "animatediff_motion_lora")
        stacked, report = bench.stack_one(model, f"animatediff_motion_lora/{name}")
        assert f"{len(found)} modules" in report
        (patcher,) = stacked.get_additional_models_with_key("kinetograph_motion")

        def weight_of(layer):
            return f"{layer.removeprefix('motion.')}.weight", weights[f"{layer}.weight"]

        check_weights(patcher, outcome.trained, weight_of)

    def test_easyanimates_motion_module(self, bench):
        config = tiny_pixart.GRID
        state = dict(tiny_pixart.modules(seed=8).state_dict())
        outcome = Outcome("pixart", PartChoice("motion_module"), state, {}, config, (64, 64, 6))
        name = bench.write("trained-mm", outcome, "Motion_Module")
        model = bench.move(bench.base("pixart"), f"Motion_Module/{name}")
        find = in_network(model)
        for key, value in state.items():
            if key.endswith(".proj_out.weight"):
                torch.testing.assert_close(find(key.removesuffix(".weight"))[1], value, rtol=0, atol=0)

    def test_exvideo_patch(self, bench):
        model = bench.base("svd")
        config = model.model.recipe.config
        own = {key: value.float() for key, value in model.model.diffusion_model.state_dict().items()}
        branches = SVD.parts["extension"].build(config)
        trained = {
            key: torch.randn(value.shape, generator=torch.Generator().manual_seed(number))
            for number, (key, value) in enumerate(branches.state_dict().items())
        }
        outcome = Outcome("svd", PartChoice("exvideo"), trained, own, config, (64, 64, 128))
        name = bench.write("trained-exvideo", outcome, "SVD")
        longer = run(bench.ours["ExVideoPatch"], model=model, exvideo=f"SVD/{name}")[0]
        layers = {
            key: value for key, value in longer.object_patches.items() if isinstance(value, torch.nn.Module)
        }
        weights = {
            f"{place}.{key}".removeprefix("diffusion_model."): value
            for place, layer in layers.items()
            for key, value in layer.state_dict().items()
        }
        assert weights.keys() == trained.keys()
        assert all(torch.equal(value.float(), trained[key]) for key, value in weights.items())


@pytest.mark.newest
class TestWhole:
    def test_the_loader_takes_a_whole_network(self, bench):
        part = COGVIDEOX.parts["diffusion_model"]
        config = bench.base("cogvideox").model.recipe.config
        network = part.build(replace(config, sample_frames=33))
        trained = {
            key: torch.randn(value.shape, generator=torch.Generator().manual_seed(number)) * 0.2
            for number, (key, value) in enumerate(network.state_dict().items())
        }
        outcome = Outcome("cogvideox", PartChoice("whole"), trained, {}, network.config)
        name = bench.write("whole", outcome, "CogVideo")
        model = bench.load(model=f"CogVideo/{name}")[0]
        assert model.model.recipe.config == network.config
        weights = model.model.diffusion_model.state_dict()
        assert all(torch.equal(weights[key].float(), value) for key, value in trained.items())

    @pytest.mark.parametrize("kind", ["SD15", "SDXL"])
    def test_a_picture_unet_is_saved_as_the_host_saves_one(self, bench, kind):
        model = bench.base(kind)
        own = dict(model.model.diffusion_model.state_dict())
        theirs = model.model.model_config.process_unet_state_dict_for_saving(dict(own))
        state = {f"unet.{key}": value for key, value in own.items()}
        made, _ = contents(Outcome("animatediff", PartChoice("whole"), {}, state))
        assert made.keys() == theirs.keys() and all(torch.equal(made[key], theirs[key]) for key in made)

    def test_svd_is_the_hosts_own_svd_and_takes_its_lora(self, bench):
        """The host's checkpoint loader reads the UNet, and its LoRA loader the LoRA of ours."""
        import comfy.sd
        import comfy.supported_models

        config = SVDConfig(channels=(64, 64, 128, 128), context_dim=32, width=64, height=64, num_frames=4)
        network = SVD.parts["diffusion_model"].build(config)
        generator = torch.Generator().manual_seed(4)
        state = {
            key: torch.randn(value.shape, generator=generator) * max(1, prod(value.shape[1:])) ** -0.5
            for key, value in network.state_dict().items()
        }
        name = bench.write("svd", Outcome("svd", PartChoice("whole"), state, {}, config), "checkpoints")
        narrow = {"model_channels": 64, "context_dim": 32}
        with pytest.MonkeyPatch.context() as patch:
            for key, value in narrow.items():
                patch.setitem(comfy.supported_models.SVD_img2vid.unet_config, key, value)
            path, told = str(bench.models / "checkpoints" / name), {"dtype": torch.float32}
            (model, *_) = comfy.sd.load_checkpoint_guess_config(
                path, output_vae=False, output_clip=False, model_options=told
            )
        (bench.models / "checkpoints" / name).unlink()
        assert type(model.model).__name__ == "SVD_img2vid"
        weights = model.model.diffusion_model.state_dict()
        assert all(torch.equal(weights[key], value) for key, value in state.items())
        choice = PartChoice("lora", RANK, ALPHA)
        modules = dict(network.named_modules())
        found = {layer: modules[layer] for layer in lora_modules(choice, modules)}
        outcome = Outcome("svd", choice, halves(found), state, config)
        file = bench.write("trained", outcome)
        check_weights(bench.load_one(model, file), outcome.trained, in_network(model))
        check_weights(bench.stack_one(model, file)[0], outcome.trained, in_network(model))


def hosts_unet(kind):
    """(the host's UNet of the published size without data, its settings)."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    settings = {**pictures.SIZES[kind], **FULL[kind]}
    return UNetModel(
        **settings, device="meta", operations=comfy.ops.disable_weight_init, dtype=torch.float32
    ), settings


@pytest.mark.newest
class TestNames:
    @pytest.mark.parametrize(
        "kind, whole, attention, linear", [("SD15", 686, 128, 160), ("SDXL", 1680, 560, 722)]
    )
    def test_counts_of_the_hosts_unet(self, comfy_here, kind, whole, attention, linear):
        """AnimateDiff's first stage: 686 tensors, 859.52 million numbers; its adapter: 256 halves."""
        unet, _ = hosts_unet(kind)
        state = {f"unet.{key}": value for key, value in unet.state_dict().items()}
        names = whole_names("whole", state)
        assert names == list(state) and len(names) == whole
        if kind == "SD15":
            assert sum(value.numel() for value in state.values()) / 1e6 == pytest.approx(859.52, abs=0.01)
        modules = {f"unet.{name}": module for name, module in unet.named_modules()}
        assert len(lora_modules(PartChoice("domain_adapter"), modules)) == attention
        assert len(lora_modules(PartChoice("lora", layers="all"), modules)) == linear

    @pytest.mark.parametrize("kind", ["SD15", "SDXL"])
    def test_layers_are_called_as_the_host_calls_them(self, comfy_here, kind):
        import comfy.utils

        unet, settings = hosts_unet(kind)
        modules = {f"unet.{name}": module for name, module in unet.named_modules()}
        layers = lora_modules(PartChoice("lora", layers="all"), modules)
        ours = picture_names(layers, [f"unet.{key}" for key in unet.state_dict()])
        theirs = {host: diffusers for diffusers, host in comfy.utils.unet_to_diffusers(settings).items()}
        assert all(
            theirs[f"{layer.removeprefix('unet.')}.weight"] == f"{ours[layer]}.weight" for layer in layers
        )
