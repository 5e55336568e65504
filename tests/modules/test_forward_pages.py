"""The pages that show a forward at one sitting: listings compute what the networks do, tables name every cut."""

import ast
import importlib.util
import re
from functools import cache

import pytest
import torch

from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.cogvideox.model import CogVideoXTransformer
from kinetograph.modules.families.easyanimate.config import GridConfig
from kinetograph.modules.families.easyanimate.model import GridModules
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.families.pixart.model import PixArtTransformer
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.families.svd.exvideo import ExVideoBranches
from kinetograph.modules.families.svd.model import SVDUNet
from kinetograph.modules.layers import slabs
from kinetograph.tests.test_house import ROOT

FAMILIES = ROOT / "modules" / "families"
# What the pages say is at hand.
HEADER = """
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from kinetograph.modules.layers import positions
from kinetograph.modules.layers.positions import sinusoid
"""
TOLERANCE = 1e-5
TEXT_TOKENS = 5
TINY = {
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 16,
    "time_embed_dim": 8,
    "text_dim": 12,
    "max_text_tokens": TEXT_TOKENS + 2,
    "sample_width": 12,
    "sample_height": 8,
}
VARIANTS = {
    "2B": {"rotary": False},
    "5B": {},
    "5B-I2V": {"in_channels": 32, "learned_positions": TEXT_TOKENS + 2 + 4 * 4 * 6},
    "1.5-5B": {"patch_size_t": 2},
    "1.5-5B-I2V": {"patch_size_t": 2, "in_channels": 32, "ofs_dim": 8},
    "Fun-2B-InP": {"rotary": False, "in_channels": 33},
    "Fun-1.5-5B-InP": {"patch_size_t": 2, "in_channels": 33},
}
TINY_UNET = SVDConfig(channels=(32, 64, 64, 64), head_dim=16, context_dim=24, adm_dim=48)
CLIPS, FRAMES = 2, 3


def page(family):
    return (FAMILIES / family / "forward.md").read_text(encoding="utf-8")


def listing(family):
    (code,) = re.findall(r"```python\n(.*?)```", page(family), re.DOTALL)
    return code


