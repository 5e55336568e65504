"""LoRA Stack on a MODEL with motion modules: every file does what the same change in the weights does, or says why not."""

import shutil
from functools import cache

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.tests import motion_files, sparse_files
from kinetograph.tests import motion_loras as loras
from kinetograph.tests.host import pictures
from kinetograph.tests.host.workbench import Workbench, relative, run
from kinetograph.tests.motion_strangers import STRANGERS

FRAMES = 3
LEVELS = motion_files.CHANNELS[:3]
UNET = loras.of_unet(LEVELS, pictures.CONTEXT)
MODULES, MOTION, LORAS = "animatediff_models", "animatediff_motion_lora", "loras"
GOAL = 2e-6
# names are read without the host
SPELLINGS = [
    pytest.param(name, marks=() if name in ("AnimateDiff", "MotionDirector") else pytest.mark.newest)
    for name in loras.SPELLINGS
]


class Bench(Workbench):
    """A tiny SD1.5 of the host, motion modules, LoRA files, and what one step with them gives."""

    def __init__(self, base):
        super().__init__()
        self.models = base / "models"
        self.modules = {
            name: f"{MODULES}/{path.name}"
            for name, path in motion_files.write_all(self.models / MODULES).items()
        }

    def write(self, name, tensors, folder=MOTION):
        """The name, as the list of LoRA Stack has it, of a new file."""
        (self.models / folder).mkdir(parents=True, exist_ok=True)
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        save_file(tensors, self.models / folder / f"{name}.safetensors")
        return f"{name}.safetensors" if folder == LORAS else f"{folder}/{name}.safetensors"

    @cache  # noqa: B019
    def base(self, kind="SD15"):
        """An image MODEL, the same for all tests."""
        return pictures.build(kind)

    def move(self, version="v2", model=None, file=None):
        """An image MODEL with motion modules."""
        model = model or self.base("SDXL" if version == "SDXL beta" else "SD15")
        chosen = {
            "motion_module": file or self.modules[version],
            "beta_schedule": "as trained",
            "strength": 1.0,
        }
        chosen |= {"version": "from the file", "num_frames": 0}
        return run(self.ours["MotionModuleApply"], model=model, **chosen)[0]

    def merged(self, *changed, version="v2", model=None):
        """The same with LoRAs, (changes, strength), in the weights of the motion modules' file."""
        tensors = loras.merged(motion_files.tensors(motion_files.CONFIGS[version]), *changed)
        return self.move(version, model, self.write("merged", tensors, MODULES))

    def stack(self, model, *rows, **choices):
        """(MODEL, report) of LoRA Stack; a row is (file, strength)."""
        told = {"loras": str(len(rows))}
        for i, (name, strength) in enumerate(rows, 1):
            told |= {f"lora_{i}": name, f"strength_{i}": strength, f"text_strength_{i}": 1.0}
        chosen = {"allow_partial": False, "adapter_alpha": 0.0, **choices}
        model, _, report = run(self.ours["LoRAStack"], model=model, loras=told, **chosen)
        return model, report

    def output(self, model):
        """What one step from noise gives."""
        positive, negative = pictures.prompts()
        latent = {"samples": torch.zeros(FRAMES, 4, 8, 8)}
        return self.ksampler(model, latent, cfg=1.0, steps=1, positive=positive, negative=negative)


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return Bench(base)


@pytest.fixture(scope="module")
def plain(bench):
    """(MODEL of v2, what it gives): nobody may leave a trace on it."""
    model = bench.move()
    return model, bench.output(model)


@pytest.fixture(scope="module")
def made():
    """Changes of the attention of v2's modules alone, and of all that is linear."""
    config = motion_files.CONFIGS["v2"]
    return {whole: loras.changes(loras.of_motion(config, whole)) for whole in (False, True)}


@pytest.fixture(scope="module")
def right(bench, made):
    """What v2 gives with each of these in its weights, at strength 0.7."""
    return {whole: bench.output(bench.merged((made[whole], 0.7))) for whole in made}


