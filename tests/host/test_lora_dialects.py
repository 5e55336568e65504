"""LoRA Stack: every dialect on every family is the same as the change in the weights themselves, to 1e-6."""

import json
from pathlib import Path

import pytest
import torch

from kinetograph.modules.families.family import Clip
from kinetograph.tests import tiny_svd
from kinetograph.tests.host import lora_files
from kinetograph.tests.host.lora_files import DIALECTS, STRENGTH, SVD, SVD_DIALECTS, TEXT_DIALECTS
from kinetograph.tests.host.workbench import SVDWorkbench, relative, run

FAMILIES = ("2B", "5B", "5B-I2V", "1.5-5B", "1.5-5B-I2V")
OWN = "from the checkpoint"
CASES = [(family, dialect) for family in FAMILIES for dialect in DIALECTS]
CASES += [(SVD, dialect) for dialect in SVD_DIALECTS]
# names are read without the host: one dialect of each family is enough on an older one
BOTH_HOSTS = ("Fun", "PEFT")
MARKED = [
    pytest.param(
        family, dialect, marks=() if dialect in BOTH_HOSTS else pytest.mark.newest, id=f"{family}-{dialect}"
    )
    for family, dialect in CASES
]


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


@pytest.fixture(scope="module")
def folder(bench):
    import folder_paths

    return Path(folder_paths.get_folder_paths("loras")[0])


def stacked(bench, model, *rows, clip=None, allow_partial=False):
    """(MODEL, CLIP, report) of LoRA Stack; a row is (file, strength)."""
    kind = bench.ours["LoRAStack"]
    kind.GET_SCHEMA()  # the list of files, as it is read for every prompt
    loras = {"loras": str(len(rows))}
    for i, (name, strength) in enumerate(rows, 1):
        loras |= {f"lora_{i}": name, f"strength_{i}": strength, f"text_strength_{i}": strength}
    more = {} if clip is None else {"clip": clip}
    return run(kind, model=model, loras=loras, allow_partial=allow_partial, **more)


def model_of(bench, family, fresh=False):
    if family == SVD:
        parts = {"model": "SVD/tiny-svd.safetensors", "weight_dtype": "fp32"}
        own = dict.fromkeys(("image_encoder", "vae"), "from the checkpoint")
        return run(bench.ours["SVDLoader"], **parts, **own)[0] if fresh else bench.svd()[0]
    return bench.load(family)[0] if fresh else bench.shared(family)[0]


def output(model, side=64):
    """What the network of a MODEL answers, loaded as the host loads it; ExVideo needs a side of 128."""
    import comfy.model_management

    recipe = model.model.recipe
    size = (side, side, 2) if recipe.family.id == "svd" else (64, 64, 13)
    torch.manual_seed(5)
    inputs = recipe.family.network.inputs(recipe.config, Clip(*size))
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        first = [inputs.pop(name) for name in list(inputs)[:3]]
        return model.model.diffusion_model(*first, **inputs).clone()


@pytest.fixture(scope="module")
def answers(bench):
    """A function that gives what a family's network with the changes in its weights answers, each computed once."""
    known = {}

    def of(family, made, key):
        if (family, key) not in known:
            model = model_of(bench, family, fresh=True)
            weights = lora_files.merged(lora_files.reference(family), made)
            state = (
                tiny_svd.renamed(weights, tiny_svd.keys.DIFFUSERS) if family == SVD else weights.state_dict()
            )
            with torch.inference_mode(False):
                model.model.diffusion_model.load_state_dict(state, assign=True)
            known[family, key] = output(model)
        return known[family, key]

    return of