@pytest.fixture(scope="module")
def forward_of(tmp_path_factory):
    """The function `forward` of a family's page, with other words in it where a mistake is wanted."""

    @cache
    def load(family, right="", wrong=""):
        code = listing(family)
        assert right in code
        path = tmp_path_factory.mktemp(family) / "listing.py"
        path.write_text(HEADER + (code.replace(right, wrong) if right else code), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("listing", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.forward

    return load


def randomise(model):
    """Nothing is zero, nothing is small: norms of queries and keys sharpen attention, gates are open."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data.normal_(float(name.endswith("norm.weight")), fan_in**-0.5, generator=generator)
    return model.eval().requires_grad_(False)


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@cache
def transformer(variant):
    return randomise(CogVideoXTransformer(CogVideoXConfig(**TINY, **VARIANTS[variant])))


def cogvideox_error(forward, variant, h=8, w=12, t=4):
    net = transformer(variant)
    x, text = draw(2, net.config.in_channels, t, h, w), draw(2, TEXT_TOKENS, 12)
    given = x, torch.tensor([999.0, 30.0]), text
    more = torch.tensor([2.0, 7.0])
    with torch.inference_mode():
        return relative_error(net(*given, ofs_b=more), forward(net, *given, more))


@pytest.mark.parametrize("variant", VARIANTS)
def test_cogvideox(forward_of, variant):
    forward = forward_of("cogvideox")
    assert cogvideox_error(forward, variant) <= TOLERANCE
    if variant != "5B-I2V":
        assert cogvideox_error(forward, variant, 10, 6) <= TOLERANCE


def test_a_lone_frame_of_funs_newer_model(forward_of):
    assert cogvideox_error(forward_of("cogvideox"), "Fun-1.5-5B-InP", t=1) <= TOLERANCE


@cache
def unet(exvideo):
    net = SVDUNet(TINY_UNET)
    if exvideo:
        ExVideoBranches(TINY_UNET).put_into(net)
    return randomise(net)


def svd_error(forward, exvideo, tokens, h=16, w=24):
    net, n = unet(exvideo), CLIPS * FRAMES
    x, level, y = draw(n, 8, h, w), draw(n), draw(n, 48)
    context = draw(n, tokens, 24)
    with torch.inference_mode():
        ours = net(x, level, context, y=y, num_video_frames=FRAMES)
        return relative_error(ours, forward(net, x, level, context, y, FRAMES))


@pytest.mark.parametrize("exvideo", [False, True])
@pytest.mark.parametrize("tokens", [1, 4])
def test_svd(forward_of, exvideo, tokens):
    assert svd_error(forward_of("svd"), exvideo, tokens) <= TOLERANCE


def test_svd_of_odd_sizes(forward_of):
    assert svd_error(forward_of("svd"), False, 1, 13, 10) <= TOLERANCE


DIT = {"num_layers": 2, "num_heads": 2, "head_dim": 48, "text_dim": 12}


@cache
def pixart(variant):
    net = PixArtTransformer(PixArtConfig(**DIT, sized=variant == "1024-MS", sample_size=64))
    if variant == "EasyAnimate v1":
        GridModules(GridConfig(num_layers=2, width=96, strength=0.7)).put_into(net)
    return randomise(net)


def pixart_error(forward, variant, h=8, w=12):
    net, n = pixart(variant), CLIPS * FRAMES
    x, time = draw(n, 4, h, w), torch.tensor([30.0, 999.0]).repeat_interleave(FRAMES)
    text = draw(CLIPS, TEXT_TOKENS, 12)
    size = draw(n, 3).abs() * 500 if net.config.sized else None
    with torch.inference_mode():
        ours = net(x, time, text, size_n3=size, num_video_frames=FRAMES)
        frames = FRAMES if variant == "EasyAnimate v1" else 1
        return relative_error(ours, forward(net, x, time, text.repeat_interleave(FRAMES, 0), size, frames))


@pytest.mark.parametrize("variant", ["512", "1024-MS", "EasyAnimate v1"])
def test_pixart(forward_of, variant):
    assert pixart_error(forward_of("pixart"), variant) <= TOLERANCE


WRONG = [  # (family, variant, what the page says, a mistake that somebody might make)
    ("cogvideox", "5B", "tokens + gate * block.ff(normed)", "tokens + block.ff(normed)"),
    ("cogvideox", "5B", "image, text = norm.linear", "text, image = norm.linear"),
    ("cogvideox", "5B", "if config.patch_size_t == 1:", "if False:"),
    ("cogvideox", "5B-I2V", "rows[config.max_text_tokens :]", "rows[length:]"),
    ("cogvideox", "2B", "np.tile(plane, (t_own, 1))", "np.repeat(plane, t_own, axis=0)"),
    ("cogvideox", "Fun-2B-InP", "if config.resizes_positions", "if False"),
    (
        "cogvideox",
        "1.5-5B",
        "(t r) (h p) (w q) -> b (t h w) (c r p q)",
        "(t r) (h p) (w q) -> b (t h w) (r c p q)",
    ),
    ("cogvideox", "1.5-5B-I2V", "net.ofs_embedding(ofs, x.dtype)", "net.ofs_embedding(0 * ofs, x.dtype)"),
    ("svd", False, "torch.lerp(time, space", "torch.lerp(space, time"),
    ("svd", False, "torch.arange(t)", "torch.arange(1, t + 1)"),
    ("svd", False, "context[::t]", "context[: len(context) // t]"),
    ("svd", False, "moved + block.ff_in(block.norm_in(moved))", "moved"),
    ("svd", True, "exvideo.conv(", "("),
    ("pixart", "512", "table[2] * attend", "table[5] * attend"),
    ("pixart", "512", "emb[:, None])[:, :, None]", "F.silu(emb)[:, None])[:, :, None]"),
    ("pixart", "512", "rows, columns, config.width", "columns, rows, config.width"),
    ("pixart", "1024-MS", "for axis in (0, 1)", "for axis in (1, 0)"),
    ("pixart", "EasyAnimate v1", "(d t)", "(t d)"),
    ("pixart", "EasyAnimate v1", "(h r w s)", "(r h w s)"),
    ("pixart", "EasyAnimate v1", "block.ff_norm(y)", "y"),
]


@pytest.mark.parametrize("family, variant, right, wrong", WRONG)
def test_a_mistake_on_a_page_shows(forward_of, family, variant, right, wrong):
    forward = forward_of(family, right, wrong)
    if family == "svd":
        assert svd_error(forward, variant, 4) > 1e-3
    elif family == "pixart":
        assert pixart_error(forward, variant) > 1e-3
    else:
        assert cogvideox_error(forward, variant, *((8, 12) if variant == "5B-I2V" else (10, 6))) > 1e-3


@pytest.mark.parametrize("family", ["cogvideox", "svd", "pixart"])
def test_a_listing_is_read_at_one_sitting(family):
    lines = [line for line in listing(family).splitlines() if line.strip()]
    assert 30 < len(lines) <= 60 and max(map(len, lines)) <= 110


def rows_of(family, *titles):
    """The rows of a page's table with these titles, cells without backticks."""
    head = "| " + " | ".join(titles) + " |\n"
    _, table = page(family).split(head)
    lines = table.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip().replace("`", "") for cell in line.strip("| ").split("|")] for line in lines]


