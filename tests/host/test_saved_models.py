"""What the host's own nodes save of our MODELs loads again, and gives what was saved.

The tensors are the same; where they lie in a file changes which kernels run, hence the tolerance.
"""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from kinetograph.tests import tiny_svd
from kinetograph.tests.host.workbench import SVD_OWN, SVDWorkbench, Workbench, relative, run

SIZE, TOLERANCE = 128, 1e-4  # 4e-5 reached


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    tiny_svd.write_exvideo(base / "models" / "SVD" / "saved-exvideo.safetensors")
    return SVDWorkbench()


@pytest.fixture(scope="module")
def longer(bench):
    """Tiny SVD with ExVideo's layers."""
    name = "SVD/saved-exvideo.safetensors"
    return run(bench.ours["ExVideoPatch"], model=bench.svd()[0], exvideo=name)[0]


def saved(kind, base, folder, name, **parts):
    """The name of what a host's node saved, put into a model folder."""
    import folder_paths

    with torch.inference_mode():
        kind().save(filename_prefix=name, **parts)
    (file,) = Path(folder_paths.get_output_directory()).glob(f"{name}*.safetensors")
    (base / "models" / folder).mkdir(exist_ok=True)
    shutil.move(file, base / "models" / folder / f"{name}.safetensors")
    return f"{folder}/{name}.safetensors"


def load_svd(bench, name, parts):
    problem = bench.ours["SVDLoader"].validate_inputs(name, parts, parts)
    assert problem is True, problem
    choice = {"model": name, "image_encoder": parts, "vae": parts, "weight_dtype": "fp32"}
    return run(bench.ours["SVDLoader"], **choice)


def sample(bench, model):
    return bench.sampler(model, bench.empty(size=SIZE), steps=2)


def report(bench, name):
    return run(bench.ours["ModelDoctor"], model=name)[0]


def native(bench, model):
    asked = {"family": "svd", "width": 0, "height": 0, "num_frames": 0, "batch_size": 1}
    return run(bench.ours["VideoLatent"], model=model, **asked)[0]["samples"].shape


def test_a_model_saved_after_exvideo_patch_has_its_layers_when_it_is_loaded(bench, base, longer):
    from comfy_extras.nodes_model_merging import ModelSave

    name = saved(ModelSave, base, "SVD", "saved-longer", model=longer)
    assert "UNet with ExVideo" in report(bench, name) and "Complete" in report(bench, name)
    again, _, _ = load_svd(bench, name, "SVD/tiny-svd.safetensors")
    expected = sample(bench, longer)
    assert relative(sample(bench, again), expected) <= TOLERANCE
    assert relative(sample(bench, bench.svd()[0]), expected) > 0.01, "ExVideo makes another clip"
    assert native(bench, again) == native(bench, longer)
    with pytest.raises(ValueError, match="ExVideo makes clips of 2 to 128 frames: got 1"):
        bench.sampler(again, bench.empty(frames=1, size=SIZE), steps=1)
    patch = {"model": again, "exvideo": "SVD/saved-exvideo.safetensors"}
    assert relative(sample(bench, run(bench.ours["ExVideoPatch"], **patch)[0]), expected) <= TOLERANCE


def test_a_whole_checkpoint_of_svd_loads_from_one_file(bench, base):
    from comfy_extras.nodes_video_model import ImageOnlyCheckpointSave

    model, vision, vae = bench.svd()
    parts = {"model": model, "clip_vision": vision, "vae": vae}
    name = saved(ImageOnlyCheckpointSave, base, "SVD", "saved-whole", **parts)
    assert report(bench, name).count("Complete") == 3
    again, vision, vae = load_svd(bench, name, SVD_OWN)
    assert again.model.recipe.config == dataclasses.replace(
        model.model.recipe.config, latents=again.model.recipe.config.latents
    )
    latent = bench.empty()
    ours, theirs = bench.condition(latent, clip_vision=vision, vae=vae), bench.condition(latent)
    for one, other in zip(ours, theirs, strict=True):
        assert relative(one[0][0] + 1, other[0][0] + 1) <= TOLERANCE
        pictures = (each[0][1]["concat_latent_image"] for each in (one, other))
        assert relative(*(picture + 1 for picture in pictures)) <= TOLERANCE
    given = {"samples": bench.clip()["samples"]}
    decoded = run(bench.host.VAEDecode, vae=vae, samples=given)[0]
    assert relative(decoded, run(bench.host.VAEDecode, vae=bench.svd()[2], samples=given)[0]) <= TOLERANCE


def test_a_checkpoint_of_cogvideox_loads_from_one_file(bench, base):
    from comfy_extras.nodes_model_merging import CheckpointSave

    cog = Workbench()
    model, clip, vae = cog.load("2B")
    name = saved(CheckpointSave, base, "CogVideo", "saved-2B", model=model, clip=clip, vae=vae)
    assert report(cog, name).count("Complete") == 3
    parts = {"text_encoder": name, "vae": name, "weight_dtype": "fp32"}
    again, same_clip, same_vae = run(cog.ours["CogVideoXLoader"], model=name, **parts)
    assert again.model.recipe.config == model.model.recipe.config
    latent = cog.empty()
    assert relative(cog.sampler(again, latent), cog.sampler(model, latent)) <= TOLERANCE
    texts = [run(cog.host.CLIPTextEncode, clip=each, text="a circle")[0][0][0] for each in (clip, same_clip)]
    assert relative(*texts) <= TOLERANCE
    given = {"samples": cog.clip()["samples"]}
    assert (
        relative(*(run(cog.host.VAEDecode, vae=each, samples=given)[0] for each in (vae, same_vae)))
        <= TOLERANCE
    )


def test_svd_saved_beside_a_text_encoder_that_is_not_its_own(bench, base, longer):
    """CheckpointSave asks for a CLIP, which SVD does not have: any will do, and stays out of the way."""
    from comfy_extras.nodes_model_merging import CheckpointSave

    clip = Workbench().shared()[1]
    name = saved(CheckpointSave, base, "SVD", "saved-odd", model=longer, clip=clip, vae=bench.svd()[2])
    assert "UNet with ExVideo" in report(bench, name)
    elsewhere = "SVD/tiny-svd.safetensors"
    assert bench.ours["SVDLoader"].validate_inputs(name, elsewhere, SVD_OWN) is True
