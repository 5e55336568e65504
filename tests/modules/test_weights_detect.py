"""Detection: the published checkpoints strictly, every dialect and prefix, and what is wrong with others."""

import dataclasses
import random
import re
import time

import pytest

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights.detect import choose, detect, detect_all, sure_parts
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.tests.checkpoints import BY_NAME, KEY_LISTS, PUBLISHED, header, remember_shapes

I2V = BY_NAME["cogvideox-5b-i2v"]
T2V = BY_NAME["cogvideox-2b"]
VAE = BY_NAME["cogvideox-vae"]
T5 = BY_NAME["t5-v1_1-xxl-encoder"]
NATIVE = "model.diffusion_model."


def find(shapes, kind=None, **options):
    return detect(header(shapes, **options), FAMILIES, kind)


def under(prefix, shapes):
    return {prefix + key: shape for key, shape in shapes.items()}


def native(listed):
    table = FAMILIES[0].parts["diffusion_model"].dialects["comfy"].reverse()
    return {table.find(key)[1]: shape for key, shape in listed.shapes.items()}


@pytest.mark.parametrize("listed", KEY_LISTS, ids=lambda listed: listed.name)
def test_every_published_file_matches_our_model_strictly(listed):
    findings = [finding.check() for finding in detect_all(header(listed.shapes), FAMILIES)]
    assert {finding.family for finding in findings} == {listed.family}
    assert tuple(finding.kind for finding in findings) == listed.kinds
    assert " + ".join(finding.variant for finding in findings) == listed.variant
    assert sum(finding.keys for finding in findings) == len(listed.shapes)
    for finding in findings:
        assert finding.matched + finding.num_dropped == finding.keys
        assert not (finding.missing or finding.unexpected or finding.misshapen)


def test_the_lists_have_the_published_numbers_of_keys():
    assert {name: len(BY_NAME[name].shapes) for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
def test_every_part_of_every_family_has_a_key_list(family):
    listed = {(listed.family, kind) for listed in KEY_LISTS for kind in listed.kinds}
    # a file of a part that two families share is listed for the first of them
    shared = {
        kind
        for other in FAMILIES[: FAMILIES.index(family)]
        for kind, part in family.parts.items()
        if kind in other.parts and other.parts[kind].dialects == part.dialects
    }
    assert {(family.id, kind) for kind in family.parts.keys() - shared} <= listed
    assert shared <= {"text_encoder"}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if re.fullmatch("cogvideox-[0-9].*", name)])
@pytest.mark.parametrize("prefix", [NATIVE, "diffusion_model.", ""])
def test_native_keys_under_every_prefix(name, prefix):
    listed = BY_NAME[name]
    finding = find(under(prefix, native(listed))).check()
    assert (finding.variant, finding.dialect, finding.prefix) == (listed.variant, "comfy", prefix)
    assert {ours: finding.renames[key] for key, ours in zip(finding.renames, listed.shapes, strict=True)} == {
        ours: ours for ours in listed.shapes
    }


@pytest.mark.parametrize("prefix", ["vae.", "first_stage_model.", ""])
def test_vae_under_every_prefix(prefix):
    assert find(under(prefix, VAE.shapes), "vae").check().prefix == prefix


def test_kijai_fp8_file_keeps_the_diffusers_keys():
    dtypes = {key: "F8_E4M3" if len(shape) == 2 else "BF16" for key, shape in I2V.shapes.items()}
    head = header(I2V.shapes)
    finding = detect(type(head)(head.name, (), head.shapes, dtypes, {}), FAMILIES).check()
    assert (finding.dialect, finding.dtype, finding.variant) == ("diffusers-fp8", "float8_e4m3fn", "5B-I2V")


def test_text_encoder_files_of_the_host():
    without_copy = {key: shape for key, shape in T5.shapes.items() if "embed_tokens" not in key}
    assert find(without_copy).check().num_dropped == 0
    assert find(under("text_encoders.t5xxl.transformer.", without_copy)).check().kind == "text_encoder"
    scales = {
        key.removesuffix("weight") + "scale_weight": () for key in without_copy if "SelfAttention.q" in key
    }
    extended = find({**without_copy, **scales, "scaled_fp8": (0,), "spiece_model": (791656,)}).check()
    assert set(scales) < set(extended.renames.values()), "the host reads the scales beside the weights"