@pytest.fixture(scope="module")
def lora(bench, made):
    """The name of a MotionLoRA."""
    return bench.write("pan", loras.tensors_of(made[False]))


@pytest.fixture(scope="module")
def adapter(bench):
    """(the changes of a domain adapter, its name)."""
    changed = loras.changes(UNET, 128)
    return changed, bench.write("adapter", loras.tensors_of(changed), LORAS)


def merge_unet(model, *changed):
    """The UNet of a MODEL with LoRAs, (changes, strength), in its weights."""
    unet = model.model.diffusion_model
    named = [({loras.to_host(module): pair for module, pair in made.items()}, by) for made, by in changed]
    weights = {key: value.clone() for key, value in unet.state_dict().items()}
    unet.load_state_dict(loras.merged(weights, *named))
    return model


class TestMotionLoRA:
    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_every_spelling_is_the_change_in_the_weights(self, bench, plain, made, right, spelling):
        whole = loras.SPELLINGS[spelling][-1]
        name = bench.write("spelled", loras.tensors_of(made[whole], spelling))
        model, report = bench.stack(plain[0], (name, 0.7))
        assert relative(bench.output(model), right[whole]) <= GOAL
        assert relative(right[whole], plain[1]) > 1e-2
        count = 21 * (10 if whole else 8)
        assert f"motion modules at 0.7: {count} modules: attention_blocks.0-1.to_k, " in report
        assert "left out" not in report and "it lies in" not in report

    def test_several_at_once_and_in_turn(self, bench, plain, lora, made):
        first, other = (
            (made[False], 0.7),
            (loras.changes(loras.of_motion(motion_files.CONFIGS["v2"]), 3, seed=9), -0.4),
        )
        name = bench.write("tilt", loras.tensors_of(other[0]))
        wanted = bench.output(bench.merged(first, other))
        both, report = bench.stack(plain[0], (lora, 0.7), (name, -0.4))
        assert relative(bench.output(both), wanted) <= GOAL
        assert (
            "pan.safetensors: AnimateDiff, rank 4" in report
            and "tilt.safetensors: AnimateDiff, rank 3" in report
        )
        one, _ = bench.stack(plain[0], (lora, 0.7))
        alone = bench.output(one)
        behind, _ = bench.stack(one, (name, -0.4))
        assert relative(bench.output(behind), wanted) <= GOAL
        # opposite strengths cancel
        gone, _ = bench.stack(one, (lora, -0.7))
        assert relative(bench.output(gone), plain[1]) <= GOAL
        assert torch.equal(bench.output(one), alone)
        assert torch.equal(bench.output(plain[0]), plain[1])

    def test_strength_0_changes_nothing(self, bench, plain, lora):
        model, report = bench.stack(plain[0], (lora, 0.0))
        assert torch.equal(bench.output(model), plain[1])
        assert "motion modules at 0: 168 modules" in report

    @pytest.mark.newest
    @pytest.mark.parametrize("rank", [32, 64, 128])
    def test_ranks(self, bench, plain, made, rank):
        modules = loras.of_motion(motion_files.CONFIGS["v2"])
        changed = loras.changes({module: modules[module] for module in list(modules)[::7]}, rank)
        model, report = bench.stack(plain[0], (bench.write("rank", loras.tensors_of(changed)), 1.0))
        assert f"rank {rank}," in report
        assert relative(bench.output(model), bench.output(bench.merged((changed, 1.0)))) <= GOAL

    @pytest.mark.parametrize("version", ["v3", pytest.param("v1", marks=pytest.mark.newest)])
    def test_the_middle_is_left_out_where_there_is_none(self, bench, made, lora, version):
        model = bench.move(version)
        patched, report = bench.stack(model, (lora, 0.7))
        rest = {module: pair for module, pair in made[False].items() if "mid_block" not in module}
        wanted = bench.output(bench.merged((rest, 0.7), version=version))
        assert relative(bench.output(patched), wanted) <= GOAL
        assert f"left out: 16 keys for the middle of the UNet, where {version} has no module" in report

    @pytest.mark.newest
    def test_the_middle_is_changed_where_there_is_one(self, bench, made, lora):
        model, report = bench.stack(bench.move("AnimateLCM"), (lora, 0.7))
        wanted = bench.output(bench.merged((made[False], 0.7), version="AnimateLCM"))
        assert relative(bench.output(model), wanted) <= GOAL
        assert "168 modules" in report and "left out" not in report

    def test_beside_a_lora_of_the_unet(self, bench, plain, made, lora):
        """In front of Motion Module Apply or behind it, of our node or of the host."""
        changed = loras.changes({key: UNET[key] for key in list(UNET)[::5]}, 4)
        name = bench.write(
            "style",
            {
                f"{loras.flat(key)}.lora_{end}.weight": half
                for key, pair in changed.items()
                for end, half in zip(("down", "up"), pair, strict=True)
            },
            LORAS,
        )
        wanted = bench.output(
            bench.merged((made[False], 0.7), model=merge_unet(pictures.build(), (changed, 0.5)))
        )
        front, _ = bench.stack(bench.base(), (name, 0.5))
        host = run(bench.host.LoraLoaderModelOnly, model=bench.base(), lora_name=name, strength_model=0.5)[0]
        for model in (front, host):
            moved = bench.move(model=model)
            assert relative(bench.output(bench.stack(moved, (lora, 0.7))[0]), wanted) <= GOAL
        behind, report = bench.stack(plain[0], (lora, 0.7), (name, 0.5))
        assert relative(bench.output(behind), wanted) <= GOAL
        assert report.count("safetensors") == 2
        behind = run(
            bench.host.LoraLoaderModelOnly,
            model=bench.stack(plain[0], (lora, 0.7))[0],
            lora_name=name,
            strength_model=0.5,
        )[0]
        assert relative(bench.output(behind), wanted) <= GOAL

    def test_a_file_for_both(self, bench, plain, made, right, adapter):
        """One file of keys for motion modules and for the UNet changes both."""
        name = bench.write("both", {**loras.tensors_of(made[False]), **loras.tensors_of(adapter[0])}, LORAS)
        model, report = bench.stack(plain[0], (name, 0.7))
        assert relative(bench.output(model), right[False]) <= GOAL
        assert "motion modules at 0.7: 168" in report and "domain adapter" in report
        model, _ = bench.stack(plain[0], (name, 0.7), adapter_alpha=1.0)
        assert relative(bench.output(model), right[False]) > 1e-2

    @pytest.mark.newest
    def test_what_does_not_fit(self, bench, plain, made, lora):
        tensors = loras.tensors_of(made[False])
        name = bench.write("odd", {**tensors, "down_blocks.0.motion_modules.0.of.nobody": torch.ones(2)})
        with pytest.raises(
            ValueError, match=r"odd\.safetensors fits this model only in part: 336 keys fit, 1 do not"
        ):
            bench.stack(plain[0], (name, 1.0))
        _, report = bench.stack(plain[0], (name, 1.0), allow_partial=True)
        assert "left out: 1 keys: down_blocks.0.motion_modules.0.of.nobody" in report
        key = next(key for key in tensors if "up_blocks.2" in key and "up.weight" in key)
        for number in (float("nan"), float("-inf")):
            bad = tensors[key].clone()
            bad[1, 1] = number
            name = bench.write("spoiled", {**tensors, key: bad})
            with pytest.raises(
                ValueError, match=r"spoiled\.safetensors holds numbers that are not finite .* up_blocks\.2"
            ):
                bench.stack(plain[0], (name, 1.0))
        middle = {key: value for key, value in tensors.items() if "mid_block" in key}
        with pytest.raises(
            ValueError, match="changes the middle of the UNet alone, where AnimateDiff v3 has no"
        ):
            bench.stack(bench.move("v3"), (bench.write("middle", middle), 1.0))
        assert torch.equal(bench.output(plain[0]), plain[1])

    @pytest.mark.newest
    def test_another_unet(self, bench, lora):
        """Some of its layers have the same shapes: it is no matter of what a user allows."""
        model = bench.move("SDXL beta")
        for allowed in (False, True):
            with pytest.raises(
                ValueError, match="on 4 levels of a UNet: those of this model are AnimateDiff SDXL beta, on 3"
            ):
                bench.stack(model, (lora, 1.0), allow_partial=allowed)
        config = motion_files.CONFIGS["SDXL beta"]
        name = bench.write("xl", loras.tensors_of(loras.changes(loras.of_motion(config))))
        assert "motion modules at 1: 120 modules" in bench.stack(model, (name, 1.0))[1]
        with pytest.raises(
            ValueError, match=r"xl\.safetensors fits this model only in part.* are AnimateDiff v2"
        ):
            bench.stack(bench.move("v2"), (name, 1.0))

    def test_without_motion_modules(self, bench, lora):
        with pytest.raises(
            ValueError,
            match=r"pan\.safetensors changes AnimateDiff's motion modules \(336 keys\), and this "
            "model has none: put Motion Module Apply in front of LoRA Stack",
        ):
            bench.stack(bench.base(), (lora, 1.0))

    @pytest.mark.newest
    def test_among_the_loras(self, bench, plain, made, right):
        name = bench.write("among", loras.tensors_of(made[False]), LORAS)
        model, report = bench.stack(plain[0], (name, 0.7))
        assert relative(bench.output(model), right[False]) <= GOAL
        assert (
            "it lies in loras and goes where it belongs; such files go into animatediff_motion_lora" in report
        )


