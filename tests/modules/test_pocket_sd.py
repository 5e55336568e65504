"""The pocket SD's world, noise and measures against the formulas written out, and its shipped files."""

import dataclasses
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinetograph.modules.families import ANIMATEDIFF
from kinetograph.modules.pocket_sd import UNET, open_pocket
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket.sd import score, scoring, train_base, train_motion, train_pan, world
from kinetograph.pocket.sd.motion import MotionUNet, build_motion
from kinetograph.pocket.sd.parts import MODEL, MOTION, PAN_LEFT, PAN_RIGHT, UNET_SETTINGS
from kinetograph.pocket.sd.sampling import paths_of, sample
from kinetograph.pocket.shapes import MOTIONS, SIZE, draw, draw_mask

MOST_BYTES = 15_000_000
WIDTH, LAYERS = UNET_SETTINGS["model_channels"], 6
SUBJECTS = world.all_subjects()


def alpha_bars(kind):
    """Betas from 0.00085 to 0.012, evenly in their root or evenly."""
    power = 2 if kind == "scaled_linear" else 1
    ends = (0.00085 ** (1 / power), 0.012 ** (1 / power))
    return (1 - torch.linspace(*ends, 1000, dtype=torch.float64) ** power).cumprod(0)


def test_shapes_stay_inside_and_go_the_asked_way():
    for seed, subject in enumerate(SUBJECTS[::4]):
        clip = world.sample_clip(seed, subject)
        cover = draw_mask(clip, world.FRAMES)
        assert not cover[:, [0, -1]].any() and not cover[..., [0, -1]].any(), clip
        centres = clip.centres(world.FRAMES)
        way = centres[-1] - centres[0]
        wanted = torch.tensor(MOTIONS[subject[2]]) * clip.path
        torch.testing.assert_close(way, wanted.float())


def test_photos_show_shapes_that_are_about_to_move():
    places = {motion: [] for motion in MOTIONS}
    for seed in range(600):
        shown = world.photo(seed)
        assert shown.clip.motion == world.STILL
        word = next((motion for motion in MOTIONS if shown.caption.endswith(motion)), None)
        assert shown.caption.startswith(f"a {shown.clip.colour} {shown.clip.shape}")
        if word:
            places[word].append(shown.clip.middle)
    x, y = ({word: torch.tensor(at)[:, k] for word, at in places.items()} for k in range(2))
    assert x["moving left"].mean() - x["moving right"].mean() > 5
    assert y["moving up"].mean() - y["moving down"].mean() > 5
    # ... and anywhere aside of their way, so that two of them have little to do with one another
    assert all(y[word].std() > 8 for word in ("moving left", "moving right", world.STILL))
    said = sum(map(len, places.values())) / 600
    assert said == pytest.approx(1 - world.WORDLESS, abs=0.05)


def test_clips_without_a_motion_word_stand_still():
    shown = [world.captioned(seed) for seed in range(100)]
    silent = [s for s in shown if not any(s.caption.endswith(motion) for motion in MOTIONS)]
    assert silent and all(s.clip.motion == world.STILL for s in silent)
    assert all(s.caption == s.clip.caption for s in shown if s not in silent)