def quantised(shapes, word, companions, halved=False):
    """A header whose linear layers are quantised the host's way: what lies beside each weight, and its dtype."""
    linear = [key for key, shape in shapes.items() if len(shape) == 2 and key.endswith(".weight")]
    layers = [key.removesuffix(".weight") for key in linear if not re.search("shared|bias|embed_tokens", key)]
    beside = {f"{layer}.{name}": () for layer in layers for name in companions}
    packed = {
        f"{layer}.weight": (shapes[f"{layer}.weight"][0], shapes[f"{layer}.weight"][1] // 2)
        for layer in layers
    }
    head = header({**shapes, **(packed if halved else {}), **beside})
    dtypes = {**dict.fromkeys(head.shapes, "F16"), **{f"{layer}.weight": word for layer in layers}}
    return dataclasses.replace(head, dtypes=dtypes)


@pytest.mark.parametrize("name", ["cogvideox-2b", "svd-diffusers-unet"])
@pytest.mark.parametrize(
    "word, companions, halved, said",
    [
        ("I8", ["weight_scale", "comfy_quant"], False, "int8"),
        ("U8", ["weight_scale", "weight_scale_2", "comfy_quant"], True, "4 bits, such as nvfp4"),
        ("F8_E4M3", ["scale_weight", "scale_input"], False, "fp8 with scales"),
        ("F8_E4M3", ["weight_scale", "comfy_quant"], False, "fp8 with scales"),
    ],
)
def test_quantised_networks_are_refused_by_name(name, word, companions, halved, said):
    head = quantised(BY_NAME[name].shapes, word, companions, halved)
    finding = detect(head, FAMILIES, "diffusion_model")
    message = (
        rf"[0-9]+ of its layers are quantised \({said}\), .* published in fp32, bf16, fp16 or fp8 without"
    )
    with pytest.raises(CheckpointError, match=message):
        finding.check()


def test_quantised_text_encoders_fp8_is_the_hosts_matter_and_integers_are_refused():
    assert detect(quantised(T5.shapes, "F8_E4M3", ["scale_weight"]), FAMILIES).complete
    head = quantised(T5.shapes, "I8", ["weight_scale", "comfy_quant"])
    with pytest.raises(CheckpointError, match=r"168 of its layers are quantised \(int8\)"):
        detect(head, FAMILIES).check()


def test_a_file_that_holds_a_whole_pipeline():
    parts = {NATIVE: I2V, "vae.": VAE, "text_encoders.t5xxl.transformer.": T5}
    shapes = {
        key: shape for prefix, listed in parts.items() for key, shape in under(prefix, listed.shapes).items()
    }
    findings = detect_all(header(shapes), FAMILIES)
    assert [finding.kind for finding in findings] == ["diffusion_model", "text_encoder", "vae"]
    assert all(finding.complete for finding in findings)
    for prefix, listed in parts.items():
        finding = find(shapes, listed.kind).check()
        assert (finding.variant, finding.prefix) == (listed.variant, prefix)


def test_the_wrong_kind_is_named():
    with pytest.raises(CheckpointError, match="it holds CogVideoX vae, and a diffusion_model is wanted"):
        find(VAE.shapes, "diffusion_model").check()


def sample(listed, count, seed=0):
    generator = random.Random(seed)
    config_keys = FAMILIES[0].parts[listed.kind].signature
    return [*config_keys, *generator.sample(sorted(listed.shapes), count)]


@pytest.mark.parametrize(
    "listed", [I2V, VAE, T5, BY_NAME["cogvideox-1.5-5b-i2v"]], ids=lambda listed: listed.name
)
def test_each_dropped_key_is_reported(listed, monkeypatch):
    remember_shapes(monkeypatch)
    for key in sample(listed, 25):
        if "embed_tokens" in key:
            continue
        finding = find({other: shape for other, shape in listed.shapes.items() if other != key})
        assert not finding.complete
        with pytest.raises(CheckpointError, match="CogVideoX") as caught:
            finding.check()
        assert key in str(caught.value) or "ofs_embedding" in key


@pytest.mark.parametrize("listed", [I2V, VAE, T5], ids=lambda listed: listed.name)
def test_each_misshapen_key_is_reported(listed, monkeypatch):
    """Or read as another size, where a length is in one key only, such as the width of the text."""
    remember_shapes(monkeypatch)
    published = find(listed.shapes).config
    for key in sample(listed, 15, seed=1):
        shape = listed.shapes[key]
        for wrong in [(*shape[:-1], shape[-1] + 1), (*shape, 1), shape[:-1]]:
            if "embed_tokens" not in key:
                finding = find({**listed.shapes, key: wrong})
                if finding.complete:
                    assert finding.config != published, (key, wrong)
                    continue
                with pytest.raises(CheckpointError):
                    finding.check()


def test_counts_first_five_and_family_are_in_the_message():
    gone = [key for key in I2V.shapes if "blocks.7." in key]
    with pytest.raises(CheckpointError) as caught:
        find(
            {key: shape for key, shape in I2V.shapes.items() if key not in gone} | {"strange.weight": (1,)}
        ).check()
    message = str(caught.value)
    assert f"{len(gone)} missing" in message
    assert "1 unexpected (strange.weight)" in message
    assert "CogVideoX 5B-I2V" in message
    assert len(re.findall(r"transformer_blocks\.7\.", message)) == 5


def test_image_channels_without_their_key_are_no_image_to_video_checkpoint():
    control = {key: shape for key, shape in I2V.shapes.items() if key != "patch_embed.pos_embedding"}
    assert find(control).complete and find(control).config.variant == "Fun-5B-Control"
    inpaint = {**I2V.shapes, "patch_embed.proj.weight": (3072, 33, 2, 2)}
    with pytest.raises(CheckpointError, match="33 input channels"):
        find(inpaint).check()


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"a": (1,)},
        {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "cond_stage_model.logit_scale": ()},
        {"transformer_blocks.0.attn1.to_q.weight": (64, 64), **{f"x.{i}.weight": (1, 1) for i in range(9)}},
    ],
)
def test_strange_files_are_unknown(shapes):
    finding = find(shapes)
    assert (finding.family, finding.complete) == ("unknown", False)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        finding.check()


