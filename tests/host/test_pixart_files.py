"""Files of PixArt and EasyAnimate v1 on the real host: personalised checkpoints, LoRAs, lists, prompts, weights."""

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.tests import tiny, tiny_pixart
from kinetograph.tests.host.pixart_bench import FOLDER, LORA, MODULE, PORTRAIT, PixArtBench
from kinetograph.tests.host.windowing import draw, predict
from kinetograph.tests.host.workbench import OWN, relative, run
from kinetograph.tests.tiny_pixart import FRAMES, RANK, SIZE

# where weights lie in a file changes which kernels run
SAME = 1e-5
# of the reference's linear layers, in EasyAnimate's words
UNET, TEXT = "lora_unet__", "lora_te_"
FOLDERS = ("Motion_Module", "Personalized_Model", "Diffusion_Transformer")
LONG = " ".join(["A Red circle moving left and a BLUE square standing still"] * 20)


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return PixArtBench()


@pytest.fixture(scope="module")
def models(base):
    (base / "models" / "loras").mkdir(exist_ok=True)
    return base / "models"


@pytest.fixture(scope="module")
def clip(bench):
    """What the base makes with the module."""
    return sample(bench, bench.parts()[0])


def sample(bench, model, clip=None, **changes):
    return bench.ksampler(bench.move(model), bench.empty(), **bench.prompts(clip), **changes)