class TestDomainAdapter:
    @pytest.mark.parametrize(
        ("alpha", "spelling"),
        [(0.0, "AnimateDiff"), (0.5, "AnimateDiff"), pytest.param(1.0, "kohya", marks=pytest.mark.newest)],
    )
    def test_alpha_is_the_change_in_the_weights(self, bench, plain, adapter, alpha, spelling):
        name = bench.write("adapted", loras.tensors_of(adapter[0], spelling), LORAS)
        model, report = bench.stack(plain[0], (name, 0.8), adapter_alpha=alpha)
        out = bench.output(model)
        assert f"v3 domain adapter: on the UNet, at 0.8 times adapter_alpha {alpha:g}" in report
        assert ("0 leaves it out" in report) == (alpha == 0)
        if alpha == 0:
            assert torch.equal(out, plain[1])
        else:
            wanted = bench.output(bench.move(model=merge_unet(pictures.build(), (adapter[0], 0.8 * alpha))))
            assert relative(out, wanted) <= GOAL
            assert relative(out, plain[1]) > 1e-2
        assert torch.equal(bench.output(plain[0]), plain[1])

    def test_it_may_come_first(self, bench, adapter):
        model = bench.move(model=bench.stack(bench.base(), (adapter[1], 1.0), adapter_alpha=1.0)[0])
        wanted = bench.move(model=merge_unet(pictures.build(), (adapter[0], 1.0)))
        assert relative(bench.output(model), bench.output(wanted)) <= GOAL

    @pytest.mark.newest
    def test_among_the_motion_loras(self, bench, plain, adapter):
        name = bench.write("adapter-among", loras.tensors_of(adapter[0]))
        model, report = bench.stack(plain[0], (name, 1.0), adapter_alpha=1.0)
        assert torch.equal(
            bench.output(model), bench.output(bench.stack(plain[0], (adapter[1], 1.0), adapter_alpha=1.0)[0])
        )
        assert (
            "it lies in animatediff_motion_lora and goes where it belongs; such files go into loras" in report
        )

    @pytest.mark.newest
    def test_what_only_looks_like_it(self, bench, plain, adapter):
        """MotionDirector's file for the UNet, and what diffusers once wrote, count in full whatever adapter_alpha is."""
        spatial = loras.changes(loras.of_unet(LEVELS, pictures.CONTEXT, loras.FORWARD), 128)
        old = loras.changes(UNET, 4)
        part = {key: pair for key, pair in adapter[0].items() if "mid_block" not in key}
        files = {"spatial": (spatial, loras.spatial(spatial)), "old": (old, loras.tensors_of(old))}
        files["part"] = part, loras.tensors_of(part)
        for name, (changed, tensors) in files.items():
            model, report = bench.stack(plain[0], (bench.write(name, tensors, LORAS), 0.5))
            wanted = bench.output(bench.move(model=merge_unet(pictures.build(), (changed, 0.5))))
            assert relative(bench.output(model), wanted) <= GOAL
            assert "domain adapter" not in report and f"at 0.5: {len(changed)} weights" in report

    @pytest.mark.newest
    def test_on_another_network(self, bench, adapter):
        for model in (bench.move("SDXL beta"), bench.shared()[0]):
            with pytest.raises(
                ValueError, match=r"adapter\.safetensors .*made for SD1.5 \(AnimateDiff's v3 domain adapter\)"
            ):
                bench.stack(model, (adapter[1], 1.0))