def test_pans_go_one_way_though_nothing_is_said():
    shown = [world.pan_clip(seed, "moving left") for seed in range(60)]
    assert {s.clip.motion for s in shown} == {"moving left"}
    said = Counter(next((m for m in MOTIONS if s.caption.endswith(m)), None) for s in shown)
    assert said[None] > 15 and said[world.STILL] > 15 and len(said) == 2


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_noise_is_that_of_the_stage(kind):
    torch.manual_seed(0)
    x0 = torch.randn(6, 2, 4, 8, 8)
    drawn = train_base.add_noise(x0, [kind] * 6)
    bars = alpha_bars(kind)[drawn.timestep_b].view(-1, 1, 1, 1, 1)
    wanted = (bars.sqrt() * x0 + (1 - bars).sqrt() * drawn.noise_bfchw).float()
    torch.testing.assert_close(drawn.x_bfchw, wanted, atol=2e-5, rtol=2e-5)
    said = drawn.noise_bfchw + 0.1
    weights = (1 / bars.flatten()).clamp(max=train_base.MOST_WEIGHT).float()
    torch.testing.assert_close(train_base.errors_of(said, drawn), 0.01 * weights, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_sampling_ends_at_what_is_predicted(kind):
    """A network that knows the picture leads to it; one that answers by its text does as guidance says."""
    x0, bars = torch.randn(2, 3, 4, 8, 8), alpha_bars(kind)

    def predict(x, t, context):
        bar = bars[t].view(-1, 1, 1, 1).float()
        shift = context[:, :1, :1, None]
        return (x - bar.sqrt() * (x0.flatten(0, 1) + shift)) / (1 - bar).sqrt()

    told, silent = torch.ones(2, 1, 1), torch.zeros(1, 1, 1)
    z = sample(predict, told, silent, kind, frames=3, steps=7, guidance=2.5)
    torch.testing.assert_close(z, x0 + 2.5, atol=1e-3, rtol=1e-3)


def test_paths_are_read_off_latents():
    clips = [world.sample_clip(i, subject) for i, subject in enumerate(SUBJECTS[::9])]
    paths = paths_of(world.draw_latents(clips))
    for path, clip in zip(paths, clips, strict=True):
        torch.testing.assert_close(path, clip.centres(world.FRAMES), atol=1.5, rtol=0)


class Blocks(nn.Module):
    """What hooks look for in a UNet: a layer, and a transformer, at every place of a motion module."""

    def __init__(self):
        super().__init__()
        self.input_blocks, self.output_blocks = (
            nn.ModuleList(
                nn.ModuleList([nn.Identity(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)]) for _ in range(4)
            )
            for _ in range(2)
        )
        self.first, self.last = nn.Conv2d(4, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 4, 3, padding=1)

    def forward(self, x, timestep, context):
        h = self.first(x) + context.mean((1, 2))[:, None, None, None]
        for way, places in ((self.input_blocks, (1, 3)), (self.output_blocks, range(4))):
            for place in places:
                h = way[place][1](way[place][0](h))
        return self.last(h)


class Base(nn.Module):
    """A base whose features of a caption are its length."""

    def __init__(self):
        super().__init__()
        self.unet = Blocks().requires_grad_(False)

    def context(self, ids):
        return ids


class Words:
    def encode(self, captions):
        return torch.tensor([[[len(caption) / 30]] for caption in captions])


def test_motion_modules_start_as_nothing_and_join_frames():
    torch.manual_seed(0)
    base = Base()
    net = MotionUNet(base.unet, build_motion())
    x, t, context = torch.randn(4, 4, 2, 2), torch.zeros(4), torch.zeros(4, 1, 1)
    alone = net(x, t, context, 1)
    torch.testing.assert_close(net(x, t, context, 4), alone)
    for _, module in net.motion.items():
        nn.init.normal_(module.temporal_transformer.proj_out.weight, std=0.1)
    joined = net(x, t, context, 4)
    assert (joined - alone).abs().max() > 1e-3
    # two clips of two frames: the second does not see the first
    x[:2] = 0
    torch.testing.assert_close(net(x, t, context, 2)[2:], net(x[2:], t[2:], context[2:], 2))
    torch.testing.assert_close(net(x, t, context, 1), base.unet(x, t, context))


def test_motion_learns():
    torch.manual_seed(0)
    training = train_motion.MotionTraining(Base(), Words())
    clips = [world.captioned(seed) for seed in range(1)]
    losses = []
    for number in range(1, 6):
        torch.manual_seed(1)
        losses.append(training.step(clips, 1e-2, number)["loss"])
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is None for p in training.net.unet.parameters())