def foresee(bench, model, clip=None):
    """What is predicted for noise with the module, with the prompt and without."""
    return predict(bench.move(model), draw(FRAMES, 4, SIZE // 8, SIZE // 8), **bench.prompts(clip))


def write_folder(models, name, transformer, text=None):
    """A pipeline with other weights; its name for the loader."""
    folder = tiny_pixart.write_pipeline(models / "Diffusion_Transformer" / name)
    transformer.save_pretrained(folder / "transformer")
    if text is not None:
        text.save_pretrained(folder / "text_encoder")
    return f"Diffusion_Transformer/{name}"


class TestPersonalized:
    def test_it_is_that_checkpoint_and_the_module_stays(self, bench, models, clip):
        alone = write_folder(models, "portrait-alone", tiny_pixart.transformer(seed=9))
        over = bench.pixart(personalized=PORTRAIT)[0]
        made = sample(bench, over)
        assert relative(made, sample(bench, bench.pixart(alone)[0])) <= SAME
        assert relative(made, clip) > 1e-2
        still = bench.ksampler(over, bench.empty(), **bench.prompts())
        assert relative(made, still) > 1e-2

    def test_what_it_does_not_hold_stays(self, bench, models, clip):
        """One that leaves out the second block's feed-forward."""
        part = "Personalized_Model/part.safetensors"
        tiny_pixart.write_personalized(models / part, keep=lambda key: "blocks.1.ff" not in key)
        mixed, theirs = tiny_pixart.transformer(), tiny_pixart.transformer(seed=9).state_dict()
        mixed.load_state_dict(
            {key: value for key, value in theirs.items() if "blocks.1.ff" not in key}, strict=False
        )
        alone = write_folder(models, "mixed", mixed)
        assert bench.problem(personalized=part) is True
        made = sample(bench, bench.pixart(personalized=part)[0])
        assert relative(made, sample(bench, bench.pixart(alone)[0])) <= SAME
        assert relative(made, sample(bench, bench.pixart(personalized=PORTRAIT)[0])) > 1e-2
        assert relative(made, clip) > 1e-2

    def test_the_original_layout_goes_over_a_diffusers_folder(self, bench, models):
        """A .pth of PixArt-alpha's own training, joined layers and all."""
        theirs = tiny_pixart.transformer(seed=9).state_dict()
        torch.save({"state_dict": original(theirs)}, models / "Personalized_Model" / "original.pth")
        made = sample(bench, bench.pixart(personalized="Personalized_Model/original.pth")[0])
        assert relative(made, sample(bench, bench.pixart(personalized=PORTRAIT)[0])) <= SAME


def original(weights):
    """Diffusers' names in the words of PixArt-alpha, by hand for what differs in more than a prefix."""
    renamed = {}
    for key, value in weights.items():
        key = key.replace("transformer_blocks.", "blocks.").replace("pos_embed.", "x_embedder.")
        key = key.replace("adaln_single.emb.timestep_embedder.linear_1", "t_embedder.mlp.0")
        key = key.replace("adaln_single.emb.timestep_embedder.linear_2", "t_embedder.mlp.2")
        key = key.replace("adaln_single.linear", "t_block.1").replace("proj_out.", "final_layer.linear.")
        key = re.sub(r"caption_projection\.linear_(\d)", r"y_embedder.y_proj.fc\1", key)
        key = key.replace("ff.net.0.proj", "mlp.fc1").replace("ff.net.2", "mlp.fc2")
        key = key.replace("attn1.to_out.0", "attn.proj").replace("attn2.to_out.0", "cross_attn.proj")
        key = key.replace("attn2.to_q", "cross_attn.q_linear")
        key = "final_layer.scale_shift_table" if key == "scale_shift_table" else key
        renamed[key] = value
    for key in [key for key in renamed if "to_q" in key or "to_k" in key]:
        attention = "attn1.to_{}" if "attn1" in key else "attn2.to_{}"
        letters, joined = ("qkv", "attn.qkv") if "attn1" in key else ("kv", "cross_attn.kv_linear")
        if f"to_{letters[0]}." in key:
            names = [key.replace(f"to_{letters[0]}", f"to_{letter}") for letter in letters]
            rows = torch.cat([renamed[name] for name in names])
            renamed[key.replace(attention.format(letters[0]), joined)] = rows
            for name in names:
                renamed.pop(name)
    return renamed


def changes_of(modules, prefix, rank=RANK, seed=21):
    """A kohya LoRA of every linear layer."""
    generator, made = torch.Generator().manual_seed(seed), {}
    for name, module in modules.named_modules():
        if isinstance(module, torch.nn.Linear):
            stem, (rows, columns) = prefix + name.replace(".", "_"), module.weight.shape
            made[f"{stem}.lora_down.weight"] = torch.randn(rank, columns, generator=generator) * columns**-0.5
            made[f"{stem}.lora_up.weight"] = torch.randn(rows, rank, generator=generator) * 0.5
            made[f"{stem}.alpha"] = torch.tensor(rank / 2)
    return made


def merged(modules, lora, prefix, strength):
    """The layers with W + strength * alpha / rank * up @ down."""
    with torch.no_grad():
        for name, module in modules.named_modules():
            stem = prefix + name.replace(".", "_")
            if f"{stem}.alpha" in lora:
                up, down = (lora[f"{stem}.lora_{half}.weight"] for half in ("up", "down"))
                module.weight += strength * lora[f"{stem}.alpha"] / len(down) * up @ down
    return modules


class TestLoRA:
    def test_both_parts_are_a_merge_by_hand(self, bench, models):
        lora = load_file(models / LORA)
        transformer = merged(tiny_pixart.transformer(), lora, UNET, 0.55)
        changed, text, report = bench.stack(bench.parts()[0], bench.parts()[1])
        assert "model at 0.55: 26 modules" in report and "T5 at 0.55: 14 modules" in report
        alone = write_folder(models, "merged", transformer, merged(tiny.text_encoder(), lora, TEXT, 0.55))
        model, clip, _ = bench.pixart(alone)
        assert relative(bench.prompts(text)["positive"][0][0], bench.prompts(clip)["positive"][0][0]) <= 2e-6
        assert relative(foresee(bench, changed, text), foresee(bench, model, clip)) <= 2e-6
        made = sample(bench, changed, text)
        # the text by itself, at a strength of its own
        halved = bench.stack(bench.parts()[0], bench.parts()[1], text_strength=0.0)
        assert relative(bench.prompts(halved[1])["positive"][0][0], bench.prompts()["positive"][0][0]) == 0
        assert relative(sample(bench, halved[0], halved[1]), made) > 1e-2

    def test_without_a_clip_it_is_told(self, bench, clip):
        model = bench.parts()[0]
        with pytest.raises(ValueError, match="changes 14 modules of the T5 .*Connect the CLIP"):
            bench.stack(model)
        changed, _, report = bench.stack(model, allow_partial=True)
        assert "T5: 14 modules left out, no CLIP with a T5 encoder is connected" in report
        assert relative(sample(bench, changed), clip) > 1e-2

    def test_no_strength_is_no_change(self, bench, clip):
        model, text, _ = bench.stack(bench.parts()[0], bench.parts()[1], strength=0.0, text_strength=0.0)
        assert torch.equal(sample(bench, model, text), clip)

    def test_the_motion_module_is_reached(self, bench, models, clip):
        """Of a training on clips; equal to a module with the changes in it."""
        motion = changes_of(tiny_pixart.modules(), UNET)
        save_file(motion, models / "loras" / "tiny-clips-lora.safetensors")
        moving = bench.move(bench.parts()[0])
        changed, _, report = bench.stack(moving, lora="tiny-clips-lora.safetensors")
        assert f"model at 0.55: {len(motion) // 3} modules" in report
        weights = load_file(models / MODULE)
        merged_modules = merged(tiny_pixart.modules(), motion, UNET, 0.55)
        save_file(
            {**weights, **merged_modules.state_dict()}, models / "Motion_Module" / "merged-mm.safetensors"
        )
        alone = bench.move(bench.parts()[0], "Motion_Module/merged-mm.safetensors")
        made = bench.ksampler(changed, bench.empty())
        noise, told = draw(FRAMES, 4, SIZE // 8, SIZE // 8), bench.prompts()
        assert relative(predict(changed, noise, **told), predict(alone, noise, **told)) <= 2e-6
        assert relative(made, clip) > 1e-2
        assert torch.equal(bench.ksampler(moving, bench.empty()), clip)
        both = {**motion, **load_file(models / LORA)}
        save_file(both, models / "loras" / "tiny-both-lora.safetensors")
        for name in ("tiny-clips-lora.safetensors", "tiny-both-lora.safetensors"):
            with pytest.raises(
                ValueError, match="72 .*EasyAnimate v1's motion module.*put Motion Module Apply in front"
            ):
                bench.stack(bench.parts()[0], bench.parts()[1], name)
        _, _, report = bench.stack(moving, bench.parts()[1], "tiny-both-lora.safetensors")
        assert "model at 0.55: 50 modules" in report and "T5 at 0.55: 14 modules" in report

    def test_the_hosts_own_loader(self, bench, models):
        """In ComfyUI's words it is what LoRA Stack makes of it, before the module or behind."""
        lora = changes_of(tiny_pixart.transformer(), "")
        names = {name.replace(".", "_"): name for name, _ in tiny_pixart.transformer().named_modules()}
        words = {
            f"diffusion_model.{names[key.split('.')[0]]}.{key.split('.', 1)[1]}": lora[key] for key in lora
        }
        save_file(words, models / "loras" / "tiny-comfy-lora.safetensors")
        told = {"lora_name": "tiny-comfy-lora.safetensors", "strength_model": 0.55, "strength_clip": 0.55}
        plain, text = bench.parts()[:2]
        moving = bench.move(plain)
        behind = run(bench.host.LoraLoader, model=moving, clip=text, **told)[0]
        before = bench.move(run(bench.host.LoraLoader, model=plain, clip=text, **told)[0])
        stack = bench.stack(moving, text, "tiny-comfy-lora.safetensors")[0]
        expected = bench.ksampler(stack, bench.empty())
        for model in (behind, before):
            assert torch.equal(bench.ksampler(model, bench.empty()), expected)


@pytest.fixture
def scattered(models):
    """Files of each kind in every folder where they may lie, old enough to be known by a list."""
    writers = {
        "portrait": (tiny_pixart.write_personalized, (*FOLDERS, "diffusion_models")),
        "module": (tiny_pixart.write_modules, FOLDERS),
        "lora": (tiny_pixart.write_lora, FOLDERS[:2]),
    }
    paths = {
        kind: [models / folder / f"listed-{kind}.safetensors" for folder in folders]
        for kind, (_, folders) in writers.items()
    }
    for kind, (write, _) in writers.items():
        for path in paths[kind]:
            os.utime(write(path), (1, 1))
    names = {
        kind: {path.relative_to(models).as_posix().removeprefix("diffusion_models/") for path in there}
        for kind, there in paths.items()
    }
    yield names
    for path in (path for there in paths.values() for path in there):
        path.unlink()


def listed(bench):
    """{input: the names in its list}."""
    found = {}
    for node in ("PixArtLoader", "MotionModuleApply"):
        wishes = bench.ours[node].define_schema().inputs
        found |= {wish.id: {*wish.options} for wish in wishes if hasattr(wish, "options")}
    (row, *_) = bench.ours["LoRAStack"].define_schema().inputs[1].options
    return {**found, "lora_1": {*row.inputs[0].options}}


def test_files_are_listed_wherever_they_lie(bench, scattered):
    """The seed's tree has the portrait's files under Motion_Module; lists keep out what is surely another's."""
    from kinetograph.modules.catalogue import CATALOGUE

    listed(bench)
    CATALOGUE.wait(30)
    found = listed(bench)
    places = {"model": "portrait", "personalized": "portrait", "motion_module": "module", "lora_1": "lora"}
    for wish, own in places.items():
        assert scattered[own] <= found[wish], wish
        others = set().union(*(names for kind, names in scattered.items() if kind != own))
        assert not others & found[wish], wish
    assert FOLDER in found["model"] and FOLDER not in found["motion_module"]
    assert [name for name in scattered["portrait"] if bench.problem(personalized=name) is not True] == []


@pytest.fixture(scope="module")
def tokenizer(comfy_here):
    from comfy.text_encoders import sd3_clip
    from transformers import T5TokenizerFast

    return T5TokenizerFast.from_pretrained(str(Path(sd3_clip.__file__).parent / "t5_tokenizer"))


class TestPrompts:
    @pytest.mark.parametrize("prompt", ["", "  A RED Circle ", LONG], ids=["empty", "short", "long"])
    def test_they_are_those_of_transformers(self, bench, tokenizer, prompt):
        """Lower case, never padded, cut at 120 tokens."""
        ids = tokenizer(
            prompt.lower().strip(), truncation=True, max_length=120, return_tensors="pt"
        ).input_ids
        (batch,) = bench.parts()[1].tokenize(prompt)["t5xxl"]
        assert [token for token, *_ in batch] == ids[0].tolist()
        with torch.inference_mode():
            features = tiny.text_encoder()(ids)[0]
        ours = run(bench.host.CLIPTextEncode, clip=bench.parts()[1], text=prompt)[0][0][0]
        assert relative(ours, features) < 1e-5

    def test_embeddings_are_found_by_their_names(self, bench, base):
        (base / "models" / "embeddings").mkdir(exist_ok=True)
        vectors = torch.randn(2, 4096, generator=torch.manual_seed(8))
        save_file({"t5xxl": vectors}, base / "models" / "embeddings" / "MyStyle.safetensors")
        (batch,) = bench.parts()[1].tokenize("A cat, embedding:MyStyle")["t5xxl"]
        found = [token for token, *_ in batch if not isinstance(token, int)]
        assert len(found) == 2 and relative(torch.stack(found), vectors) == 0

    def test_cleaning_needs_its_packages(self, bench, monkeypatch):
        """Both ways on are named at the post; with the packages it is another text."""
        from kinetograph.modules.families.pixart import captions

        if not captions.missing_packages():
            assert bench.problem(captions=captions.DEEPFLOYD) is True
            cleaning = bench.pixart(captions=captions.DEEPFLOYD)[1]
            both = (each.tokenize("A <b>cat</b>")["t5xxl"][0] for each in (cleaning, bench.parts()[1]))
            short, long = map(len, both)
            assert short < long
        monkeypatch.setattr(captions, "find_spec", lambda name: None)
        said = bench.problem(captions=captions.DEEPFLOYD)
        assert "beautifulsoup4, ftfy" in said and "pip install" in said and "choose 'lower case'" in said
        with pytest.raises(ValueError, match="pip install"):
            bench.pixart(captions=captions.DEEPFLOYD)
        assert bench.problem() is True


class TestWeights:
    @pytest.mark.parametrize("dtype, most", [("bf16", 0.02), ("fp16", 0.005), ("fp8_e4m3fn", 0.2)])
    def test_smaller_ones_stay_near(self, bench, clip, dtype, most):
        model = bench.pixart(weight_dtype=dtype)[0]
        made = sample(bench, model)
        assert made.isfinite().all() and 0 < relative(made, clip) < most

    def test_a_saved_model_is_both_again(self, bench, models, clip):
        """ModelSave writes the module beside PixArt: the file is chosen in both nodes."""
        from comfy_extras.nodes_model_merging import ModelSave

        from kinetograph.tests.host.test_saved_models import saved

        plain = bench.ksampler(bench.parts()[0], bench.empty())
        name = saved(
            ModelSave, models.parent, "Diffusion_Transformer", "saved-mm", model=bench.move(bench.parts()[0])
        )
        assert bench.problem(name, FOLDER, FOLDER) is True
        again = bench.pixart(name, text_encoder=FOLDER, vae=FOLDER)[0]
        # where weights lie in a file changes which kernels run
        assert relative(bench.ksampler(again, bench.empty()), plain) <= 1e-4
        assert relative(bench.ksampler(bench.move(again, name), bench.empty()), clip) <= 1e-4

    @pytest.mark.parametrize("file", [MODULE, PORTRAIT])
    def test_a_file_that_was_rewritten_is_not_sampled_with(self, bench, models, file):
        copy = file.replace("tiny", "rewritten")
        content = (models / file).read_bytes()
        (models / copy).write_bytes(content)

        def build():
            if file == PORTRAIT:
                return bench.move(bench.pixart(personalized=copy)[0])
            return bench.move(bench.parts()[0], copy)

        moving = build()
        expected = bench.ksampler(moving, bench.empty())
        marks = {"PixArtLoader": {"model": FOLDER, "text_encoder": OWN, "vae": OWN, "personalized": copy}}
        marks["MotionModuleApply"] = {"motion_module": copy}
        node = "PixArtLoader" if file == PORTRAIT else "MotionModuleApply"
        before = bench.ours[node].fingerprint_inputs(**marks[node])
        with (models / copy).open("r+b") as stream:
            stream.seek(-4, os.SEEK_END)
            stream.write(b"\0\0\0\1")
        os.utime(models / copy, (1, 1))
        with pytest.raises(ValueError, match=Path(copy).name):
            bench.ksampler(moving, bench.empty())
        assert bench.ours[node].fingerprint_inputs(**marks[node]) != before
        (models / copy).write_bytes(content)
        assert torch.equal(bench.ksampler(build(), bench.empty()), expected)
        (models / copy).unlink()


class TestState:
    def test_a_run_leaves_the_model_as_it_was(self, bench, clip):
        model = bench.parts()[0]
        moving = bench.move(model)
        before = bench.ksampler(model, bench.empty())
        for _ in range(2):
            assert torch.equal(bench.ksampler(moving, bench.empty()), clip)
            assert torch.equal(bench.ksampler(model, bench.empty()), before)
        other = bench.move(model, strength=0.5)
        assert relative(bench.ksampler(other, bench.empty()), clip) > 1e-3
        assert torch.equal(bench.ksampler(moving, bench.empty()), clip)

    def test_a_cancel_in_the_middle(self, bench, clip):
        import comfy.model_management
        from comfy.patcher_extension import WrappersMP

        calls = []

        def stop(executor, *args, **kwargs):
            calls.append(1)
            comfy.model_management.interrupt_current_processing(len(calls) == 3)
            comfy.model_management.throw_exception_if_processing_interrupted()
            return executor(*args, **kwargs)

        stopped = bench.move(bench.parts()[0]).clone()
        stopped.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_stop", stop)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            bench.ksampler(stopped, bench.empty(), steps=8)
        comfy.model_management.interrupt_current_processing(False)
        assert torch.equal(sample(bench, bench.parts()[0]), clip)

    @pytest.mark.newest
    def test_easy_cache_spares_calls(self, bench):
        from comfy.patcher_extension import WrappersMP

        nodes = pytest.importorskip("comfy_extras.nodes_easycache")
        moving = bench.move(bench.parts()[0])
        told = {"start_percent": 0.1, "end_percent": 0.95, "verbose": False}
        expected = bench.ksampler(moving, bench.empty(), steps=8)
        counts = {}
        for threshold in (0.0, 3.0):
            calls = counts.setdefault(threshold, [])
            cached = run(nodes.EasyCacheNode, model=moving, reuse_threshold=threshold, **told)[0].clone()
            cached.add_wrapper_with_key(
                WrappersMP.DIFFUSION_MODEL,
                "test_count",
                lambda run, *a, calls=calls, **k: (calls.append(1), run(*a, **k))[1],
            )
            made = bench.ksampler(cached, bench.empty(), steps=8)
            assert made.isfinite().all() and (relative(made, expected) <= 1e-5) is (threshold == 0.0)
        assert len(counts[3.0]) < len(counts[0.0])
        assert torch.equal(bench.ksampler(moving, bench.empty(), steps=8), expected)