class TestOtherFiles:
    """What one of the two nodes is handed of the other's, when the prompt is posted and when it runs."""

    def told(self, bench, name):
        """What Motion Module Apply says of a file; the same at its post and as it runs."""
        said = bench.ours["MotionModuleApply"].validate_inputs(name)
        with pytest.raises(ValueError) as error:
            bench.move(file=name)
        assert str(error.value) == said
        return said

    def told_by_the_stack(self, bench, model, name):
        said = bench.ours["LoRAStack"].validate_inputs(loras={"loras": "1", "lora_1": name})
        with pytest.raises(ValueError) as error:
            bench.stack(model, (name, 1.0))
        assert str(error.value) == said
        return said

    @pytest.mark.newest
    def test_a_lora_for_motion_module_apply(self, bench, made, adapter):
        said = self.told(bench, bench.write("pan", loras.tensors_of(made[False]), MODULES))
        assert "pan.safetensors is a LoRA, no motion module. It was made for AnimateDiff" in said
        assert (
            "models/animatediff_motion_lora, and on the model with LoRA Stack behind Motion Module Apply"
            in said
        )
        said = self.told(bench, bench.write("adapter", loras.tensors_of(adapter[0]), MODULES))
        assert "made for SD1.5 (AnimateDiff's v3 domain adapter). Put it into models/loras" in said

    @pytest.mark.newest
    def test_motion_modules_for_lora_stack(self, bench, plain):
        for version, title in (("v3", "AnimateDiff v3"), ("AnimateLCM", "AnimateDiff AnimateLCM")):
            name = f"modules-{version}.safetensors"
            shutil.copy(bench.models / bench.modules[version], bench.models / LORAS / name)
            assert f"{name} is {title}, no LoRA: use Motion Module Apply." in self.told_by_the_stack(
                bench, plain[0], name
            )

    @pytest.mark.newest
    def test_a_sparse_ctrl_for_both(self, bench, plain):
        for folder, lacking in ((MODULES, "AnimateDiff motion module"), (LORAS, "LoRA")):
            sparse_files.write(bench.models / folder / "sparse.safetensors", "rgb")
            name = "sparse.safetensors" if folder == LORAS else f"{folder}/sparse.safetensors"
            said = (
                self.told_by_the_stack(bench, plain[0], name) if folder == LORAS else self.told(bench, name)
            )
            assert (
                f"sparse.safetensors is AnimateDiff SparseCtrl rgb, no {lacking}: use SparseCtrl Loader."
                in said
            )

    @pytest.mark.newest
    @pytest.mark.parametrize("label", STRANGERS)
    def test_strangers(self, bench, plain, label):
        shapes, words = STRANGERS[label]
        tensors = {key: torch.zeros(shape) for key, shape in shapes().items()}
        assert words in self.told(bench, bench.write("stranger", tensors, MODULES))
        assert words in self.told_by_the_stack(bench, plain[0], bench.write("stranger", tensors, LORAS))
