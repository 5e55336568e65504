"""What the host says of a wrong prompt: at the post where it can be known, else before work, once, in our words.

`test_faults.py` and `test_video_combine.py` have the values themselves; here is how, where and how often they are told.
"""

import json
import math

import pytest

from kinetograph.tests.host.graphs import node, picture_to_video, text_to_video, with_chunked_frames

FILE = {"frame_rate": 8.0, "loop_count": 0, "filename_prefix": "posts/x", "format": "video/h264-mp4"}
FILE |= {"format.crf": 19, "format.pix_fmt": "yuv420p", "save_output": False, "save_metadata": True}
FILE |= {"trim_to_audio": False}


def cogvideox(frames=9):
    """A prompt with every node of ours that CogVideoX needs, and a little more."""
    graph = with_chunked_frames(text_to_video("5B-I2V", frames=frames, steps=1))
    graph["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=255)
    start = {"positive": ["positive", 0], "negative": ["negative", 0], "image": ["picture", 0]}
    start |= {"vae": ["loader", 2], "latent": ["latent", 0], "fit": "crop", "posterior": "mean"}
    graph["start"] = node("KinetographImageToVideoConditioning", **start, latent_gain=1.0)
    graph["sampler"]["inputs"].update(positive=["start", 0], negative=["start", 1])
    encode = {"vae": ["loader", 2], "images": ["picture", 0], "posterior": "mean"}
    graph["encode"] = node("KinetographVAEEncodeChunked", **encode)
    graph["again"] = node("SaveLatent", samples=["encode", 0], filename_prefix="posts/latent")
    graph["combine"] = node("KinetographVideoCombine", images=["decode", 0], pingpong=False, **FILE)
    graph["stream"] = node("KinetographVAEDecodeToVideo", vae=["loader", 2], latent=["sampler", 0], **FILE)
    return graph


def svd():
    """The same for SVD, with pinned frames and ExVideo."""
    graph = with_chunked_frames(picture_to_video("posts.png", steps=1))
    graph["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=255)
    pins = {
        "latent": ["latent", 0],
        "vae": ["loader", 2],
        "images": ["picture", 0],
        "frames": "0",
        "fit": "crop",
    }
    graph["pins"] = node("KinetographPinFrames", **pins)
    graph["sampler"]["inputs"]["latent"] = ["pins", 0]
    return graph


def inpainting():
    """The two nodes for what is known of a clip; never run, only refused."""
    graph = with_chunked_frames(text_to_video("5B", steps=1))
    graph["video"] = node("EmptyImage", width=64, height=64, batch_size=9, color=255)
    graph["mask"] = node("SolidMask", value=1.0, width=64, height=64)
    both = {
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "vae": ["loader", 2],
        "latent": ["latent", 0],
    }
    graph["follow"] = node("KinetographControlVideoConditioning", video=["video", 0], fit="crop", **both)
    both |= {"positive": ["follow", 0], "negative": ["follow", 1], "model": ["loader", 0], "fit": "crop"}
    mode = {"mode": "mask resized", "mode.image_noise": "none", "mode.seed": 0}
    known = {"video": ["video", 0], "mask": ["mask", 0]}
    graph["inpaint"] = node("KinetographInpaintConditioning", **both, **mode, **known)
    graph["sampler"]["inputs"].update(positive=["inpaint", 0], negative=["inpaint", 1], latent=["inpaint", 2])
    return graph


ENDS = ("save", "again", "combine", "stream")


def changed(graph, key, **values):
    """The graph with other values at a node, and only one end, which needs that node: others would hide the refusal."""
    end = key if key in ENDS else next(end for end in ENDS if end in graph and needs(graph, end, key))
    graph = {name: entry for name, entry in graph.items() if name == end or name not in ENDS}
    graph[key]["inputs"].update(values)
    return graph


def needs(graph, end, key):
    links = [value[0] for value in graph[end]["inputs"].values() if isinstance(value, list)]
    return key in links or any(needs(graph, link, key) for link in links if link in graph)


def errors(result, key):
    """[(input, details)] that the host answered for one node."""
    assert result.status == "refused", result.message
    said = result.node_errors[key]["errors"]
    return [(error["extra_info"].get("input_name"), error["details"]) for error in said]


# node, wrong values, the input that the words begin with, how many errors the host makes of it
WRONG = [
    (cogvideox, "sampler", {"guidance": "strong"}, "guidance", 1),
    (cogvideox, "sampler", {"guidance": ["loader", 9]}, "guidance", 1),
    (cogvideox, "sampler", {"guidance": ["nobody", 0]}, "guidance", 1),
    (cogvideox, "sampler", {"long_clip": "perhaps"}, "long_clip", 2),
    (cogvideox, "sampler", {"long_clip": ["loader", 9]}, "long_clip", 2),
    (cogvideox, "sampler", {"denoise": math.nan}, "denoise", 1),
    (cogvideox, "sampler", {"guidance.cfg": math.nan}, "guidance.cfg", 1),
    (cogvideox, "sampler", {"seed": -1}, "seed", 1),
    (cogvideox, "start", {"posterior": "median"}, "posterior", 1),
    (cogvideox, "start", {"posterior": ["loader", 7]}, "posterior", 1),
    (cogvideox, "start", {"posterior": {"posterior": "mean"}}, "posterior", 1),
    (cogvideox, "start", {"latent_gain": math.nan}, "latent_gain", 1),
    (cogvideox, "encode", {"posterior": ["loader", 7]}, "posterior", 1),
    (cogvideox, "encode", {"posterior": None}, "posterior", 1),
    (cogvideox, "latent", {"width": 100}, "width", 4),
    (cogvideox, "latent", {"batch_size": 0}, "batch_size", 1),
    (cogvideox, "latent", {"family": {"family": "svd"}}, "family", 4),
    (cogvideox, "loader", {"vae": "nothing.safetensors"}, "", 3),
    (cogvideox, "loader", {"model": {"model": 1}}, "", 3),
    (cogvideox, "loader", {"weight_dtype": "int4"}, "weight_dtype", 1),
    (cogvideox, "combine", {"format": ["loader", 9]}, "format", 2),
    (cogvideox, "combine", {"format": "video/none"}, "format", 2),
    (cogvideox, "stream", {"filename_prefix": "../up"}, "filename_prefix", 2),
    (cogvideox, "stream", {"frame_rate": math.nan}, "frame_rate", 2),
    (
        cogvideox,
        "stream",
        {"format": "image/gif", "format.dither": "bayer", "frame_rate": 60.0},
        "frame_rate",
        2,
    ),
    (cogvideox, "combine", {"format.crf": 99}, "format.crf", 1),
    (cogvideox, "combine", {"loop_count": -1}, "loop_count", 1),
    (svd, "condition", {"noise_aug_strength": math.nan}, "noise_aug_strength", 1),
    (svd, "condition", {"fps": 0}, "fps", 1),
    (svd, "pins", {"frames": "last"}, "frames", 1),
    (inpainting, "inpaint", {"mode": "both"}, "mode", 1),
    (inpainting, "inpaint", {"mode": ["loader", 9]}, "mode", 1),
    (inpainting, "inpaint", {"mode.image_noise": "loud"}, "mode.image_noise", 1),
    (inpainting, "inpaint", {"mode.seed": -1}, "mode.seed", 1),
    (inpainting, "follow", {"fit": "pad"}, "fit", 1),
]


def named(value):
    """A short name of a test's value, the same in every process."""
    return getattr(value, "__name__", ascii(value)[:40])


@pytest.fixture(scope="module", autouse=True)
def start_picture(base):
    from PIL import Image

    (base / "input").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "white").save(base / "input" / "posts.png")


@pytest.mark.parametrize("make, key, values, named, count", WRONG, ids=named)
def test_a_wrong_value_is_refused_at_the_post_in_words_that_begin_with_it(
    client, make, key, values, named, count
):
    found = errors(client.run(changed(make(), key, **values)), key)
    for name, details in found:
        assert details.removeprefix(f"{name} - ").startswith(named), details
        assert "Traceback" not in details and "Error" not in details and "object has no" not in details
    assert len(found) == count, found


def sockets(client, kind):
    """Inputs of a node that take links alone."""
    info = client.get_json(f"/object_info/{kind}")[kind]["input"]
    links = {"MODEL", "CLIP", "VAE", "CLIP_VISION", "CONDITIONING", "LATENT", "IMAGE", "MASK", "AUDIO"}
    return [name for group in ("required", "optional") for name, (kind, *_) in info.get(group, {}).items()
            if isinstance(kind, str) and kind in links]  # fmt: skip


@pytest.mark.parametrize("make", [cogvideox, svd, inpainting])
def test_a_value_typed_into_a_socket_is_refused_at_the_post(client, make):
    tried = 0
    for key, entry in make().items():
        if not entry["class_type"].startswith("Kinetograph"):
            continue
        for name in sockets(client, entry["class_type"]):
            value = {"a": 1} if tried % 2 else 5
            found = errors(client.run(changed(make(), key, **{name: value})), key)
            assert [where for where, _ in found] == [name] and found[0][1].startswith(name), found
            tried += 1
    assert tried >= 12


def test_an_optional_socket_may_hold_nothing(client):
    result = client.run({key: entry for key, entry in changed(svd(), "latent", model=None).items()})
    assert result.status == "success", result.message


# a value over a link -> node, input, kind of the host's primitive, value, words
LINKED = [
    (
        cogvideox,
        "sampler",
        "guidance.cfg",
        "PrimitiveFloat",
        1e6,
        "guidance.cfg must be a number from 0 to 100",
    ),
    (cogvideox, "sampler", "steps", "PrimitiveInt", 0, "steps must be a number from 1 to 1000: got 0"),
    (
        cogvideox,
        "sampler",
        "denoise",
        "PrimitiveFloat",
        7.0,
        "denoise must be a number from 0.01 to 1: got 7",
    ),
    (cogvideox, "start", "latent_gain", "PrimitiveFloat", -1.0, "latent_gain must be a number from 0 to 10"),
    (cogvideox, "latent", "num_frames", "PrimitiveInt", 10, "use 9 or 13"),
    (
        cogvideox,
        "latent",
        "width",
        "PrimitiveInt",
        100,
        "width must be a multiple of 16 pixels: got width=100",
    ),
    (cogvideox, "decode", "chunk", "PrimitiveInt", -4, "chunk must be a number from 0 to 512: got -4"),
    (
        cogvideox,
        "combine",
        "filename_prefix",
        "PrimitiveString",
        "../up",
        "filename_prefix '../up' cannot be used",
    ),
    (cogvideox, "stream", "filename_prefix", "PrimitiveString", "", "filename_prefix '' cannot be used"),
    (cogvideox, "stream", "frame_rate", "PrimitiveFloat", 1e9, "frame_rate must be a number from 0.1 to 240"),
    (svd, "pins", "frames", "PrimitiveString", "last", "got 'last'"),
    (svd, "condition", "fps", "PrimitiveInt", 999, "fps must be a number from 1 to 120: got 999"),
    (inpainting, "inpaint", "mode.seed", "PrimitiveInt", -5, "mode.seed must be a number from 0 to"),
]


@pytest.mark.parametrize("make, key, name, kind, value, words", LINKED, ids=named)
def test_a_linked_value_meets_the_same_checks_before_any_work(client, make, key, name, kind, value, words):
    graph = changed(make(), key, **{name: ["primitive", 0]})
    graph["primitive"] = node(kind, value=value)
    result = client.run(graph)
    assert result.status == "error" and result.error["node_id"] == key, result.message
    assert words in result.message, result.message
    assert result.error["exception_type"] == "ValueError"
    if key in ("combine", "stream"):
        assert "sampler" not in result.error["executed"], "the clip was computed first"


def test_sound_for_a_format_without_any_is_refused_before_the_clip_is_made(client):
    graph = changed(
        cogvideox(), "stream", **{"format": "image/gif", "format.dither": "bayer", "audio": ["sound", 0]}
    )
    graph["sound"] = node("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
    result = client.run(graph)
    assert result.status == "error" and "holds no sound" in result.message
    assert result.error["exception_type"] == "kinetograph.VideoError"
    assert "sampler" not in result.error["executed"]


def test_an_input_that_a_node_does_not_have_is_left_out_typed_or_linked(client):
    graph = with_chunked_frames(text_to_video(steps=1, seed=99))
    graph = changed(graph, "sampler", nonsense=3, other=["loader", 0])
    assert client.run(graph).status == "success"


def test_the_server_lives_and_bounds_reach_the_page_as_numbers(client):
    """After all of the above the queue still runs, and object_info is plain JSON."""
    info = json.loads(client.get("/object_info/KinetographVideoSampler"))["KinetographVideoSampler"]
    assert info["input"]["required"]["denoise"][1]["min"] == 0.01
    assert client.run(with_chunked_frames(text_to_video(steps=1, seed=100))).status == "success"
