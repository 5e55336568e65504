"""Context Windows on AnimateDiff and on pictures of a ControlNet: clips of image models of the host."""

import pytest
import torch

from kinetograph.tests import motion_files
from kinetograph.tests.host import pictures
from kinetograph.tests.host.windowing import Watched, by_hand, cut, draw, predict, windows
from kinetograph.tests.host.workbench import Workbench, relative

PARTS = [list(range(start, start + 8)) for start in (0, 6, 10)]
PYRAMID = [[1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0]] * 3


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    bench = Workbench()
    motion_files.write(
        base / "models" / "animatediff_models" / "tiny-v1.safetensors", motion_files.CONFIGS["v1"]
    )
    return bench


@pytest.fixture(scope="module")
def moving(bench):
    """An SD1.5 with motion modules of v1, 24 positions."""
    from kinetograph.nodes.pipeline import motion

    settings = motion.Settings(1.0, motion.AS_TRAINED, motion.FROM_FILE, 0)
    # the caller keeps the picture model: a clone whose parent died has the host look for leaks
    model = pictures.build()
    return model, motion.apply(
        model, "animatediff_models/tiny-v1.safetensors", settings, "Motion Module Apply"
    )


@pytest.fixture(scope="module")
def told(bench):
    return dict(zip(("positive", "negative"), pictures.prompts(), strict=True))


def test_positions_begin_anew_in_every_window(bench, moving, told):
    """Each window is what the plain model makes of its frames; the second clip of a batch is as by itself."""
    model, noise = moving[1], draw(18, 4, 8, 8)
    cut_up = windows(bench, model, 8, overlap=2, fuse_method="pyramid")
    ours = predict(cut_up, noise, **told)
    theirs = by_hand(model, noise, PARTS, PYRAMID, 0, lambda window: told)
    assert relative(ours, theirs) < 2e-5
    assert relative(ours, predict(model, noise, **told)) > 1e-3
    latent = {"samples": torch.zeros(36, 4, 8, 8), "num_frames": 18}
    chosen = {"steps": 1, "cfg": 1.0, **told}
    whole = bench.sampler(cut_up, latent, **chosen)
    first = bench.sampler(cut_up, {"samples": latent["samples"][:18], "num_frames": 18}, **chosen)
    assert relative(whole[:18], first) < 1e-5 and relative(whole[18:], first) > 1e-2


@pytest.mark.newest
def test_a_prompt_for_each_frame(bench, moving, told):
    """As prompt schedules make them: rows of a conditioning are frames."""
    model, noise = moving[1], draw(18, 4, 8, 8)
    travel = [[draw(18, 5, pictures.CONTEXT, seed=3), {}]]
    ours = predict(windows(bench, model, 8, overlap=2), noise, positive=travel, negative=told["negative"])
    rows = cut(travel, tokens=0)

    def of_its_frames(window):
        return {"positive": rows(window), "negative": told["negative"]}

    assert relative(ours, by_hand(model, noise, PARTS, [[1.0] * 8] * 3, 0, of_its_frames)) < 2e-5


def test_the_module_must_be_there(bench, moving):
    with pytest.raises(ValueError, match="makes every frame alone.*Motion Module Apply"):
        windows(bench, moving[0], 8)


def test_longer_than_the_position_table(bench, moving):
    with pytest.raises(ValueError, match="at most 24 frames, and so are its windows: got length=25, use 24"):
        windows(bench, moving[1], 25)


class Hint(torch.nn.Module):
    """A network in place of a ControlNet's: it adds the brightness of the picture that it is shown, by channel."""

    dtype = torch.float32

    def forward(self, x, hint, timesteps, context, **_):
        brightness = hint.mean((1, 2, 3)).view(-1, 1, 1, 1)
        return {
            "input": [],
            "middle": [brightness * torch.linspace(-1, 1, 128).view(1, -1, 1, 1)],
            "output": [],
        }


def controlled(conds, hint):
    """The conditionings of ControlNetApplyAdvanced with a picture for each frame, two of them in a row."""
    import comfy.controlnet

    def chain(before=None):
        net = comfy.controlnet.ControlNet(Hint(), load_device=torch.device("cpu"), extra_conds=[])
        net.manual_cast_dtype = torch.float32
        net.set_cond_hint(hint, 30.0).set_previous_controlnet(before)
        return net

    control = chain(chain())
    made = {
        side: [[tokens, {**values, "control": control, "control_apply_to_uncond": False}]]
        for side, ((tokens, values),) in conds.items()
    }
    return made, control


@pytest.mark.newest
@pytest.mark.parametrize("count", [1, 18])
def test_pictures_of_a_controlnet(bench, moving, told, count):
    """Each window sees those of its frames; the host shows every window the first ones."""
    model, noise = moving[1], draw(18, 4, 8, 8)
    hint = torch.rand(count, 1, 1, 1, generator=torch.manual_seed(2)).expand(-1, 3, 64, 64)
    conds, control = controlled(told, hint)
    # as a run that was stopped leaves it
    control.cond_hint = control.previous_controlnet.cond_hint = torch.zeros(8, 3, 64, 64)
    watched = Watched(windows(bench, model, 8, overlap=2))
    ours = predict(watched.model, noise, **conds)

    def of_its_frames(window):
        return controlled(told, hint[window] if count > 1 else hint)[0]

    theirs = by_hand(model, noise, PARTS, [[1.0] * 8] * 3, 0, of_its_frames)
    assert relative(ours, theirs) < 2e-5
    assert relative(ours, predict(windows(bench, model, 8, overlap=2), noise, **told)) > 1e-3
    # what a clip's pictures were prepared to does not stay behind
    assert control.cond_hint is None and control.previous_controlnet.cond_hint is None


@pytest.mark.newest
def test_a_mask_of_a_prompt(bench, moving, told):
    """A mask over frames of a prompt, (frames, h, w), is cut like them."""
    mask = torch.rand(18, 8, 8, generator=torch.manual_seed(4))
    (more,), model = pictures.prompts(seed=9)[0], windows(bench, moving[1], 8, overlap=2)
    more[1].update({"mask": mask, "mask_strength": 1.0, "set_area_to_bounds": False})
    conds = {"positive": [*told["positive"], more], "negative": told["negative"]}
    noise = draw(18, 4, 8, 8)

    def of_its_frames(window):
        cut_mask = [more[0], {**more[1], "mask": mask[window]}]
        return {"positive": [*told["positive"], cut_mask], "negative": told["negative"]}

    theirs = by_hand(moving[1], noise, PARTS, [[1.0] * 8] * 3, 0, of_its_frames)
    assert relative(predict(model, noise, **conds), theirs) < 2e-5