def test_settings_decide_what_no_shape_tells():
    finding = find(T2V.shapes, settings={"sample_width": 8, "sample_height": 8, "max_text_seq_length": 16})
    assert (finding.config.sample_width, finding.config.max_text_tokens) == (8, 16)


@pytest.mark.parametrize("settings", [{"patch_size": 0}, {"patch_size": "2"}, {"patch_size": 7}])
def test_settings_that_make_no_sense_are_an_error_in_words(settings):
    with pytest.raises(CheckpointError, match="CogVideoX"):
        find(T2V.shapes, settings=settings).check()


def mutate(shapes, generator):
    """The same list with a few keys renumbered, renamed, dropped, doubled or reshaped."""
    items = list(shapes.items())
    for _ in range(generator.choice((1, 2, 5, 20))):
        place = generator.randrange(len(items))
        key, shape = items[place]
        lengths = [generator.choice((0, 1, 3, 2**20, 2**62, *shape)) for _ in range(generator.randrange(6))]
        number = generator.choice(("0", "7", "999999999999", "-1", "٣", "00001"))
        items[place] = generator.choice(
            (
                (re.sub(r"\d+", number, key, count=1), shape),
                (key[: generator.randrange(len(key))], shape),
                (key, tuple(lengths)),
                (f"vae.{key}", shape),
                (key.replace("weight", "bias"), shape),
            )
        )
    return dict(items)


