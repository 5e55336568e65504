"""The pocket PixArt as it starts, and its shipped files."""

import json

import torch
from safetensors.torch import load_file
from torch import nn

from kinetograph.modules.families import EASYANIMATE, PIXART
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket.lora import LowRank
from kinetograph.pocket.pixart import score
from kinetograph.pocket.pixart.parts import (
    LAYERS,
    MODEL,
    MOTION,
    STYLE,
    WIDTH,
    TextToPicture,
    attend_to_words,
    start_weights,
)
from kinetograph.pocket.sd import world
from kinetograph.pocket.sd.parts import MODEL as TEXT_AND_VAE
from kinetograph.pocket.sd.parts import TEXT, VAE
from kinetograph.pocket.shapes import MOTIONS, draw

RANK, ALPHA = 8, 4.0
MOST_BYTES, MOST_OF_ALL = 5_000_000, 12_000_000
SUBJECTS = world.all_subjects()


def random_base():
    """A base whose parts all say something."""
    torch.manual_seed(0)
    base = TextToPicture().eval().requires_grad_(False)
    start_weights(base)
    for p in base.parameters():
        p.add_(0.1 * torch.randn_like(p))
    return base


def test_attention_leaves_padding_out():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    there = torch.tensor([[True, True, False, False], [True] * 4])
    seen = attend_to_words(q, k, v, there)
    short = nn.functional.scaled_dot_product_attention(q[:1], k[:1, :, :2], v[:1, :, :2])
    whole = nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(seen[:1], short.transpose(1, 2).flatten(2))
    torch.testing.assert_close(seen[1:], whole[1:].transpose(1, 2).flatten(2))
    # other counts of keys than of words: attention among the tokens themselves
    torch.testing.assert_close(attend_to_words(q, k, v, there[:, :3]), whole.transpose(1, 2).flatten(2))


def test_a_caption_beside_a_longer_one_reads_as_alone():
    base = random_base()
    short, long = torch.randn(2, 32), torch.randn(6, 32)
    both = nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([300.0, 700.0])
    together = base(x, t, both)
    torch.testing.assert_close(together[:1], base(x[:1], t[:1], short[None]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1:], base(x[1:], t[1:], long[None]), atol=1e-5, rtol=1e-5)


def test_start_says_that_all_is_noise():
    torch.manual_seed(0)
    base = TextToPicture().eval()
    start_weights(base)
    noise, context = torch.randn(16, 4, 8, 8), torch.randn(16, 5, 32)
    said = base(noise, torch.full((16,), 900.0), context)
    assert (said - noise).square().mean() < 0.15
    variance = base.transformer(noise, torch.full((16,), 900.0), context, with_variance=True)[:, 4:]
    assert not variance.any()


def test_low_rank_starts_as_nothing():
    lora = LowRank({"a.weight": torch.randn(5, 7)}, 2)
    assert not lora.changes()["a.weight"].any() and lora.halves()["a"][0].shape == (2, 7)


def test_score_asks_for_every_way_alike():
    for part in score.PARTS:
        orders = score.orders_of(part, 3)
        assert [order.subject[2] for order in orders] == [m for m in MOTIONS for _ in range(3)]
        assert (orders[0].module is None) == (part == "alone")
        for order in orders:
            colour = order.caption.split()[1]
            assert order.caption.endswith(order.subject[2])
            assert (order.subject[0] == "white" != colour) if part == "style" else order.subject[0] == colour


def test_score_reads_the_style():
    orders = score.orders_of("style", 2)

    def rows_of(colour_of):
        clips = [world.sample_clip(i, (colour_of(o), *o.subject[1:])) for i, o in enumerate(orders)]
        frames = [draw(clip, world.FRAMES) for clip in clips]
        return [score.scoring.read_row(o, f) for o, f in zip(orders, frames, strict=True)]

    chalk, plain = rows_of(lambda o: "white"), rows_of(lambda o: o.caption.split()[1])
    figures = score.sum_up({"alone": plain, "motion": plain, "style": chalk})
    assert figures["in_chalk"] == figures["right_way_in_chalk"] == 1 and figures["covered_in_chalk"] > 0.9
    assert score.sum_up({"alone": plain, "motion": plain, "style": plain})["in_chalk"] == 0