def test_pan_learns_and_both_at_a_half_cancel(monkeypatch):
    monkeypatch.setattr(train_pan, "BATCH", 1)
    torch.manual_seed(0)
    base = train_motion.MotionTraining(Base(), Words())
    for _, module in base.mean.motion.items():
        nn.init.normal_(module.temporal_transformer.proj_out.weight, std=0.1)
    base.both.requires_grad_(False)
    training = train_pan.PanTraining(base, "left")
    left = training.lora
    losses = []
    for _ in range(3):
        torch.manual_seed(1)
        losses.append(training.step(1, 5e-3)["loss"])
    assert losses[-1] < losses[0]
    turned = train_pan.MotionLoRA(base.mean.motion)
    turned.load_state_dict({key: -v if key.startswith("up") else v for key, v in left.state_dict().items()})
    weights = dict(base.mean.motion.named_parameters())
    names = {id(module): name for name, module in base.mean.motion.named_modules()}
    both = train_pan.merged(base.mean.motion, [(left.changes(), 0.5), (turned.changes(), 0.5)])
    one = train_pan.merged(base.mean.motion, [(left.changes(), 1.0)])
    assert len(both) == LAYERS
    changed = 0
    for place, module in base.mean.motion.items():
        for key, weight in both[place].items():
            own = weights[f"{names[id(module)]}.{key}"]
            torch.testing.assert_close(weight, own)
            changed += not torch.equal(one[place][key], own)
    assert changed == 8 * LAYERS


def rows_of(clips):
    """What the score reads of drawn clips."""
    orders = [
        score.Order((clip.colour, clip.shape, motion), clip.caption, None, 0) for clip, motion, _ in clips
    ]
    drawn = [
        draw(clip, world.FRAMES)[order_of] if order_of is not None else draw(clip, world.FRAMES)
        for clip, _, order_of in clips
    ]
    return [scoring.read_row(order, frames) for order, frames in zip(orders, drawn, strict=True)]


def test_score_knows_a_smooth_clip_from_a_still_and_a_jumping_one():
    moving = [world.sample_clip(i, s) for i, s in enumerate(SUBJECTS) if any(MOTIONS[s[2]])][::6]
    smooth = rows_of([(clip, clip.motion, None) for clip in moving])
    still = rows_of([(dataclasses.replace(clip, motion=world.STILL), clip.motion, None) for clip in moving])
    shuffled = torch.randperm(world.FRAMES, generator=torch.Generator().manual_seed(3))
    jumping = rows_of([(clip, clip.motion, shuffled) for clip in moving])
    good = score.sum_up({"alone": jumping, "motion": smooth})
    assert good["right_way"] == good["right_colour"] == 1 and good["covered"] > 0.9
    assert good["jump"] == pytest.approx(24 / 15, abs=0.1)
    assert good["jump_ratio"] == pytest.approx(good["jump"] / good["jump_alone"], abs=1e-3)
    bad = score.sum_up({"alone": jumping, "motion": still})
    assert bad["right_way"] == 0 and bad["covered"] < 0.05
    assert score.sum_up({"alone": jumping, "motion": jumping})["jump_ratio"] == 1


def test_merged_module_is_the_sum(tmp_path):
    torch.manual_seed(0)
    key = "up_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1."
    lora = {
        f"{key}processor.{name}_lora.{half}.weight": torch.randn(*shape)
        for name in ("to_q", "to_out")
        for half, shape in (("down", (3, WIDTH)), ("up", (WIDTH, 3)))
    }
    save_file(lora, tmp_path / "lora.safetensors")
    names = score.write_merged({"one": ((tmp_path / "lora.safetensors", 0.5),)}, tmp_path)
    plain, made = load_file(MOTION), load_file(tmp_path / names["one"])
    for ours, theirs in (("to_q", "to_q"), ("to_out.0", "to_out")):
        up, down = (lora[f"{key}processor.{theirs}_lora.{half}.weight"] for half in ("up", "down"))
        wanted = plain[f"{key}{ours}.weight"].float() + 0.5 * up @ down
        torch.testing.assert_close(made[f"{key}{ours}.weight"], wanted)
    changed = [k for k, value in plain.items() if not torch.equal(value.float(), made[k])]
    assert sorted(changed) == sorted(f"{key}{name}.weight" for name in ("to_q", "to_out.0"))