@pytest.mark.parametrize(
    "listed", [BY_NAME["cogvideox-1.5-5b-i2v-comfy-2-blocks"], VAE, T5], ids=lambda listed: listed.name
)
def test_mutated_key_lists_are_found_out_quickly_and_in_words(listed):
    generator = random.Random(0)
    for _ in range(60):
        shapes = mutate(listed.shapes, generator)
        start = time.perf_counter()
        try:
            for finding in detect_all(header(shapes), FAMILIES):
                finding.check()
        except CheckpointError as error:
            assert "model.safetensors" in str(error)
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("word", ["I8", "U8", "F99", "C64"])
def test_integer_weights_are_refused(word):
    dtypes = {**dict.fromkeys(VAE.shapes, "F16"), "decoder.conv_in.conv.weight": word}
    head = header(VAE.shapes)
    finding = detect(type(head)(head.name, (), head.shapes, dtypes, {}), FAMILIES)
    with pytest.raises(CheckpointError, match=f"1 weights are no floating point numbers .*{word}"):
        finding.check()


def stranger():
    """Keys of a diffusion transformer that is none of ours: 338 of 607 are in CogVideoX's table too.

    PixArt's as diffusers 0.42 names them, without what tells PixArt.
    """
    inner = [f"attn{n}.to_{name}" for n in (1, 2) for name in ("q", "k", "v", "out.0")]
    inner += ["ff.net.0.proj", "ff.net.2"]
    blocks = [f"transformer_blocks.{i}.{name}" for i in range(28) for name in inner]
    around = ["pos_embed.projection", "proj_out", "adaln.linear"]
    around += [f"adaln.emb.{e}_embedder.linear_{n}" for e in ("timestep", "resolution") for n in (1, 2)]
    tables = ["scale_shift_table", *(f"transformer_blocks.{i}.scale_shift" for i in range(28))]
    return dict.fromkeys(
        [*(f"{name}.{end}" for name in (*blocks, *around) for end in ("weight", "bias")), *tables], (1, 1)
    )


def diluted(listed, share):
    """A key list without one of its telling keys, under `share` of all the keys of a file."""
    telling = FAMILIES[0].parts[listed.kind].signature
    ours = {key: listed.shapes[key] for key in (*telling, *sorted(listed.shapes)[:15]) if key != telling[0]}
    strangers = round(len(ours) * (1 - share) / share)
    return ours | {f"stranger.{i}.weight": (1,) for i in range(strangers)}


def test_another_model_is_not_called_a_damaged_one_of_ours():
    strange = find(stranger())
    assert (strange.family, strange.keys) == ("unknown", 603)
    assert "is of no kind known here: 603 keys" in strange.complaint()
    for share in (0.05, 0.4):
        assert find(diluted(T2V, share)).family == "unknown", share
    assert find(diluted(T2V, 0.6)).family == "cogvideox"


WRAPPINGS = [
    "_orig_mod.",
    "module.",
    "transformer.",
    "model.",
    "net.",
    "pipe.transformer.",
    "module._orig_mod.",
    "_orig_mod.module.model.diffusion_model.",
    "model.net.transformer._orig_mod.",
    "pipeline.transformer._fsdp_wrapped_module.",
]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_keys_are_those_inside(wrapping, monkeypatch):
    remember_shapes(monkeypatch)
    for listed in (T2V, VAE, T5):
        finding = find(under(wrapping, listed.shapes)).check()
        assert (finding.kind, finding.prefix) == (listed.kind, wrapping)
        plain = find(listed.shapes).check().renames
        assert finding.renames == {wrapping + key: ours for key, ours in plain.items()}


def test_a_wrapped_checkpoint_of_many_parts():
    listed = BY_NAME["svd-xt"]
    findings = detect_all(header(under("module._orig_mod.", listed.shapes)), FAMILIES)
    assert tuple(finding.check().kind for finding in findings) == listed.kinds


def test_blocks_that_were_compiled_one_by_one():
    wrapped = {re.sub(r"(blocks\.\d+\.)", r"\1_orig_mod.", key): shape for key, shape in T2V.shapes.items()}
    assert wrapped.keys() != T2V.shapes.keys()
    assert sorted(find(wrapped).check().renames.values()) == sorted(T2V.shapes)