@pytest.mark.parametrize(("family", "dialect"), MARKED)
def test_every_dialect_is_the_change_in_the_weights(bench, folder, answers, family, dialect):
    words = (SVD_DIALECTS if family == SVD else DIALECTS)[dialect]
    made = lora_files.changes(lora_files.reference(family), alphas=words[1][2] is not None)
    name = lora_files.write(folder, "dialect.safetensors", lora_files.tensors_of(made, words))
    expected = answers(family, made, (words[1][2], len(made)))
    model = model_of(bench, family)
    patched, _, report = stacked(bench, model, (name, STRENGTH))
    assert relative(output(patched), expected) <= 1e-6
    assert relative(output(model), expected) > 1e-2
    assert f"model at 0.8: {len(made)} modules" in report and "ranks 2 (" in report
    called = {"PEFT, default": "PEFT", "Fun, of VideoX": "ComfyUI", "original, flattened": "kohya"}
    assert report.startswith(
        f"dialect.safetensors: {called.get(dialect, dialect.split(' with')[0].split(', bare')[0])}, "
    )
    assert "left out" not in report


def test_on_top_of_exvideo(bench, folder, tmp_path):
    """A LoRA of all layers reaches those that ExVideo Patch put in, and the others, whichever node is first."""
    import folder_paths

    models = Path(folder_paths.models_dir) / "SVD"
    tiny_svd.write_exvideo(models / "tiny-exvideo.safetensors")
    patch = bench.ours["ExVideoPatch"]
    patch.GET_SCHEMA()

    def extended(model, name="SVD/tiny-exvideo.safetensors"):
        return run(patch, model=model, exvideo=name)[0]

    made = lora_files.changes(lora_files.reference(SVD))
    name = lora_files.write(folder, "svd.safetensors", lora_files.tensors_of(made, SVD_DIALECTS["kohya"]))
    unet = tiny_svd.renamed(lora_files.merged(lora_files.reference(SVD), made), tiny_svd.keys.DIFFUSERS)
    branches = tiny_svd.exvideo()
    with torch.no_grad():
        own = dict(branches.named_parameters())
        for module, (down, up, _) in made.items():
            if (weight := own.get(f"{lora_files.to_original(module)}.weight")) is not None:
                weight += STRENGTH * (up.flatten(1) @ down.flatten(1)).view(weight.shape)
    fresh = model_of(bench, SVD, fresh=True)
    with torch.inference_mode(False):
        fresh.model.diffusion_model.load_state_dict(unet, assign=True)
    longer = extended(fresh)
    for place, layer in longer.object_patches.items():
        if isinstance(layer, torch.nn.Module):
            with torch.inference_mode(False):
                inner = place.removeprefix("diffusion_model.") + "."
                layer.load_state_dict(
                    {k.removeprefix(inner): v for k, v in own.items() if k.startswith(inner)}
                )
    expected = output(longer, 128)
    model = model_of(bench, SVD)
    plain = output(extended(model), 128)
    for patched in (
        stacked(bench, extended(model), (name, STRENGTH))[0],
        extended(stacked(bench, model, (name, STRENGTH))[0]),
    ):
        assert relative(output(patched, 128), expected) <= 1e-6
    assert relative(plain, expected) > 1e-2
    assert torch.equal(output(extended(model), 128), plain)


@pytest.mark.parametrize("dialect", TEXT_DIALECTS)
def test_t5_parts_change_the_text_encoder(bench, folder, dialect):
    words, net = TEXT_DIALECTS[dialect], lora_files.changes(lora_files.reference("5B"))
    made = lora_files.changes(lora_files.text_reference(), alphas=words[1][2] is not None)
    text = lora_files.tensors_of(made, words)
    tensors = {**lora_files.tensors_of(net, DIALECTS["PEFT"]), **text}
    name = lora_files.write(folder, "with-text.safetensors", tensors)
    model, clip, _ = bench.shared("5B")
    _, changed, report = stacked(bench, model, (name, STRENGTH), clip=clip)
    assert f"T5 at 0.8: {len(made)} modules" in report

    other = bench.load("5B")[1]
    weights = lora_files.merged(lora_files.text_reference(), made).state_dict()
    weights = {f"t5xxl.transformer.{key}": value for key, value in weights.items()}
    with torch.inference_mode(False):
        missing, _ = other.cond_stage_model.load_state_dict(weights, strict=False, assign=True)
    assert not [key for key in missing if key.startswith("t5xxl.transformer.encoder")]

    def encode(encoder):
        return run(bench.host.CLIPTextEncode, clip=encoder, text="a red circle")[0][0][0].clone()

    plain = encode(clip)
    assert relative(encode(changed), encode(other)) <= 1e-6
    assert relative(plain, encode(other)) > 1e-2
    assert torch.equal(encode(clip), plain)

    with pytest.raises(
        ValueError, match=f"also changes {len(made)} modules of the T5 .*\\({len(text)} keys\\).*Connect"
    ):
        stacked(bench, model, (name, STRENGTH))
    patched, none, report = stacked(bench, model, (name, STRENGTH), allow_partial=True)
    assert none is None and f"T5: {len(made)} modules left out" in report
    only_net = stacked(bench, model, (name, STRENGTH), clip=clip)[0]
    assert torch.equal(output(patched), output(only_net))