@pytest.mark.parametrize("family", ["cogvideox", "svd", "pixart"])
def test_sizes_on_a_page_are_those_of_the_table(family):
    rows = rows_of(family, "Budget", "CPU", "accelerator")
    assert {name for *_, name in rows_of(family, "File", "Place", "Cut into", "Budget")} <= {
        row[0] for row in rows
    }
    for name, *sizes in rows:
        told = [product_of(size) for size in sizes]
        assert told == [getattr(slabs, name).cpu, getattr(slabs, name).accelerator], name


def product_of(text):
    """A product of numbers and powers of two, such as 30 * 2^20."""
    result = 1
    for factor in text.split("*"):
        base, _, power = factor.strip().partition("^")
        result *= int(base) ** int(power or 1)
    return result


def cuts_in(path):
    """{(class.function, budget)} of every place in a file that works in slabs."""
    text = path.read_text(encoding="utf-8")
    found = set()
    for scope in ast.parse(text).body:
        functions = scope.body if isinstance(scope, ast.ClassDef) else [scope]
        for function in (part for part in functions if isinstance(part, ast.FunctionDef)):
            prefix = f"{scope.name}." if scope is not function else ""
            source = ast.get_source_segment(text, function)
            budgets = set(re.findall(r"slabs\.([A-Z_]{3,})", source))
            found |= {(prefix + function.name, budget) for budget in budgets}
    return found


@pytest.mark.parametrize("family", ["cogvideox", "svd", "pixart"])
def test_every_cut_of_a_network_is_on_its_page(family):
    """Autoencoders are told of in words."""
    files = [path for path in (FAMILIES / family).glob("*.py") if not path.stem.startswith("vae")]
    cuts = {(path.name, *cut) for path in files for cut in cuts_in(path)}
    if family == "pixart":
        others = (FAMILIES / "easyanimate").glob("*.py")
        cuts |= {(f"../easyanimate/{path.name}", *cut) for path in others for cut in cuts_in(path)}
    if family == "cogvideox":  # the only network that rotates
        cuts |= {("positions.py", *cut) for cut in cuts_in(ROOT / "modules" / "layers" / "positions.py")}
    told = {
        (file, re.split("[:,]", place)[0], budget)
        for file, place, _, budget in rows_of(family, "File", "Place", "Cut into", "Budget")
    }
    assert cuts and told == cuts
