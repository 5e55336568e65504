"""SparseCtrl Loader with the host's own Apply ControlNet: what reaches the UNet against diffusers' SparseControlNetModel."""

import pytest
import torch

from kinetograph.tests import motion_files, sparse_files
from kinetograph.tests.host import pictures
from kinetograph.tests.host.workbench import Workbench, relative, run

FRAMES, SIZE = 5, 64
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
        chosen = {"motion_module": "animatediff_models/tiny-sparse-v3.safetensors", "beta_schedule": "as trained"}
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
        call = {"x": x, "timestep": timestep, "context": context, "control": kept, "groups": options["cond_or_uncond"]}
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
    assert [*map(len, (control["output"], control["middle"]))] == [*map(len, (reference["output"], reference["middle"]))]
    pairs = (pair for name in ("output", "middle") for pair in zip(control[name], reference[name], strict=True))
    return max(relative(*pair) for pair in pairs)


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return SparseBench(base)


@pytest.mark.parametrize("condition", sparse_files.CONDITIONS)
def test_what_the_unet_gets_is_diffusers(bench, condition):
    """A prompt and a negative one in one batch, key frames at both ends."""
    conds = bench.apply(bench.control(condition))
    _, (call,) = bench.sample(conds)
    assert len(call["groups"]) == 2 and len(call["x"]) == 2 * FRAMES
    reference = expected(bench, call, condition, key_pictures(), (0, FRAMES - 1))
    difference = apart(call["control"], reference)
    print(condition, difference, [float(x.std()) for x in reference["output"]])
    assert difference <= 1e-5
