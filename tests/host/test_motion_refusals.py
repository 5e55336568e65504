"""What Motion Module Apply refuses, before anything long begins, and in which words."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.tests.host import pictures
from kinetograph.tests.host.motion_bench import FOLDER, MotionBench
from kinetograph.tests.host.workbench import SVD, SVDWorkbench, relative, run


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return MotionBench(base)


@pytest.fixture(scope="module")
def plain(bench):
    return pictures.build("small")


@pytest.fixture
def own_modules(bench, tmp_path, monkeypatch):
    """A folder with the bench's motion modules alone: other tests put more into the one that all share."""
    import folder_paths

    names = [Path(file).name for file in (*bench.files.values(), *bench.small.values())]
    for name in names:
        shutil.copyfile(bench.folder / name, tmp_path / name)
    kinds = folder_paths.folder_names_and_paths[FOLDER][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], kinds))
    return tmp_path


def copy(bench, version, name, change=dict):
    """Another file with the weights of a small one; its name for the node."""
    source = bench.folder.parent / bench.small[version]
    save_file(change(load_file(source)), bench.folder / name)
    return f"{FOLDER}/{name}"


def move(bench, model, file, **changes):
    told = {"beta_schedule": "as trained", "strength": 1.0, "version": "from the file", "num_frames": 0}
    return run(bench.ours["MotionModuleApply"], model=model, motion_module=file, **{**told, **changes})[0]


@pytest.mark.parametrize(
    ("kind", "file", "words", "fitting"),
    [
        (
            "SDXL",
            "v3",
            "AnimateDiff v3 for SD1.5, 2 blocks a level of 32, 64, 128, 128 channels",
            ["SDXL-beta"],
        ),
        ("SD15", "SDXL beta", "SDXL beta for SDXL", ["AnimateLCM", "v1", "v2", "v3"]),
        ("small", "v2", "the model is SD1.5 with 1 blocks a level of 32, 64 channels", None),
    ],
)
def test_a_module_for_another_base_names_those_that_fit(bench, own_modules, kind, file, words, fitting):
    with pytest.raises(ValueError) as caught:
        move(bench, pictures.build(kind), bench.files[file])
    assert words in str(caught.value)
    names = (
        [f"tiny-{name}" for name in fitting] if fitting else [f"small-{name}" for name in ("v1", "v2", "v3")]
    )
    named = str(caught.value).split("these fit: ")[1].removesuffix(".")
    assert sorted(named.split(", ")) == [f"{FOLDER}/{name}.safetensors" for name in names]


def test_of_many_that_fit_the_rest_is_counted(bench, own_modules, plain):
    for number in range(7):
        shutil.copyfile(own_modules / "tiny-v2.safetensors", own_modules / f"tiny-v2-{number}.safetensors")
    with pytest.raises(ValueError, match=r"these fit: (\S+, ){7}\S+ and 3 more\.$"):
        move(bench, pictures.build("SD15"), bench.files["SDXL beta"])


def test_where_none_fits_the_folder_is_named(bench):
    narrow = pictures.build("small", model_channels=64)
    with pytest.raises(ValueError, match=f"No file .* put a motion module for SD1.5 into models/{FOLDER}"):
        move(bench, narrow, bench.small["v3"])


def test_sd2_is_refused_by_name(bench):
    with pytest.raises(ValueError, match="motion module for SD1.5: the model is SD2"):
        move(bench, pictures.build("small", context_dim=1024), bench.small["v3"])


@pytest.mark.parametrize(("version", "rows"), [("v1", 24), ("v2", 32)])
def test_more_frames_than_positions_name_the_limit_and_the_way_out(bench, plain, version, rows):
    moving = bench.move(plain, version)
    assert bench.ksampler(moving, bench.empty(rows, size=16), steps=1).isfinite().all()
    for sampler in (bench.ksampler, bench.sampler):
        with pytest.raises(ValueError) as caught:
            sampler(moving, bench.empty(rows + 1), steps=1)
        assert f"positions for {rows} frames: got {rows + 1}. Make at most {rows}" in str(caught.value)
        assert "Context Windows" in str(caught.value)
    # of several clips it is one that counts
    several = bench.move(plain, version, num_frames=rows - 2)
    assert bench.ksampler(several, bench.empty(rows - 2, size=16, clips=2), steps=1).isfinite().all()


def test_a_short_clip_may_have_a_longer_window(bench, plain):
    """The host cuts nothing then."""
    from comfy import context_windows as windows

    moving = bench.move(plain, "v1")
    expected = bench.ksampler(moving, bench.empty(), steps=1)
    windowed = moving.clone()
    windowed.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule(windows.ContextSchedules.STATIC_STANDARD),
        fuse_method=windows.get_matching_fuse_method(windows.ContextFuseMethods.PYRAMID),
        context_length=64,
        context_overlap=4,
        dim=0,
    )
    assert torch.equal(bench.ksampler(windowed, bench.empty(), steps=1), expected)


