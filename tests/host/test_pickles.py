"""Torch checkpoints on the real host: the same latents as of safetensors files, and hostile ones refused at the post."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file

from kinetograph.modules.weights.files import read_header
from kinetograph.tests.host import lora_files
from kinetograph.tests.host.graphs import loader, node, picture_to_video, text_to_video
from kinetograph.tests.pickled import name as called
from kinetograph.tests.pickled import text, whole, write

POCKET = Path(__file__).resolve().parents[2] / "pocket" / "models"
FOLDER = "pickles"  # below each model folder, and gone afterwards
SHARDS = 2
OMEGACONF = whole(called("omegaconf.dictconfig", "DictConfig") + b")\x81}b")


def resave(source, target, wrapper=None):
    """A safetensors file as torch writes the same weights."""
    target.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: torch.nn.Parameter(value, False) for key, value in load_file(source).items()}
    torch.save({wrapper: weights, "epoch": 3} if wrapper else weights, target)
    return target


def resave_sharded(source, folder, stem):
    """The same as shards in the names of transformers and diffusers, without an index."""
    weights = load_file(source)
    for number in range(SHARDS):
        part = dict([*weights.items()][number::SHARDS])
        torch.save(part, folder / f"{stem}-{number + 1:05}-of-{SHARDS:05}.bin")


@pytest.fixture(scope="module")
def models(base):
    """The model folders, with the pocket models as safetensors and as torch's files."""
    root = base / "models"
    svd, cog, loras = (root / key / FOLDER for key in ("SVD", "CogVideo", "loras"))
    svd.mkdir(parents=True)
    shutil.copy(POCKET / "SVD" / "pocket-svd.safetensors", svd / "plain.safetensors")
    resave(svd / "plain.safetensors", svd / "resaved" / "pocket.ckpt", "state_dict")
    # what the pocket's file says of itself in its metadata
    (svd / "resaved" / "config.json").write_text(read_header(svd / "plain.safetensors").metadata["config"])
    plain = POCKET / "CogVideo" / "pocket-cogvideox"
    for name in ("plain", "resaved"):
        shutil.copytree(plain, cog / name)
    for part in ("transformer", "vae", "text_encoder"):
        (file,) = (cog / "resaved" / part).glob("*.safetensors")
        resave_sharded(file, file.parent, file.stem)
        file.unlink()
    (svd / "beside.bin").write_bytes(b"x")
    changes = lora_files.tensors_of(
        lora_files.changes(lora_files.reference("5B")), lora_files.DIALECTS["PEFT"]
    )
    lora_files.write(loras, "plain.safetensors", changes)
    resave(loras / "plain.safetensors", loras / "resaved.pt")
    for key in ("SVD", "loras", "animatediff_models"):
        (root / key / FOLDER).mkdir(parents=True, exist_ok=True)
        write(root / key / FOLDER / "v3_sd15_mm.ckpt", OMEGACONF)
        write(
            root / key / FOLDER / "system.pth",
            b"\x80\x02" + called(os.name, "system") + b"(" + text("true") + b"tR.",
        )
    yield root
    for key in ("SVD", "CogVideo", "loras", "animatediff_models"):
        shutil.rmtree(root / key / FOLDER)