def test_a_wrapped_key_beside_its_plain_one_is_not_dropped():
    plain, wrapped = (
        "transformer_blocks.1.norm1.linear.bias",
        "transformer_blocks.1._orig_mod.norm1.linear.bias",
    )
    for shapes in ({**T2V.shapes, wrapped: (1,)}, {wrapped: (1,), **T2V.shapes}):
        finding = find(shapes)
        assert finding.unexpected == (wrapped,)
        assert finding.renames[plain] == plain


def test_a_pipeline_under_its_own_names():
    parts = {"pipe.transformer.": I2V, "pipe.vae.": VAE, "pipe.text_encoder.": T5}
    shapes = {
        key: shape for prefix, listed in parts.items() for key, shape in under(prefix, listed.shapes).items()
    }
    findings = detect_all(header(shapes), FAMILIES)
    assert [(finding.check().kind, finding.prefix) for finding in findings] == [
        ("diffusion_model", "pipe.transformer."),
        ("text_encoder", "pipe.text_encoder."),
        ("vae", "pipe.vae."),
    ]


def test_the_other_loader_is_named():
    cogvideox, svd, animatediff, *_ = FAMILIES
    xt, exvideo, motion = (BY_NAME[name] for name in ("svd-xt", "svd-exvideo", "animatediff-v3"))
    for shapes, family, kind, words in [
        (xt.shapes, cogvideox, "diffusion_model", "no CogVideoX diffusion model: use SVD Loader."),
        (xt.shapes, cogvideox, "vae", "no CogVideoX vae: use SVD Loader."),
        (
            T2V.shapes,
            svd,
            "diffusion_model",
            "is CogVideoX 2B, no SVD diffusion model: use CogVideoX Loader.",
        ),
        (
            exvideo.shapes,
            svd,
            "diffusion_model",
            "is SVD ExVideo, no SVD diffusion model: use ExVideo Patch.",
        ),
        (
            motion.shapes,
            svd,
            "diffusion_model",
            "is AnimateDiff v3, no SVD diffusion model: use Motion Module Apply.",
        ),
        (xt.shapes, animatediff, "motion_module", "no AnimateDiff motion module: use SVD Loader."),
        (VAE.shapes, cogvideox, "diffusion_model", "it holds CogVideoX vae, and a diffusion_model is wanted"),
        (stranger(), svd, "diffusion_model", "is of no kind known here"),
    ]:
        with pytest.raises(CheckpointError) as caught:
            choose(header(shapes), FAMILIES, family, kind)
        assert words in str(caught.value) and str(caught.value).startswith("model.safetensors ")
    assert choose(header(T2V.shapes), FAMILIES, cogvideox, "diffusion_model").complete


# of other families: the same text encoder; the whole image VAE whose encoder SVD uses
ALSO = {
    "t5-v1_1-xxl-encoder": {("pixart", "text_encoder")},
    "svd-xt": {("pixart", "vae")},
}


@pytest.mark.parametrize("listed", KEY_LISTS, ids=lambda listed: listed.name)
def test_what_a_file_surely_holds_is_told_by_its_keys_alone(listed):
    parts = {(listed.family, kind) for kind in listed.kinds} | ALSO.get(listed.name, set())
    assert sure_parts(listed.shapes, FAMILIES) == parts
    assert sure_parts(under("module.", listed.shapes), FAMILIES) == parts
    assert sure_parts({**listed.shapes, "vae.x": (1,)}, FAMILIES) == frozenset(), "x may be anybody's"


@pytest.mark.parametrize("key", FAMILIES[0].parts["diffusion_model"].signature)
def test_nothing_is_sure_without_every_telling_key(key):
    assert sure_parts(T2V.shapes.keys() - {key}, FAMILIES) == frozenset()


def test_nothing_is_sure_of_a_strange_file():
    assert (
        sure_parts([], FAMILIES)
        == sure_parts(stranger(), FAMILIES)
        == sure_parts(["a"], FAMILIES)
        == frozenset()
    )
