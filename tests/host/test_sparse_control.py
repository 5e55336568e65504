"""SparseCtrl Loader with the host's own Apply ControlNet: what reaches the UNet against diffusers' SparseControlNetModel."""

import pytest
import torch

from kinetograph.tests import motion_files, sparse_files
from kinetograph.tests.host import pictures
from kinetograph.tests.host.windowing import windows
from kinetograph.tests.host.workbench import Workbench, relative, run

FRAMES, SIZE = 3, 64
FOLDER = "controlnet"
SPELLINGS = {"original": sparse_files.original, "diffusers": str}


class SparseBench(Workbench):
    """A tiny SD1.5 with tiny v3 motion, a tiny VAE, and SparseCtrl files of both kinds."""

    def __init__(self, base):
        super().__init__()
        self.folder = base / "models" / FOLDER
        for condition in sparse_files.CONDITIONS:
            sparse_files.write(self.folder / f"tiny-{condition}.safetensors", condition)
        motion = base / "models" / "animatediff_models" / "tiny-sparse-v3.safetensors"
        motion_files.write(motion, motion_files.CONFIGS["v3"])
        self.plain = pictures.build()
        self.model = self.move(self.plain)
        self.vae = tiny_vae()

    def move(self, model, **changes):
        chosen = {
            "motion_module": "animatediff_models/tiny-sparse-v3.safetensors",
            "beta_schedule": "as trained",
        }
        chosen |= {"strength": 1.0, "version": "from the file", "num_frames": 0, **changes}
        return run(self.ours["MotionModuleApply"], model=model, **chosen)[0]

    def control(self, condition="rgb", key_frames="0, -1", file=None):
        """The CONTROL_NET of a file."""
        loader = self.ours["SparseCtrlLoader"]
        file = file or f"tiny-{condition}.safetensors"
        assert loader.validate_inputs(file, key_frames) is True
        return run(loader, sparsectrl=file, key_frames=key_frames)[0]

    def apply(self, control, images=None, strength=1.0, start=0.0, end=1.0, conds=None, **changes):
        """(positive, negative) of the host's Apply ControlNet."""
        positive, negative = conds or pictures.prompts()
        told = {"strength": strength, "start_percent": start, "end_percent": end, "vae": self.vae, **changes}
        images = key_pictures() if images is None else images
        chosen = {"control_net": control, "image": images, "positive": positive, "negative": negative}
        return run(self.host.ControlNetApplyAdvanced, **chosen, **told)

    def sample(self, conds, model=None, frames=FRAMES, count=None, **changes):
        """(latents, the calls of the UNet) of KSampler."""
        seen = Calls(self.model if model is None else model)
        latent = {"samples": torch.zeros(count or frames, 4, SIZE // 8, SIZE // 8)}
        told = {"positive": conds[0], "negative": conds[1], "steps": 1, "scheduler": "simple", **changes}
        return self.ksampler(seen.model, latent, **told), seen.calls


class Calls:
    """Records what goes into the UNet of a MODEL; `model` is the clone to sample with."""

    def __init__(self, model):
        from comfy.patcher_extension import WrappersMP

        self.calls, self.model = [], model.clone()
        self.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_calls", self)

    def __call__(self, executor, x, timestep, context=None, y=None, control=None, options=None, **kwargs):
        window = options.get("context_window")
        kept = None if control is None else {name: [*parts] for name, parts in control.items()}
        call = {
            "x": x,
            "timestep": timestep,
            "context": context,
            "control": kept,
            "groups": options["cond_or_uncond"],
        }
        self.calls.append({**call, "frames": None if window is None else [*window.index_list]})
        return executor(x, timestep, context, y, control, options, **kwargs)


def tiny_vae():
    """A VAE of the host that makes latents of 4 channels, at an eighth of a picture's sides."""
    import comfy.sd
    import comfy.taesd.taesd

    made = comfy.taesd.taesd.TAESD()
    for half in (made.taesd_encoder, made.taesd_decoder):
        motion_files.randomise(half, 4)
    return comfy.sd.VAE(sd=made.state_dict())


def key_pictures(count=2, side=SIZE, seed=2):
    """(count, side, side, 3) in 0..1."""
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(seed))


def expected(bench, call, condition, images, places, frames=FRAMES, seed=0):
    """{"middle": [...], "output": [...]} of diffusers for a call: key frames of `images` at `places` of every clip."""
    made = sparse_files.per_frame(sparse_files.reference(condition, seed))
    clips = len(call["x"]) // frames
    if condition == "rgb":
        cells = run(bench.host.VAEEncode, vae=bench.vae, pixels=images)[0]["samples"] * 0.18215
    else:
        cells = images.movedim(-1, 1)
    hint_ncfhw = torch.zeros(clips, cells.shape[1], frames, *cells.shape[2:])
    mask_n1fhw = torch.zeros(clips, 1, frames, *cells.shape[2:])
    for picture, place in zip(cells, places, strict=True):
        if place is not None:
            hint_ncfhw[:, :, place], mask_n1fhw[:, :, place] = picture, 1
    with torch.no_grad():
        down, mid = made(
            call["x"].unflatten(0, (clips, frames)).transpose(1, 2),
            call["timestep"][::frames],
            call["context"],
            hint_ncfhw,
            conditioning_mask=mask_n1fhw,
            return_dict=False,
        )
    return {"output": down, "middle": [mid]}


def apart(control, reference):
    """The largest relative difference of any part."""
    assert [*map(len, (control["output"], control["middle"]))] == [
        *map(len, (reference["output"], reference["middle"]))
    ]
    pairs = (
        pair for name in ("output", "middle") for pair in zip(control[name], reference[name], strict=True)
    )
    return max(relative(*pair) for pair in pairs)


@pytest.fixture(autouse=True)
def nothing_loaded(comfy_here):
    """The host hands a ControlNet with a VAE the models of earlier tests again, also those that are gone."""
    comfy_here.model_management.unload_all_models()


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return SparseBench(base)


@pytest.mark.parametrize("condition", sparse_files.CONDITIONS)
def test_what_the_unet_gets_is_diffusers(bench, condition):
    """A prompt and a negative one in one batch, key frames at both ends: 2.1e-6 and 1.1e-6."""
    latents, (call,) = bench.sample(bench.apply(bench.control(condition)))
    assert len(call["groups"]) == 2 and len(call["x"]) == 2 * FRAMES
    reference = expected(bench, call, condition, key_pictures(), (0, FRAMES - 1))
    assert apart(call["control"], reference) <= 1e-5
    assert relative(latents, bench.sample(pictures.prompts())[0]) > 1e-2


@pytest.mark.newest
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_files_of_other_names_are_the_same(bench, spelling):
    for condition in sparse_files.CONDITIONS:
        path = bench.folder / f"tiny-{condition}-{spelling}.safetensors"
        sparse_files.write(path, condition, name=SPELLINGS[spelling])
        ours, theirs = (bench.control(condition, file=file).control_model for file in (path.name, None))
        pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        assert (
            all(torch.equal(*pair) for pair in pairs)
            and ours.state_dict().keys() == theirs.state_dict().keys()
        )


def test_clips_of_a_batch_have_the_key_frames_each(bench):
    model = bench.move(bench.plain, num_frames=FRAMES)
    conds = bench.apply(bench.control("scribble", "-2"), key_pictures(1))
    _, (call,) = bench.sample(conds, model, count=2 * FRAMES)
    reference = expected(bench, call, "scribble", key_pictures(1), (FRAMES - 2,))
    assert len(call["x"]) == 4 * FRAMES and apart(call["control"], reference) <= 1e-5
    # as one clip its key frame is another one
    _, (call,) = bench.sample(conds, count=2 * FRAMES)
    reference = expected(bench, call, "scribble", key_pictures(1), (2 * FRAMES - 2,), 2 * FRAMES)
    assert apart(call["control"], reference) <= 1e-5


@pytest.mark.parametrize("frame_before", [False, True])
def test_a_context_window_has_its_own_frames_alone(bench, frame_before):
    """Frames 1, 6 and the last of 8 in windows of 4; 0.30 may put the frame before a window in front of it."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    chosen = {
        "context_length": 4,
        "context_overlap": 1,
        "context_schedule": "standard_static",
        "context_stride": 1,
    }
    chosen |= {"closed_loop": False, "fuse_method": "pyramid", "dim": 0, "freenoise": False}
    model = run(ContextWindowsManualNode, model=bench.model, causal_window_fix=frame_before, **chosen)[0]
    conds = bench.apply(bench.control("scribble", "1, 6, -1"), key_pictures(3))
    _, calls = bench.sample(conds, model, frames=8)
    assert [call["frames"] for call in calls] == [[0, 1, 2, 3], [3, 4, 5, 6], [4, 5, 6, 7]]
    for call in calls:
        count = len(call["x"]) // 2
        there = [*range(call["frames"][0] + 4 - count, call["frames"][0]), *call["frames"]]
        places = [there.index(frame) if frame in there else None for frame in (1, 6, 7)]
        reference = expected(bench, call, "scribble", key_pictures(3), places, count)
        assert apart(call["control"], reference) <= 1e-5


def test_windows_of_several_clips_have_the_key_frames_each(bench):
    """Context Windows of this pack: key frames are those of a clip, wherever it lies in the batch."""
    model = windows(bench, bench.move(bench.plain, num_frames=8), 4, overlap=1)
    conds = bench.apply(bench.control("scribble", "1, 6, -1"), key_pictures(3))
    _, calls = bench.sample(conds, model, count=16)
    clip = [[0, 1, 2, 3], [3, 4, 5, 6], [4, 5, 6, 7]]
    assert [call["frames"] for call in calls] == [*clip, *[[frame + 8 for frame in part] for part in clip]]
    for call, there in zip(calls, clip + clip, strict=True):
        places = [there.index(frame) if frame in there else None for frame in (1, 6, 7)]
        reference = expected(bench, call, "scribble", key_pictures(3), places, 4)
        assert apart(call["control"], reference) <= 1e-5


def test_strength_and_the_share_of_the_steps_are_apply_controlnets(bench):
    whole, half = (
        bench.sample(bench.apply(bench.control(), strength=strength))[1][0] for strength in (1.0, 0.5)
    )
    pairs = zip(whole["control"]["output"], half["control"]["output"], strict=True)
    assert all(relative(b * 2, a) <= 1e-6 for a, b in pairs)
    late, early = {"start": 0.3}, {"end": 0.3}
    for share, acts in ((late, [False, True]), (early, [True, False])):
        _, calls = bench.sample(bench.apply(bench.control(), **share), steps=2)
        assert [call["control"] is not None for call in calls] == acts


def test_one_behind_another_adds_up(bench):
    first = bench.apply(bench.control("rgb", "0"), key_pictures(1))
    both = bench.apply(bench.control("scribble", "2"), key_pictures(1, seed=5), conds=first)
    _, (call,) = bench.sample(both)
    rgb = expected(bench, call, "rgb", key_pictures(1), (0,))
    scribble = expected(bench, call, "scribble", key_pictures(1, seed=5), (2,))
    added = {name: [a + b for a, b in zip(rgb[name], scribble[name], strict=True)] for name in rgb}
    assert apart(call["control"], added) <= 1e-5


@pytest.mark.newest
def test_pictures_of_another_size_cover_the_clip(bench):
    wide, fitted = key_pictures(1).repeat(1, 1, 2, 1), key_pictures(1).roll(SIZE // 2, 2)
    seen = [
        bench.sample(bench.apply(bench.control("scribble", "0"), images))[1][0] for images in (wide, fitted)
    ]
    assert apart(*(call["control"] for call in seen)) == 0.0


def test_copies_and_runs_in_turn_are_the_same_bit_for_bit(bench):
    conds = bench.apply(bench.control())
    with_it, without, again = (bench.sample(each)[0] for each in (conds, pictures.prompts(), conds))
    assert torch.equal(with_it, again) and not torch.equal(with_it, without)
    # of one with its pictures; 0.30: for a second card
    made = conds[0][0][1]["control"]
    deep = getattr(made, "deepclone_multigpu", lambda device: made.copy())(torch.device("cpu"))
    assert deep is not made and deep.control_model_wrapped.model is deep.control_model
    copied = [[[text, {**told, "control": deep}] for text, told in entry] for entry in conds]
    assert torch.equal(bench.sample(copied)[0], with_it)


def test_nothing_is_kept_after_a_run(bench):
    import comfy.model_management

    conds = bench.apply(bench.control())
    made = conds[0][0][1]["control"]
    assert made.get_models() == [made.control_model_wrapped]
    bench.sample(conds)
    loaded = [each.model for each in comfy.model_management.current_loaded_models]
    assert made.control_model_wrapped in loaded
    assert [made._frames, made.cond_hint, made.timestep_range] == [None] * 3
    comfy.model_management.unload_all_models()
    assert made.control_model_wrapped not in [
        each.model for each in comfy.model_management.current_loaded_models
    ]


def test_its_network_is_the_hosts_of_the_published_size(bench):
    """Of a whole file: keys and shapes, on the meta device."""
    import comfy.ops

    from kinetograph.modules.families import SPARSE
    from kinetograph.nodes.host.sparse_control import SparseNetwork

    for config in SPARSE.part.published:
        made = SparseNetwork(SPARSE, config, comfy.ops.disable_weight_init, torch.float32, "meta")
        assert {key: tuple(value.shape) for key, value in made.state_dict().items()} == SPARSE.part.shapes(
            config
        )


REFUSED = {
    "2 key frames \\(0, -1\\), Apply ControlNet got 3 pictures": {"images": 3},
    "connect the VAE of the SD1.5 model to the vae socket": {"vae": None},
}


@pytest.mark.parametrize("words", REFUSED)
def test_pictures_that_do_not_fit_are_refused_by_apply_controlnet(bench, words):
    told = dict(REFUSED[words])
    with pytest.raises(ValueError, match=words):
        bench.apply(bench.control(), key_pictures(told.pop("images", 2)), **told)


def test_a_vae_of_other_latents_is_refused(bench):
    with pytest.raises(ValueError, match="makes 16 channels on 3 axes. Connect the VAE of the SD1.5 model"):
        bench.apply(bench.control(), vae=bench.shared("5B")[2])
    bench.apply(bench.control("scribble"), vae=bench.shared("5B")[2])


@pytest.mark.parametrize(
    ("key_frames", "frames", "words"),
    [
        ("0, 5", 5, "The clip has 5 frames, 0 to 4 .* got frame 5"),
        ("0, -5", 5, "frame 0 is named twice"),
        ("0, -1", 33, "has positions for 32 frames: got 33. Make at most 32, or put Context Windows"),
    ],
)
def test_clips_that_do_not_fit_are_refused_before_the_first_step(bench, key_frames, frames, words):
    seen = Calls(bench.plain)
    conds = bench.apply(bench.control("scribble", key_frames))
    with pytest.raises(ValueError, match=words):
        bench.sample(conds, seen.model, frames=frames)
    assert seen.calls == []


def test_models_of_other_kinds_are_refused_before_the_first_step(bench):
    conds = bench.apply(bench.control())
    with pytest.raises(
        ValueError, match="tiny-rgb.safetensors is SparseCtrl rgb for SD1.5: the model is SDXL"
    ):
        bench.sample(conds, pictures.build("SDXL"))
    wide = pictures.build("SD15", model_channels=64)
    with pytest.raises(ValueError, match="the model is SD1.5 of other sizes"):
        bench.sample(conds, wide)


@pytest.mark.newest
def test_a_file_that_was_rewritten_is_refused(bench):
    path = sparse_files.write(bench.folder / "rewritten.safetensors", "scribble")
    conds = bench.apply(bench.control(file=path.name), vae=None)
    path.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="rewritten.safetensors was rewritten while the model was loaded"):
        bench.sample(conds)


@pytest.mark.newest
def test_wrong_files_are_told_with_the_node_that_takes_them(bench):
    loader = bench.ours["SparseCtrlLoader"]
    motion = "animatediff_models/tiny-sparse-v3.safetensors"
    assert loader.validate_inputs(motion, "0").endswith(
        "no AnimateDiff sparse control: use Motion Module Apply."
    )
    other = bench.ours["MotionModuleApply"].validate_inputs("tiny-rgb.safetensors", "from the file")
    assert other.endswith(
        "is AnimateDiff SparseCtrl rgb, no AnimateDiff motion module: use SparseCtrl Loader."
    )

    def still(key):
        return None if "motion_modules" in key else key

    names = {"ordinary": still, "original": lambda key: still(key) and "control_model.zero_convs." + key}
    for kind, name in names.items():
        path = bench.folder / f"tiny-{kind}-controlnet.safetensors"
        sparse_files.write(path, "scribble", name=name)
        problem = loader.validate_inputs(path.name, "0")
        assert problem.startswith(f"{path.name} is a ControlNet for pictures"), problem
        assert "Load ControlNet Model" in problem
    assert "whole numbers" in loader.validate_inputs("tiny-rgb.safetensors", "0, first")
    with pytest.raises(ValueError, match="names a frame twice"):
        bench.control(key_frames="1, 1")
