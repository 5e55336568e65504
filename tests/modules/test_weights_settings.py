"""What the doctor calls complete is built: odd shapes and odd values in a config.json are refused in words."""

import json
import re
from functools import cache

import pytest

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights.detect import detect_all
from kinetograph.modules.weights.settings import whole
from kinetograph.tests.checkpoints import BY_NAME, header

FILES = (
    "cogvideox-2b",
    "cogvideox-1.5-5b-i2v",
    "cogvideox-vae",
    "t5-v1_1-xxl-encoder",
    "svd-xt",
    "svd-exvideo",
)
PYTHON = re.compile(
    r"unpack|modulo|divisible|out of range|unsupported|iterable|NoneType|tuple|Error|must be str|invalid|complex"
)
NUMBERS = (-5, 0, "226", 10**9, 2.5, 90.0, True, None, [], [8], {}, float("nan"), float("inf"))
TRANSFORMER = ("cogvideox-2b", "diffusion_model")
VAE, UNET, PICTURE = ("cogvideox-vae", "vae"), ("svd-xt", "diffusion_model"), ("svd-xt", "image_encoder")
EXVIDEO = ("svd-exvideo", "extension")
WHOLE = [
    *(
        (TRANSFORMER, name)
        for name in ("max_text_seq_length", "sample_width", "sample_height", "sample_frames")
    ),
    (TRANSFORMER, "patch_size"),
    (("cogvideox-1.5-5b", "diffusion_model"), "patch_size"),
    (VAE, "norm_num_groups"),
    *((UNET, name) for name in ("width", "height", "num_frames", "head_dim", "addition_time_embed_dim")),
    (UNET, "num_attention_heads"),
    (PICTURE, "image_encoder_heads"),
    *((EXVIDEO, name) for name in ("width", "height", "num_frames", "head_dim")),
]


@cache
def parts(name):
    """kind -> (Part, shapes in our naming) of a published file."""
    shapes = BY_NAME[name].shapes
    findings = detect_all(header(shapes), FAMILIES)
    assert findings and all(finding.complete for finding in findings)
    return {
        finding.kind: (
            finding.part,
            {ours: shapes[theirs] for theirs, ours in finding.renames.items() if ours is not None},
        )
        for finding in findings
    }


def refusal(place, settings):
    """What is said about a published part with other settings; None when they are taken."""
    part, shapes = parts(place[0])[place[1]]
    try:
        part.read_config(shapes, settings)
    except ValueError as error:
        assert not PYTHON.search(str(error)) and len(str(error)) < 500
        return str(error)
    return None


@pytest.mark.parametrize("place, setting", WHOLE)
def test_numbers_in_a_config_are_whole_positive_and_bounded(place, setting):
    assert refusal(place, {}) is None
    for value in NUMBERS:
        if setting == "num_attention_heads" and value is None:
            continue  # a null there means that the heads are told elsewhere
        said = refusal(place, {setting: value})
        assert said, f"{setting} {value!r} is taken"
        assert setting in said or "attention heads" in said
        assert "config.json" in said


@pytest.mark.parametrize("value", ["yes", 1, None, "false"])
def test_a_switch_in_a_config_is_true_or_false(value):
    said = refusal(TRANSFORMER, {"use_rotary_positional_embeddings": value})
    assert "use_rotary_positional_embeddings in its config must be true or false" in said
    assert refusal(TRANSFORMER, {"use_rotary_positional_embeddings": True}) is None


ROW = [0.1, -0.2, 3]


@pytest.mark.parametrize("place, channels", [(TRANSFORMER, 16), (UNET, 4)])
def test_colours_are_a_row_of_three_finite_numbers_for_each_channel(place, channels):
    right = [ROW] * channels
    wrong = [
        [ROW] * (channels - 1),
        [ROW[:2]] * channels,
        [*right[1:], ["red", 0, 0]],
        "red",
        None,
        3,
        [True] * channels,
    ]
    wrong += [[*right[1:], [0, 0, float("nan")]], [*right[1:], [0, 10**400, 0]], [right] * channels]
    assert refusal(place, {"latent_rgb_factors": right, "latent_rgb_bias": ROW}) is None
    for factors in wrong:
        said = refusal(place, {"latent_rgb_factors": factors})
        assert f"latent_rgb_factors in its config must be {channels} rows of three numbers" in said
    for bias in (ROW[:2], [*ROW, 0], [0, 0, "0"], [0, 0, float("inf")], 0, None, "000"):
        said = refusal(place, {"latent_rgb_bias": bias})
        assert "latent_rgb_bias in its config must be three numbers" in said


def test_heads_and_groups_that_do_not_fit_are_refused_in_words():
    for heads in ([5, 10, 20], [5, 10, 20, 21], [5, 10, "20", 20], [0, 0, 0, 0], 7, ["5"] * 4):
        assert "attention" in refusal(UNET, {"num_attention_heads": heads})
    assert refusal(UNET, {"num_attention_heads": [5, 10, 20, 20]}) is None
    said = refusal(VAE, {"norm_num_groups": 48})
    assert "128, 256, 256, 512 channels, which norms of 48 groups do not divide" in said


def test_the_settings_of_the_published_files_are_taken():
    published = {"patch_size": 2, "sample_width": 300, "sample_height": 300, "sample_frames": 81}
    published |= {"max_text_seq_length": 226, "use_rotary_positional_embeddings": True}
    assert refusal(("cogvideox-1.5-5b-i2v", "diffusion_model"), published) is None
    assert refusal(VAE, {"norm_num_groups": 32}) is None


def odd(shape):
    """Shapes that are not the one wanted: an empty axis, another number of axes, the axes the other way round."""
    empty = [(*shape[:axis], 0, *shape[axis + 1 :]) for axis in range(len(shape))]
    turned = [shape[::-1]] if shape[::-1] != shape else []
    return [*empty, (), shape[:-1], (*shape, 1), *turned]


@pytest.mark.parametrize("name", FILES)
def test_odd_shapes_of_telling_keys_are_refused_in_words(name):
    """Either the sizes are refused, or the weight itself is not the one that they ask for."""
    for part, shapes in parts(name).values():
        for key in part.signature:
            for shape in odd(shapes[key]):
                changed = {**shapes, key: shape}
                try:
                    wanted = part.shapes(part.read_config(changed, None))
                except ValueError as error:
                    assert not PYTHON.search(str(error)), (key, shape, str(error))
                else:
                    assert any(not part.fits(changed.get(other, ()), wanted[other]) for other in wanted), (
                        key,
                        shape,
                    )


def test_a_table_of_positions_on_its_side_is_no_t5():
    part, shapes = parts("t5-v1_1-xxl-encoder")["text_encoder"]
    key = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    for shape, said in ((64, 32), "32 rows fit, .* on its side"), ((32, 0), "at least one number"):
        with pytest.raises(ValueError, match=said):
            part.read_config({**shapes, key: shape}, None)
    with pytest.raises(ValueError, match="knows 32000 tokens"):
        part.read_config({**shapes, "shared.weight": (32000, 4096)}, None)


def test_what_is_refused_is_shown_short_and_without_control_characters():
    for value in ("x" * 10**6, [1] * 10**6, "\x1b[31m\n", 10**4000):
        with pytest.raises(ValueError) as caught:
            whole({"width": value}, "width", 8, 16)
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()
    assert whole(json.loads('{"width": 16}'), "width", 8, 16) == 16