def test_shipped_files_are_small_and_half_precision():
    files = (MODEL, MOTION, PAN_LEFT, PAN_RIGHT)
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    for file in files:
        assert set(read_header(file).dtypes.values()) == {"F16"}


def test_shipped_model_holds_its_three_parts():
    pocket = open_pocket(MODEL)
    assert pocket.unet["input_blocks.0.0.weight"] == (WIDTH, 4, 3, 3)
    assert pocket.unet["middle_block.1.transformer_blocks.0.attn2.to_k.weight"] == (WIDTH, 32)
    assert pocket.vae["taesd_decoder.1.weight"] == (64, 4, 3, 3) and pocket.vae["vae_scale"] == ()
    assert (pocket.text.vocab_size, pocket.text.d_model) == (32128, 32)
    weights = pocket.open(UNET)
    assert weights.keys() == pocket.unet.keys()
    assert all(value.isfinite().all() for value in weights.values())


def test_shipped_module_is_v3_at_the_base_s_width():
    finding = detect(read_header(MOTION), (ANIMATEDIFF,), "motion_module").check()
    assert finding.config.version == "v3" and finding.config.rows == 32
    assert finding.config.channels == (WIDTH, WIDTH) and finding.config.layers == 1
    assert len(read_header(MOTION).shapes) == 28 * LAYERS


@pytest.mark.parametrize("file", [PAN_LEFT, PAN_RIGHT], ids=lambda file: file.stem)
def test_shipped_loras_change_every_motion_attention(file):
    shapes = read_header(file).shapes
    layers = {key: shape for key, shape in read_header(MOTION).shapes.items() if "attention_blocks" in key}
    linears = {key.removesuffix(".weight"): shape for key, shape in layers.items() if key.endswith(".weight")}
    names = train_pan.lora_names(linears)
    assert sorted(shapes) == sorted(
        f"{name}.{half}.weight" for name in names.values() for half in ("down", "up")
    )
    for layer, name in names.items():
        up, down = shapes[f"{name}.up.weight"], shapes[f"{name}.down.weight"]
        assert (up[0], down[1]) == linears[layer] and up[1] == down[0] == train_pan.RANK
    assert any(value.abs().max() > 0.01 for key, value in load_file(file).items() if ".up." in key)


@pytest.mark.parametrize(
    "harm, said",
    [
        (lambda w: w.pop("first_stage_model.taesd_decoder.1.weight"), "lacks taesd_decoder.1.weight"),
        (lambda w: w.update({"first_stage_model.taesd_decoder.1.weight": torch.zeros(64, 16, 3, 3)}), "16"),
        (lambda w: w.update({"model.diffusion_model.out.2.weight": torch.zeros(8, 64, 3, 3)}), "gives 8"),
        (lambda w: w.update({"x": torch.zeros(1)}), "1 other keys (x)"),
        (lambda w: w.update({"cond_stage_model.y": torch.zeros(1)}), "1 unexpected (y)"),
        (
            lambda w: w.pop("cond_stage_model.encoder.final_layer_norm.weight"),
            "1 missing (encoder.final_layer_norm.weight)",
        ),
        (lambda w: [w.pop(key) for key in [*w] if key.startswith("cond_stage_model.")], "cond_stage_model."),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, harm, said):
    weights = load_file(MODEL)
    harm(weights)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="other.safetensors is no pocket SD") as refused:
        open_pocket(tmp_path / "other.safetensors")
    assert said in str(refused.value) and "pocket/models/SD" in str(refused.value)


def test_frames_are_of_the_size_that_the_readme_says():
    assert SIZE == 64 and world.FRAMES == 16