@pytest.mark.parametrize(
    ("notes", "scale"),
    [
        ({"transformer.r": 4, "transformer.lora_alpha": 6}, lambda rank: 6 / rank),
        ({"r": 4, "lora_alpha": 6, "use_rslora": True}, lambda rank: 6 / rank**0.5),
        ({"transformer.r": 4, "text_encoder.lora_alpha": 6}, lambda rank: 1.0),
    ],
)
def test_alpha_of_the_metadata(bench, folder, notes, scale):
    """As diffusers writes it beside PEFT's keys (loaders/lora_base.py)."""
    made = lora_files.changes(lora_files.reference("5B"))
    tensors = lora_files.tensors_of(made, DIALECTS["PEFT"])
    name = lora_files.write(
        folder, "noted.safetensors", tensors, {"lora_adapter_metadata": json.dumps(notes)}
    )
    explicit = {module: (down, up, scale(len(down)) * len(down)) for module, (down, up, _) in made.items()}
    twin = lora_files.write(folder, "twin.safetensors", lora_files.tensors_of(explicit, DIALECTS["Fun"]))
    model = model_of(bench, "5B")
    first, second = (output(stacked(bench, model, (file, STRENGTH))[0]) for file in (name, twin))
    assert relative(first, second) <= 1e-6


def test_files_add_up_and_zero_changes_nothing(bench, folder):
    model = model_of(bench, "5B")
    plain = output(model)
    made = [lora_files.changes(lora_files.reference("5B"), seed=seed) for seed in (1, 2)]
    files = [
        lora_files.write(folder, f"{i}.safetensors", lora_files.tensors_of(one, DIALECTS["PEFT"]))
        for i, one in enumerate(made)
    ]
    both, _, report = stacked(bench, model, (files[0], 0.5), (files[1], -0.25))
    weights = lora_files.merged(lora_files.merged(lora_files.reference("5B"), made[0], 0.5), made[1], -0.25)
    other = model_of(bench, "5B", fresh=True)
    with torch.inference_mode(False):
        other.model.diffusion_model.load_state_dict(weights.state_dict(), assign=True)
    assert relative(output(both), output(other)) <= 1e-6
    assert "0.safetensors: PEFT" in report and "1.safetensors: PEFT" in report
    zero = stacked(bench, model, (files[0], 0.0), (files[1], 0.0))[0]
    assert torch.equal(output(zero), plain) and torch.equal(output(model), plain)


@pytest.mark.parametrize("family", ["5B", SVD])
def test_fp8_weights_take_a_lora(bench, folder, family):
    """The host adds it to weights that are cast, within what 8 bits hold."""
    made = lora_files.changes(lora_files.reference(family))
    words = (SVD_DIALECTS if family == SVD else DIALECTS)["PEFT"]
    name = lora_files.write(folder, "fp8.safetensors", lora_files.tensors_of(made, words))
    if family == SVD:
        parts = {"model": "SVD/tiny-svd.safetensors", "weight_dtype": "fp8_e4m3fn"}
        model = run(bench.ours["SVDLoader"], **parts, image_encoder=OWN, vae=OWN)[0]
    else:
        model = bench.load(family, "fp8_e4m3fn")[0]
    plain = output(model)
    exact = output(stacked(bench, model_of(bench, family), (name, STRENGTH))[0])
    assert relative(output(stacked(bench, model, (name, STRENGTH))[0]), exact) < 0.3 * relative(plain, exact)
    assert torch.equal(output(model), plain)