def test_one_motion_module_a_model(bench, plain):
    with pytest.raises(ValueError, match="has motion modules already: use one Motion Module Apply a model"):
        bench.move(bench.move(plain), "v3")


def test_video_models_are_refused(bench, comfy_here):
    import comfy.model_patcher
    import comfy.supported_models

    svd = SVDWorkbench()
    native = comfy.supported_models.SVD_img2vid(
        {
            **pictures.SMALL,
            **{"in_channels": 8, "use_temporal_attention": True, "use_temporal_resblock": True},
            **{"use_linear_in_transformer": True, "adm_in_channels": 768, "num_classes": "sequential"},
            **{"video_kernel_size": [3, 1, 1], "extra_ff_mix_layer": True, "merge_strategy": "learned"},
        }
    )
    native.unet_config["dtype"] = torch.float32
    made = comfy.model_patcher.ModelPatcher(native.get_model({}, device="cpu"), *[torch.device("cpu")] * 2)
    # a transformer of another kind than any UNet, ours, and the host's own
    for model in (bench.load()[0], svd.svd(SVD)[0], made):
        with pytest.raises(ValueError, match="image models SD1.5 and SDXL: got .* Load Checkpoint"):
            move(bench, model, bench.small["v2"])


def test_noise_without_steps_keeps_its_own(bench):
    """CosXL and its kin: an SDXL whose levels are continuous."""
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM

    told = {"sampling": "v_prediction", "sigma_max": 120.0, "sigma_min": 0.002}
    model = run(ModelSamplingContinuousEDM, model=pictures.build("SDXL"), **told)[0]
    with pytest.raises(ValueError, match="noise levels without steps.*set beta_schedule to 'use existing'"):
        move(bench, model, bench.files["SDXL beta"])
    moving = move(bench, model, bench.files["SDXL beta"], beta_schedule="use existing")
    sampling = moving.get_model_object("model_sampling")
    assert sampling is model.get_model_object("model_sampling")


def test_the_way_of_prediction_stays_that_of_the_model(bench):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    model = run(ModelSamplingDiscrete, model=pictures.build("small"), sampling="v_prediction", zsnr=False)[0]
    noise = bench.move(model).get_model_object("model_sampling").noise
    assert (noise.prediction, noise.beta_end, noise.kind) == ("v", 0.012, "linear")


def test_a_version_against_the_keys_is_refused_at_the_post(bench):
    node = bench.ours["MotionModuleApply"]
    assert node.validate_inputs(bench.small["v2"], "from the file") is True
    for file, version, words in [
        ("v2", "v1", "has a module in the middle"),
        ("v3", "AnimateLCM", "has no module in the middle"),
        ("v3", "SDXL beta", "has 2 levels"),
    ]:
        said = node.validate_inputs(bench.small[file], version)
        assert f"{file}.safetensors is no {version} motion module" in said and words in said


def test_a_file_without_positions_must_be_named(bench, plain):
    def bare(tensors):
        return {key: value for key, value in tensors.items() if not key.endswith(".pe")}

    node, file = bench.ours["MotionModuleApply"], copy(bench, "v3", "bare.safetensors", bare)
    assert "could be a motion module of v1 or of v3" in node.validate_inputs(file, "from the file")
    made = {
        name: bench.ksampler(move(bench, plain, file, version=name), bench.empty(), steps=1)
        for name in ("v1", "v3")
    }
    # its positions are the sinusoids that a v3 holds, and its norms those that were named
    assert relative(made["v3"], bench.ksampler(bench.move(plain, "v3"), bench.empty(), steps=1)) <= 1e-5
    assert relative(made["v1"], made["v3"]) > 1e-3
    os.remove(bench.folder / "bare.safetensors")


def test_a_file_that_was_rewritten_is_not_sampled_with(bench, plain):
    file = copy(bench, "v3", "rewritten.safetensors")
    moving = move(bench, plain, file)
    before = bench.ours["MotionModuleApply"].fingerprint_inputs(motion_module=file)
    expected = bench.ksampler(moving, bench.empty(), steps=1)
    path = bench.folder / "rewritten.safetensors"
    content = path.read_bytes()
    with path.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\0\0\0\1")
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match="rewritten.safetensors"):
        bench.ksampler(moving, bench.empty(), steps=1)
    assert bench.ours["MotionModuleApply"].fingerprint_inputs(motion_module=file) != before
    path.write_bytes(content)
    assert torch.equal(bench.ksampler(move(bench, plain, file), bench.empty(), steps=1), expected)
    os.remove(path)


def test_an_odd_file_is_refused_at_the_post(bench):
    node = bench.ours["MotionModuleApply"]
    cut = copy(bench, "v3", "cut.safetensors", lambda tensors: dict([*tensors.items()][1:]))
    assert "1 missing" in node.validate_inputs(cut, "from the file")
    shutil.copy(bench.folder.parent / SVD, bench.folder / "svd.safetensors")
    assert "use SVD Loader" in node.validate_inputs(f"{FOLDER}/svd.safetensors", "from the file")
    for name in ("cut", "svd"):
        os.remove(bench.folder / f"{name}.safetensors")
