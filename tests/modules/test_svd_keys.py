"""SVD's files: the published lists strictly, every layout the same weights, and what must not pass for SVD."""

import hashlib
import json
import random
import re
import time

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.doctor import examine
from kinetograph.modules.encoders.clip_vision import CLIPVisionConfig, to_hugging_face
from kinetograph.modules.families import SVD
from kinetograph.modules.families.svd import keys
from kinetograph.modules.weights.detect import detect, detect_all
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.load import load_into, read_part
from kinetograph.tests import tiny_svd
from kinetograph.tests.checkpoints import BY_NAME, header, remember_shapes

XT = BY_NAME["svd-xt"].shapes
UNET = BY_NAME["svd-diffusers-unet"].shapes
VAE = BY_NAME["svd-diffusers-vae"].shapes
IMAGE_ENCODER = BY_NAME["svd-diffusers-image-encoder"].shapes
EXVIDEO = BY_NAME["svd-exvideo"].shapes
NETWORK, FIRST_STAGE = "model.diffusion_model.", "first_stage_model."
CLIP, PICTURE = "conditioner.embedders.0.open_clip.model.", "conditioner.embedders.3.encoder."
MICRO = NETWORK + "label_emb.0.0.weight"


def find(shapes, kind=None, **options):
    return detect(header(shapes, **options), (SVD,), kind)


def below(prefix, shapes):
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def in_our_names(finding, shapes):
    """{our key: shape as loaded}."""
    held = {ours: shapes[key] for key, ours in finding.renames.items() if ours is not None}
    return held | finding.reshaped


@pytest.mark.parametrize(
    ("name", "published"),
    [("svd-xt", "2a07abce74b4bdc696b76254ab474da6"), ("svd-exvideo", "9a4ab6869ac9b7d6e31f9854e397c867")],
)
def test_our_lists_have_the_fingerprints_of_the_published_files(name, published):
    """md5 of "key:d0_d1" and "key" of every tensor, sorted: so diffsynth 1.1.9 (model_config.py) knows files."""
    shapes = BY_NAME[name].shapes.items()
    words = [word for key, shape in shapes for word in (f"{key}:{'_'.join(map(str, shape))}", key)]
    assert hashlib.md5(",".join(sorted(words)).encode()).hexdigest() == published


@pytest.mark.parametrize(
    ("kind", "used", "dropped"),
    [("diffusion_model", 1428, 0), ("image_encoder", 392, 6), ("vae", 372, 0), ("image_vae", 108, 140)],
)
def test_every_key_of_svd_xt_is_used_or_dropped_knowingly_within_a_second(kind, used, dropped):
    took = []
    # the quickest of three: a machine with other work takes longer for the same
    for _ in range(3):
        start = time.process_time()
        finding = find(XT, kind).check()
        took.append(time.process_time() - start)
        assert (finding.matched, finding.num_dropped, finding.dialect) == (used, dropped, "original")
    assert min(took) < 1, took


@pytest.mark.parametrize("shapes", [XT, UNET, VAE, EXVIDEO], ids=["svd_xt", "unet", "vae", "exvideo"])
def test_our_models_hold_exactly_what_the_files_hold(shapes):
    built = [finding for finding in detect_all(header(shapes), (SVD,)) if finding.part.build is not None]
    for finding in built:
        module = finding.part.empty(finding.config)
        assert in_our_names(finding, shapes) == {k: tuple(v.shape) for k, v in module.state_dict().items()}
        assert {name for name, _ in (*module.named_parameters(), *module.named_buffers())} == set(
            module.state_dict()
        )


def test_diffusers_and_the_original_file_are_the_same_weights():
    assert in_our_names(find(UNET), UNET) == below(NETWORK, XT)
    quant = {key: shape for key, shape in VAE.items() if key.startswith("quant_conv")}
    assert in_our_names(find(VAE), VAE) == below(FIRST_STAGE, XT) | quant
    assert find(VAE).config.quant_conv and not find(XT, "vae").config.quant_conv


