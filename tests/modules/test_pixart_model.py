"""The PixArt transformer against diffusers: bit for bit with a graph, to rounding without one."""

from functools import cache, partial

import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.modules.families.family import Clip, Request, Shared
from kinetograph.modules.families.pixart import FAMILY, TRANSFORMER
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.families.pixart.keys import DIFFUSERS
from kinetograph.modules.families.pixart.model import PixArtTransformer
from kinetograph.modules.layers import slabs
from kinetograph.modules.layers.attention import attend

HEADS, HEAD_DIM, LAYERS, TEXT = 4, 12, 2, 10
ROUNDING = 2e-6  # of the largest value; 6e-7 is reached
# latent height and width; (48, 96) are 384x768 pixels
SIZES = [(48, 96), (64, 64), (8, 8), (12, 20), (36, 72), (64, 48), (56, 80), (2, 34)]
SAMPLE_SIZES = [64, 128]
TOKENS = 7


def draw(model, seed):
    """Matrices of unit gain, tables and biases of size one: attention that picks, gates and shifts that count."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        is_row = parameter.ndim == 1 or name.endswith("table")
        parameter.data.normal_(0, 1.0 if is_row else parameter[0].numel() ** -0.5, generator=generator)
    return model.eval().requires_grad_(False)


def config_of(sample_size):
    sizes = {"num_layers": LAYERS, "num_heads": HEADS, "head_dim": HEAD_DIM, "text_dim": TEXT}
    return PixArtConfig(**sizes, sized=sample_size == 128, sample_size=sample_size)


@cache
@torch.inference_mode(False)
def pair(sample_size):
    """(ours, diffusers') with the same weights."""
    theirs = draw(
        peers.load_diffusers().PixArtTransformer2DModel(
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            num_layers=LAYERS,
            cross_attention_dim=HEADS * HEAD_DIM,
            sample_size=sample_size,
            caption_channels=TEXT,
        ),
        seed=sample_size,
    )
    return with_weights_of(theirs, sample_size), theirs


def with_weights_of(theirs, sample_size, **options):
    weights = theirs.state_dict()
    renames = DIFFUSERS.rename(weights)
    ours = PixArtTransformer(config_of(sample_size), **options)
    ours.load_state_dict({renames[key]: value for key, value in weights.items()}, strict=True)
    return ours.eval().requires_grad_(False)


class Scene:
    """Pictures at timesteps of their own, a text for each, and the sizes that they are said to have."""

    def __init__(self, n=2, h=12, w=20, texts=None, tokens=TOKENS, seed=0):
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
        self.x, self.text = normal(n, 4, h, w), normal(texts or n, tokens, TEXT)
        self.timestep = torch.tensor([7.0, 801.0, 999.0, 0.0, 350.0, 512.0])[:n]
        # other sizes than the latents' own: they are what a person says
        height = 8 * h + 64.0 * torch.arange(n)
        self.size = torch.stack([height, torch.full((n,), 8.0 * w), height / (8 * w)], dim=1)

    def part(self, rows):
        """Some of the pictures."""
        one = Scene.__new__(Scene)
        for name in ("x", "text", "timestep", "size"):
            setattr(one, name, getattr(self, name)[rows])
        return one

    def told(self, sample_size):
        return {"size_n3": self.size} if sample_size == 128 else {}


def of_ours(model, scene, sample_size, graph=False, **more):
    with torch.enable_grad() if graph else torch.no_grad():
        return model(
            scene.x, scene.timestep, scene.text, **scene.told(sample_size), with_variance=True, **more
        )


def of_diffusers(model, scene, sample_size, mask=None):
    """Its texts are one for every picture."""
    told = {"resolution": None, "aspect_ratio": None}
    if sample_size == 128:
        told = {"resolution": scene.size[:, :2], "aspect_ratio": scene.size[:, 2:]}
    text = scene.text.repeat_interleave(len(scene.x) // len(scene.text), dim=0)
    with torch.no_grad():
        return model(
            scene.x,
            encoder_hidden_states=text,
            timestep=scene.timestep,
            added_cond_kwargs=told,
            encoder_attention_mask=mask,
        ).sample


def relative(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("sample_size", SAMPLE_SIZES)
def test_equals_diffusers(sample_size, size):
    ours, theirs = pair(sample_size)
    scene = Scene(2, *size, seed=size[0])
    expected = of_diffusers(theirs, scene, sample_size)
    assert torch.equal(of_ours(ours, scene, sample_size, graph=True), expected)
    assert relative(of_ours(ours, scene, sample_size), expected) <= ROUNDING


@pytest.mark.parametrize("sample_size", SAMPLE_SIZES)
@pytest.mark.parametrize("lengths", [(7, 1, 3), (2, 6, 5)])
def test_prompts_of_their_own_length_are_padded_ones_under_a_mask(sample_size, lengths):
    ours, theirs = pair(sample_size)
    scene = Scene(len(lengths))
    mask = (torch.arange(TOKENS) < torch.tensor(lengths)[:, None]).float()
    expected = of_diffusers(theirs, scene, sample_size, mask)
    assert relative(of_diffusers(theirs, scene, sample_size), expected) > 1e-2
    for number, length in enumerate(lengths):
        one = scene.part(slice(number, number + 1))
        one.text = one.text[:, :length]
        for graph in (True, False):
            assert relative(of_ours(ours, one, sample_size, graph), expected[number : number + 1]) <= ROUNDING


@pytest.mark.parametrize("texts", [1, 2, 3, 6])
@pytest.mark.parametrize("sample_size", SAMPLE_SIZES)
def test_a_text_is_for_the_pictures_behind_each_other(sample_size, texts):
    ours, theirs = pair(sample_size)
    scene = Scene(6, 8, 12, texts)
    expected = of_diffusers(theirs, scene, sample_size)
    for graph in (True, False):
        assert relative(of_ours(ours, scene, sample_size, graph), expected) <= ROUNDING


@pytest.mark.parametrize("texts", [1, 2, 6])
@pytest.mark.parametrize("pictures", [0, 2, 4, 10**9])
def test_slabs_only_round(monkeypatch, pictures, texts):
    """Less than a picture at a time, and so many of six that the last ones are fewer."""
    ours, theirs = pair(128)
    scene = Scene(6, 8, 12, texts)
    numbers = 4 * ours.config.width * 24 * pictures
    monkeypatch.setattr(slabs, "TOKENS", slabs.Budget(numbers, numbers))
    assert relative(of_ours(ours, scene, 128), of_diffusers(theirs, scene, 128)) <= ROUNDING


@pytest.mark.parametrize("sample_size", SAMPLE_SIZES)
@pytest.mark.parametrize("graph", [True, False])
def test_every_picture_has_its_own_timestep_and_size(sample_size, graph):
    ours, _ = pair(sample_size)
    scene = Scene(4)
    together = of_ours(ours, scene, sample_size, graph)
    for number in range(4):
        row = slice(number, number + 1)
        assert relative(together[row], of_ours(ours, scene.part(row), sample_size, graph)) <= ROUNDING
    shifted = scene.part(slice(None))
    shifted.timestep = scene.timestep.roll(1)
    assert relative(of_ours(ours, shifted, sample_size, graph), together) > 1e-2


def test_the_first_half_is_what_samplers_get():
    ours, theirs = pair(64)
    scene = Scene()
    with torch.no_grad():
        epsilon = ours(scene.x, scene.timestep, scene.text)
    assert relative(epsilon, of_diffusers(theirs, scene, 64).chunk(2, dim=1)[0]) <= ROUNDING


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_half_precision_stays_near(dtype, tolerance):
    ours, theirs = pair(128)
    half = with_weights_of(theirs, 128, dtype=dtype)
    scene = Scene()
    expected = of_ours(ours, scene, 128)
    scene.x, scene.text = scene.x.to(dtype), scene.text.to(dtype)
    for graph in (True, False):
        out = of_ours(half, scene, 128, graph)
        assert out.dtype == dtype and out.isfinite().all()
        assert relative(out.float(), expected) <= tolerance


def test_inputs_are_left_alone():
    ours, _ = pair(128)
    scene = Scene()
    before = [value.clone() for value in vars(scene).values()]
    of_ours(ours, scene, 128)
    assert all(torch.equal(*values) for values in zip(before, vars(scene).values(), strict=True))


def test_the_weights_of_these_tests_make_attention_choose():
    """Else a wrong place or a wrong order of heads would hardly show."""
    peaks = []

    def watch(q_bhld, k_bhld, v_bhld, transformer_options=None):
        scores = (q_bhld @ k_bhld.transpose(-1, -2) * q_bhld.shape[-1] ** -0.5).softmax(-1)
        peaks.append((scores.amax(-1).mean() * k_bhld.shape[2]).item())
        return attend(q_bhld, k_bhld, v_bhld)

    watched = with_weights_of(pair(64)[1], 64, attention=watch)
    of_ours(watched, Scene(1, 16, 16), 64)
    assert len(peaks) == 2 * LAYERS and min(peaks) > 4, peaks


@pytest.mark.parametrize(
    ("size", "message"),
    [((9, 16), "height=72, use 64 or 80"), ((16, 7), "width=56, use 48 or 64"), ((16, 1), "width=8, use 16")],
)
def test_sizes_that_fill_no_patch_are_refused(size, message):
    ours, _ = pair(64)
    with pytest.raises(ValueError, match=f"must be a multiple of 16 pixels: got {message}"):
        of_ours(ours, Scene(1, *size), 64)


def test_wrong_channels_are_refused():
    ours, _ = pair(64)
    scene = Scene(1)
    scene.x = scene.x.repeat(1, 4, 1, 1)
    with pytest.raises(ValueError, match="takes 4 latent channels: got 16"):
        of_ours(ours, scene, 64)


def test_text_of_another_encoder_is_refused():
    request = Request((2, 4, 8, 8), torch.zeros(1, 3, 768))
    with pytest.raises(
        ValueError, match="768 numbers a token, this PixArt 512 checkpoint takes 4096.*CLIP output"
    ):
        FAMILY.diffusion.conditions(PixArtConfig(), request)


@pytest.mark.parametrize(
    "into, out, message",
    [(9, 32, "9 channels.*EasyAnimate v1.*never published"), (4, 16, "4 and 16"), (16, 32, "16 and 32")],
)
def test_networks_of_other_channels_are_refused_by_name(into, out, message):
    shapes = dict(TRANSFORMER.shapes(config_of(64)))
    shapes["pos_embed.proj.weight"] = (HEADS * HEAD_DIM, into, 2, 2)
    shapes["proj_out.weight"] = (out, HEADS * HEAD_DIM)
    with pytest.raises(ValueError, match=message):
        TRANSFORMER.read_config(shapes)


def test_a_clip_has_one_text_and_one_size():
    config = config_of(128)
    named = FAMILY.diffusion.conditions(
        config, Request((6, 4, 8, 12), torch.zeros(1, 3, TEXT), clip_frames=3)
    )
    assert isinstance(named["context"], Shared) and named["num_video_frames"] == 3
    assert named["size_n3"].tolist() == [[64.0, 96.0, pytest.approx(2 / 3)]]
    request = Request((6, 4, 8, 12), torch.zeros(1, 3, TEXT), numbers={"height": 512, "width": 1024})
    assert FAMILY.diffusion.conditions(config, request)["size_n3"].tolist() == [[512.0, 1024.0, 0.5]]
    per_frame = Request((6, 4, 8, 12), torch.arange(3.0).view(3, 1, 1).expand(3, 2, TEXT), clip_frames=3)
    assert FAMILY.diffusion.conditions(config, per_frame)["context"][:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert "size_n3" not in FAMILY.diffusion.conditions(config_of(64), per_frame)


@pytest.mark.parametrize("sample_size", SAMPLE_SIZES)
def test_example_inputs_run(sample_size):
    ours, _ = pair(sample_size)
    with torch.no_grad():
        out = ours(**FAMILY.diffusion.inputs(ours.config, Clip(96, 64, 3, count=2)))
    assert out.shape == (6, 4, 8, 12) and out.isfinite().all()