def latents(client, graph):
    graph["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="pickles")
    result = client.run(graph, timeout=180)
    assert result.status == "success", f"{result.message} {result.node_errors}"
    (file,) = result.files()
    samples = load(client.view(file))["latent_tensor"]
    assert samples.std() > 0.05
    return samples


def offered(client, kind, place):
    return client.get_json(f"/object_info/{kind}")[kind]["input"]["required"][place][1]["options"]


@pytest.mark.newest
def test_svd_as_a_ckpt_samples_the_same_latents(client, models):
    names = [f"SVD/{FOLDER}/{name}" for name in ("plain.safetensors", "resaved")]
    listed = offered(client, "KinetographSVDLoader", "model")
    assert {*names, f"SVD/{FOLDER}/system.pth"} <= {*listed}
    assert not any("beside.bin" in name for name in listed)
    found = []
    for name in names:
        graph = picture_to_video("none.png", model=name)
        graph["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0x336699)
        found.append(latents(client, graph))
    assert torch.equal(*found)


@pytest.mark.newest
def test_a_diffusers_folder_of_bin_shards_samples_the_same_latents(client, models):
    names = [f"CogVideo/{FOLDER}/{name}" for name in ("plain", "resaved")]
    assert {*names} <= {*offered(client, "KinetographCogVideoXLoader", "model")}
    found = []
    for name in names:
        graph = text_to_video()
        graph["loader"] = loader(model=name)
        found.append(latents(client, graph))
    assert torch.equal(*found)


def test_a_lora_as_a_pt_changes_the_same(client, models):
    found = []
    for name in (None, "plain.safetensors", "resaved.pt"):
        graph = text_to_video()
        if name:
            row = {"loras.lora_1": f"{FOLDER}/{name}", "loras.strength_1": 0.8, "loras.text_strength_1": 0.8}
            stack = {"model": ["loader", 0], "loras": "1", "allow_partial": False, **row}
            graph["stack"] = node("KinetographLoRAStack", **stack)
            graph["sampler"]["inputs"]["model"] = ["stack", 0]
        found.append(latents(client, graph))
    assert torch.equal(*found[1:]) and not torch.equal(*found[:2])


ROWS = {"loras": "1", "allow_partial": False, "loras.strength_1": 1.0, "loras.text_strength_1": 1.0}
PARTS = {"image_encoder": "from the checkpoint", "vae": "from the checkpoint", "weight_dtype": "auto"}


def takers(file):
    """Every node that loads a file, with one of this name."""
    yield {"load": node("KinetographSVDLoader", model=f"SVD/{file}", **PARTS)}
    svd = node("KinetographSVDLoader", model="SVD/tiny-svd.safetensors", **PARTS)
    yield {"svd": svd, "load": node("KinetographExVideoPatch", model=["svd", 0], exvideo=f"SVD/{file}")}
    module = {"beta_schedule": "as trained", "strength": 1.0, "version": "from the file", "num_frames": 0}
    module["motion_module"] = f"animatediff_models/{file}"
    yield {"svd": svd, "load": node("KinetographMotionModuleApply", model=["svd", 0], **module)}
    parts = dict.fromkeys(("text_encoder", "vae"), "CogVideo/tiny-5B")
    yield {"load": loader(model=f"SVD/{file}", **parts)}


@pytest.mark.parametrize(
    "file, foreign",
    [("v3_sd15_mm.ckpt", "omegaconf.dictconfig.DictConfig"), ("system.pth", f"{os.name}.system")],
)
def test_a_hostile_file_is_refused_at_the_post_by_its_name(client, models, file, foreign):
    for graph in takers(f"{FOLDER}/{file}"):
        graph["end"] = node("PreviewAny", source=["load", 0])
        result = client.run(graph, timeout=60)
        kind = graph["load"]["class_type"]
        assert result.status == "refused" and [*result.node_errors] == ["load"], f"{kind}: {result.message}"
        assert file in result.message and foreign in result.message, f"{kind}: {result.message}"
        assert ".safetensors copy" in result.message and str(models) not in result.message


def test_a_hostile_file_is_named_where_no_post_can_see_it(client, models):
    """ComfyUI hides the files of a LoRA Stack from a post; Model Doctor is there to look at any file."""
    stack = node(
        "KinetographLoRAStack", model=["svd", 0], **ROWS, **{"loras.lora_1": f"{FOLDER}/v3_sd15_mm.ckpt"}
    )
    graphs = (
        {"svd": node("KinetographSVDLoader", model="SVD/tiny-svd.safetensors", **PARTS), "load": stack},
        {"load": node("KinetographModelDoctor", model=f"SVD/{FOLDER}/v3_sd15_mm.ckpt")},
    )
    for graph in graphs:
        result = client.run({**graph, "end": node("PreviewAny", source=["load", 0])}, timeout=60)
        assert result.status == "error", result.message
        assert "v3_sd15_mm.ckpt is a pickle file that asks for omegaconf.dictconfig" in result.message


def test_suffixes_are_added_to_a_key_of_another_pack(comfy_here, monkeypatch, tmp_path):
    """Never taken away, and none of the host's sets is changed."""
    import folder_paths

    from kinetograph.nodes.host.folders import ModelFolders
    from kinetograph.nodes.pipeline import models

    assert {"animatediff_models", "animatediff_motion_lora"} <= {*models.MODELS.own}
    known = folder_paths.folder_names_and_paths
    theirs = {"a_set": {".x"}, "a_list": [".x", ".ckpt"], "hosts": folder_paths.supported_pt_extensions}
    before = {*folder_paths.supported_pt_extensions}
    for key, suffixes in theirs.items():
        (tmp_path / key).mkdir()
        (tmp_path / key / "mm.ckpt").write_bytes(b"x")
        monkeypatch.setitem(known, key, ([str(tmp_path / key)], suffixes))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    folders = ModelFolders((*theirs, "new"), (*theirs, "new"), ())
    folders.register()
    ours = {".safetensors", ".ckpt", ".pt", ".pth"}
    for key, suffixes in theirs.items():
        assert {*suffixes, *ours} <= {*known[key][1]} and known[key][0][0] == str(tmp_path / key)
        known[key][1].add(".more")
        assert folders.names((key,)) == [f"{key}/mm.ckpt"]
    assert known["new"][1] >= ours
    monkeypatch.delitem(known, "new")
    assert folder_paths.supported_pt_extensions >= before