def test_exvideo_replaces_33_tensors_in_each_of_the_16_transformers():
    renames = find(EXVIDEO).check().renames
    places = {}
    for ours in renames.values():
        place, name = re.fullmatch(r"((?:input|output)_blocks\.\d+\.1|middle_block\.1)\.(.+)", ours).groups()
        places.setdefault(place, set()).add(name)
    assert len(places) == 16 and {len(names) for names in places.values()} == {33}
    network = below(NETWORK, XT)
    for place, names in places.items():
        added = {name for name in names if f"{place}.{name}" not in network}
        assert added == {"positional.embeddings", "positional.conv.weight", "positional.conv.bias"}
        branch = {key for key in network if re.match(re.escape(place) + r"\.time_(stack|pos_embed)\.", key)}
        assert {f"{place}.{name}" for name in names - added} == branch


def test_exvideo_places_follow_the_order_of_the_network():
    """Two independent numberings agree: diffsynth's counts up as data runs through the original's blocks."""
    order = ["input", "middle", "output"]
    places = [
        key for key in keys.EXVIDEO.rename(f"blocks.{n}.norm_in.bias" for n in keys.EXVIDEO_NUMBERS).values()
    ]
    ranks = [(order.index(key.split("_")[0]), [int(n) for n in re.findall(r"\d+", key)]) for key in places]
    assert ranks == sorted(ranks)