def test_styled_graph_puts_the_style_under_the_motion_module():
    order = score.orders_of("style", 1)[0]
    graph = score.styled_graph(order, score.USUAL)
    way, at = [], "sampler"
    while at != "loader":
        at = graph[at]["inputs"]["model"][0]
        way.append(at)
    assert way == ["motion", "style", "loader"]
    assert graph["motion"]["inputs"]["motion_module"] == f"Motion_Module/{MOTION.name}"
    assert graph["style"]["inputs"]["loras.lora_1"] == f"Personalized_Model/{STYLE.name}"


def test_shipped_files_are_small_and_half_precision():
    files = (MODEL, MOTION, STYLE)
    own = sum(file.stat().st_size for file in files)
    assert own <= MOST_BYTES
    lent = load_file(TEXT_AND_VAE)
    lent = sum(v.numel() * v.element_size() for k, v in lent.items() if k.startswith((TEXT, VAE)))
    assert own + lent <= MOST_OF_ALL
    for file in files:
        assert set(read_header(file).dtypes.values()) == {"F16"}
        assert all(value.isfinite().all() for value in load_file(file).values())


def test_shipped_base_is_a_pixart_of_four_heads():
    config = detect(read_header(MODEL), (PIXART,), "diffusion_model").check().config
    assert (config.num_layers, config.num_heads, config.width) == (LAYERS, 4, WIDTH)
    assert (config.text_dim, config.sample_size, config.sized) == (32, 64, False)
    # the colours of a preview: those of the cell's mean
    red = torch.tensor([2.5 * 0.8, 0.0, 0.0, 0.3]) @ torch.tensor(config.latents.rgb_factors)
    torch.testing.assert_close(red, torch.tensor([1.6, 0.0, 0.0]))


def test_shipped_module_fits_and_has_no_tables():
    finding = detect(read_header(MOTION), (EASYANIMATE,), "motion_module").check()
    assert (finding.config.num_layers, finding.config.width) == (LAYERS, WIDTH)
    assert not any(key.endswith(".pe") for key in read_header(MOTION).shapes)


def test_shipped_style_changes_every_linear_layer():
    layers = {
        key.removesuffix(".weight"): shape
        for key, shape in read_header(MODEL).shapes.items()
        if key.endswith(".weight") and len(shape) == 2
    }
    shapes, weights = read_header(STYLE).shapes, load_file(STYLE)
    assert len(shapes) == 3 * len(layers)
    for layer, (rows, columns) in layers.items():
        key = "lora_unet__" + layer.replace(".", "_")
        assert shapes[f"{key}.lora_down.weight"] == (RANK, columns)
        assert shapes[f"{key}.lora_up.weight"] == (rows, RANK)
        assert shapes[f"{key}.alpha"] == () and weights[f"{key}.alpha"] == ALPHA
    assert any(v.abs().max() > 0.01 for k, v in weights.items() if k.endswith("up.weight"))


def test_clips_of_the_score_are_as_long_as_those_of_the_training():
    graph = score.graph_for(score.orders_of("motion", 1)[0], score.USUAL)
    assert graph["latent"]["inputs"]["batch_size"] == world.FRAMES


def test_score_that_is_shipped_reaches_its_goals():
    known = json.loads((score.HERE / "score.json").read_text(encoding="utf-8"))
    figures = score.sum_up({part: known[part] for part in score.PARTS})
    assert figures == {name: known[name] for name in figures}
    assert all(len(known[part]) == 8 * len(MOTIONS) for part in score.PARTS)
    assert figures["jump_ratio"] <= 0.2 and figures["right_way"] >= 0.85 and figures["covered"] >= 0.7
    assert figures["in_chalk"] >= 0.95 and figures["right_way_in_chalk"] >= 0.85


def test_the_motion_module_says_what_clips_it_was_trained_on():
    finding = detect(read_header(MOTION), (EASYANIMATE,)).check()
    assert finding.config.native_size == (64, 64, 16)