CASES = {
    "unet": (below(NETWORK, XT), "diffusion_model"),
    "diffusers unet": (UNET, "diffusion_model"),
    "vae": (below(FIRST_STAGE, XT), "vae"),
    "diffusers vae": (VAE, "vae"),
    "image encoder": (IMAGE_ENCODER, "image_encoder"),
    "exvideo": (EXVIDEO, "extension"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_dropped_key_is_reported(name, monkeypatch):
    remember_shapes(monkeypatch)
    shapes, kind = CASES[name]
    renames = find(shapes, kind).renames
    telling = [key for key, ours in renames.items() if ours in SVD.parts[kind].signature]
    for key in [*telling, *random.Random(0).sample(sorted(shapes), 12)]:
        finding = find({other: shape for other, shape in shapes.items() if other != key})
        assert not finding.complete and finding.kind == kind
        assert renames[key] in finding.complaint()


@pytest.mark.parametrize("name", CASES)
def test_other_keys_and_other_shapes_are_reported(name, monkeypatch):
    remember_shapes(monkeypatch)
    shapes, kind = CASES[name]
    with pytest.raises(CheckpointError, match=r"1 unexpected \(strange\.weight\)"):
        find({**shapes, "strange.weight": (1,)}, kind).check()
    config = find(shapes, kind).config
    for key in random.Random(1).sample(sorted(shapes), 6):
        shape = shapes[key]
        for wrong in [(*shape[:-1], shape[-1] + 1), (*shape, 1), shape[:-1]]:
            finding = find({**shapes, key: wrong}, kind)
            assert not finding.complete or finding.config != config, (key, wrong)


def test_an_extra_block_is_reported():
    extra = {key.replace("output_blocks.11.", "output_blocks.12."): shape for key, shape in XT.items()}
    assert set(find({**XT, **extra}).unexpected) == extra.keys() - XT.keys()


@pytest.mark.parametrize(("width", "name"), [(256, "SV3D_u"), (1280, "SV3D_p")])
def test_sv3d_is_named_and_refused(width, name):
    with pytest.raises(CheckpointError, match=f"{width} numbers wide, which is {name}"):
        find({**XT, MICRO: (1280, width)}).check()


@pytest.mark.parametrize("channels", [4, 9, 12])
def test_other_input_channels_are_refused(channels):
    with pytest.raises(
        CheckpointError, match=f"{channels} input channels for 4 latent channels: SVD takes 8"
    ):
        find({**XT, NETWORK + "input_blocks.0.0.weight": (320, channels, 3, 3)}).check()


def image_model(label_emb):
    """A UNet and a VAE named as Stable Diffusion's: SVD's without what it has over time."""
    absent = re.compile(r"time_(stack|mixer|pos_embed)" + ("" if label_emb else "|label_emb"))
    shapes = {key: shape for key, shape in XT.items() if not absent.search(key)}
    first_stage = {FIRST_STAGE + key: shape for key, shape in below(PICTURE, XT).items()}
    return {key: shape for key, shape in shapes.items() if key.startswith(NETWORK)} | first_stage


@pytest.mark.parametrize("label_emb", [False, True], ids=["SD 1.5", "SDXL"])
@pytest.mark.parametrize("prefix", [NETWORK, FIRST_STAGE, None])
def test_image_models_are_unknown(label_emb, prefix):
    shapes = image_model(label_emb)
    if prefix:
        shapes = below(prefix, shapes)
    for finding in detect_all(header(shapes), (SVD,)):
        assert (finding.family, finding.complete) == ("unknown", False)
        assert "of no kind known here" in finding.complaint()


def test_a_checkpoint_without_the_temporal_decoder_lacks_its_vae():
    """As the releases named "image decoder" are: only first_stage_model is another."""
    first_stage = {FIRST_STAGE + key: shape for key, shape in below(PICTURE, XT).items()}
    shapes = {key: shape for key, shape in XT.items() if not key.startswith(FIRST_STAGE)} | first_stage
    assert find(shapes, "diffusion_model").complete
    with pytest.raises(CheckpointError, match="a vae is wanted here"):
        find(shapes, "vae").check()


def test_an_image_encoder_alone_is_known_in_every_layout():
    fused = find(below(CLIP, XT)).check()
    apart = find({**IMAGE_ENCODER, "vision_model.embeddings.position_ids": (1, 257)}).check()
    saved = find({f"{CLIP}visual.{key}": shape for key, shape in IMAGE_ENCODER.items()}).check()
    assert (fused.config, apart.config) == (CLIPVisionConfig(fused=True), CLIPVisionConfig())
    assert (saved.config, saved.dialect) == (CLIPVisionConfig(), "comfy")


def test_settings_decide_what_no_shape_tells():
    own = {"num_attention_heads": [10, 20, 40, 40], "num_frames": 14, "width": 576, "image_encoder_heads": 20}
    config = find(XT, settings=own).check().config
    assert (config.head_dim, config.native_size) == (32, (576, 576, 14))
    assert find(XT, "image_encoder", settings=own).config.num_heads == 20
    assert find(XT, settings={"head_dim": 16}).config.head_dim == 16
    assert find(EXVIDEO).config.native_size == (512, 512, 128)
    assert find(EXVIDEO, settings=own).config.native_size == (576, 512, 14)
    beside = {"hidden_size": 1280, "num_attention_heads": 8}
    assert find(IMAGE_ENCODER, settings=beside).config.num_heads == 8


@pytest.mark.parametrize(
    "settings",
    [
        {"num_attention_heads": [5, 10, 20, 5]},
        {"num_attention_heads": 5},
        {"num_attention_heads": 0},
        {"num_attention_heads": "5"},
        {"head_dim": 48},
        {"num_frames": 0},
        {"width": "1024"},
        {"addition_time_embed_dim": 128},
    ],
)
def test_settings_that_make_no_sense_are_an_error_in_words(settings):
    with pytest.raises(CheckpointError, match="looks like SVD diffusion_model, but: "):
        find(UNET, settings=settings).check()


@pytest.mark.parametrize("settings", [{"image_encoder_heads": 7}, {"hidden_act": "quick_gelu"}])
def test_image_encoder_settings_that_make_no_sense(settings):
    with pytest.raises(CheckpointError, match="looks like SVD image_encoder, but: CLIP vision encoder with"):
        find(IMAGE_ENCODER, settings=settings).check()


def test_a_diffusers_vae_loads_reshaped_and_without_a_copy(tmp_path):
    reference = tiny_svd.vae()
    reference.save_pretrained(tmp_path)
    finding, tensors = read_part(tmp_path, (SVD,), "vae")
    state = load_into(finding.part.empty(finding.config), tensors, finding.name).state_dict()
    assert state["decoder.mid.attn_1.proj_out.weight"].shape == (64, 64, 1, 1)
    given = reference.state_dict()
    for key, ours in finding.renames.items():
        assert torch.equal(state[ours].flatten(), given[key].flatten())
        assert state[ours].data_ptr() == tensors[ours].data_ptr()


def test_a_diffusers_unet_loads_with_the_heads_of_its_config(tmp_path):
    reference = tiny_svd.unet()
    reference.save_pretrained(tmp_path)
    finding, tensors = read_part(tmp_path, (SVD,), "diffusion_model")
    state = load_into(finding.part.empty(finding.config), tensors, finding.name).state_dict()
    assert (finding.config.head_dim, finding.config.num_frames) == (16, tiny_svd.FRAMES)
    given = reference.state_dict()
    assert all(torch.equal(state[ours], given[key]) for key, ours in finding.renames.items())


def test_an_openclip_file_becomes_the_transformers_model(tmp_path):
    model = tiny_svd.image_encoder()
    reference = model.state_dict()
    openclip = {CLIP + key: tensor.contiguous() for key, tensor in tiny_svd.open_clip(model).items()}
    path = tmp_path / "model.safetensors"
    left = {CLIP + "logit_scale": torch.tensor(1.0), CLIP + "ln_final.bias": torch.zeros(4)}
    settings = {"config": json.dumps({"image_encoder_heads": 2, "num_attention_heads": [1, 1, 1, 1]})}
    save_file({**openclip, **left}, path, metadata=settings)
    finding, tensors = read_part(path, (SVD,), "image_encoder")
    assert (finding.config.fused, finding.config.num_heads, finding.num_dropped) == (True, 2, 2)
    apart = to_hugging_face(tensors, finding.config)
    assert set(apart) == set(reference)
    assert all(torch.equal(apart[key], value) for key, value in reference.items())
    fused = tensors["vision_model.encoder.layers.0.self_attn.in_proj_weight"]
    kept = apart["vision_model.encoder.layers.0.self_attn.q_proj.weight"]
    assert kept.data_ptr() == fused.data_ptr(), "a view of the mapped file"


def test_every_part_of_a_single_file_is_read_from_it(tmp_path):
    path = tiny_svd.write_file(tmp_path / "svd.safetensors")
    for kind in ("diffusion_model", "vae", "image_vae", "image_encoder"):
        finding, tensors = read_part(path, (SVD,), kind)
        assert len(tensors) == finding.matched
    assert examine(path).complete


@pytest.mark.parametrize("listed", [UNET, IMAGE_ENCODER], ids=["unet", "image encoder"])
def test_mutated_key_lists_are_found_out_in_words(listed, monkeypatch):
    remember_shapes(monkeypatch)
    generator = random.Random(0)
    for _ in range(12):
        items = list(listed.items())
        for place in generator.sample(range(len(items)), 3):
            key, shape = items[place]
            number = generator.choice(("7", "999999999999", "-1", "٣", "00001"))
            lengths = tuple(generator.choice((0, 1, 3, 2**62, *shape)) for _ in range(generator.randrange(5)))
            items[place] = generator.choice(
                ((re.sub(r"\d+", number, key, count=1), shape), (key[: len(key) // 2], shape), (key, lengths))
            )
        for finding in detect_all(header(dict(items)), (SVD,)):
            assert finding.complete or "model.safetensors" in finding.complaint()
