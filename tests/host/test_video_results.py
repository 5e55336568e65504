"""What becomes of a clip on the real host: frames as other nodes give them, alpha, notes, rates and names."""

import json
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from kinetograph.modules.videofile.formats import find_format
from kinetograph.modules.videofile.metadata import read_metadata
from kinetograph.modules.videofile.readback import inspect
from kinetograph.tests.host.graphs import node
from kinetograph.tests.host.test_video_combine import combine, flat

pytestmark = pytest.mark.newest

ODD = {
    "my notes": 1,
    "größe": 2,
    "encoder": 3,
    "duration": 4,
    "a:b": 5,
    "Workflow": 6,
    "tab\there": 7,
    "nul\0": 8,
}
LISTED = [[{"nodes": []}], "text", 7]


def every(formats, images, **changes):
    """One node for each format, all in one prompt: their ids are the formats."""
    return {name: combine(images, name, options=options, **changes) for name, options in formats.items()}


def path_of(server, result, node_id):
    (item,) = result.outputs[node_id]["images"]
    return server.base / item["type"] / item["subfolder"] / item["filename"]


def decoded_to_video(name="video/av1-webm", **changes):
    """Latents of SVD straight into a file: a VAE whose frames are not contiguous."""
    parts = {"image_encoder": "from the checkpoint", "vae": "from the checkpoint", "weight_dtype": "fp32"}
    asked = {"width": 64, "height": 64, "num_frames": 3, "batch_size": 1}
    save = combine(name=name, **changes)["inputs"]
    save = {key: value for key, value in save.items() if key not in ("images", "pingpong")}
    return {
        "loader": node("KinetographSVDLoader", model="SVD/tiny-svd.safetensors", **parts),
        "latent": node("KinetographVideoLatent", family="svd", **asked),
        "video": node("KinetographVAEDecodeToVideo", vae=["loader", 2], latent=["latent", 0], **save),
    }


def test_frames_that_are_not_contiguous_reach_every_deep_format(client, server):
    """Upscale Image by lanczos and ImageRotate give such frames, and so does the VAE of SVD."""
    deep = {
        "video/h264-mp4": {"pix_fmt": "yuv420p10le"},
        "video/h265-mp4": {"pix_fmt": "yuv420p10le"},
        "video/ProRes": {},
        "video/ffv1-mkv": {"pix_fmt": "gbrp16le"},
    }
    prompt = {
        "frames": flat(3, 32),
        "larger": node(
            "ImageScale", image=["frames", 0], upscale_method="lanczos", width=64, height=80, crop="disabled"
        ),
        "turned": node("ImageRotate", image=["larger", 0], rotation="90 degrees"),
        **every(deep, ("turned", 0), pingpong=True, loop_count=1),
        **decoded_to_video(),
    }
    result = client.run(prompt)
    assert result.status == "success", result.message
    for name in deep:
        found = inspect(path_of(server, result, name))
        assert (found.num_frames, found.width, found.height) == (8, 80, 64)
    assert inspect(path_of(server, result, "video")).num_frames == 3


def test_alpha_is_kept_or_dropped_and_said_so(client, server):
    keep = {
        "video/ProRes": {"profile": "4444 alpha"},
        "video/webm": {"pix_fmt": "yuva420p"},
        "image/webp-alpha": {},
    }
    drop = {"video/h264-mp4": {}, "image/webp": {}}
    prompt = {
        "frames": flat(3),
        "mask": node("SolidMask", value=0.5, width=64, height=64),
        "rgba": node("JoinImageWithAlpha", image=["frames", 0], alpha=["mask", 0]),
        **every(keep | drop, ("rgba", 0)),
    }
    result = client.run(prompt)
    assert result.status == "success", result.message
    for name in keep | drop:
        assert inspect(path_of(server, result, name)).alpha == (name in keep)
        dropped = any(
            said.startswith("The alpha of the frames was dropped")
            for said in result.outputs[name].get("text", [])
        )
        assert dropped == (name in drop)
    with Image.open(path_of(server, result, "image/webp-alpha")) as picture:
        shown = np.stack([np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(picture)])
    assert set(np.unique(shown[..., 3])) <= {127, 128}


def test_a_clip_is_never_lost_for_the_name_of_a_note(client, server):
    formats = ("video/h264-mp4", "video/webm", "video/ffv1-mkv", "image/webp", "image/gif")
    prompt = {"frames": flat(2), **every({name: {} for name in formats}, ("frames", 0)), **decoded_to_video()}
    result = client.run(prompt, notes={**ODD, "workflow": {"nodes": [1]}})
    assert result.status == "success", result.message
    for node_id, name in [*zip(formats, formats, strict=True), ("video", "video/av1-webm")]:
        path = path_of(server, result, node_id)
        kept, said = read_metadata(path, find_format(name)), result.outputs[node_id]["text"][0]
        assert (json.loads(kept["workflow"]), json.loads(kept["prompt"])) == ({"nodes": [1]}, prompt)
        lost = [key for key, value in ODD.items() if kept.get(key, kept.get(key.lower())) != str(value)]
        assert "nul\0" in lost and [key for key in lost if f"{key!r} (" not in said] == []
        assert inspect(path).num_frames in (2, 3) or name == "image/webp"


@pytest.mark.parametrize("notes", LISTED, ids=repr)
def test_notes_that_are_no_dictionary_are_named(client, server, notes):
    result = client.run(
        {"frames": flat(2), "save": combine(frame_rate=9.0 + LISTED.index(notes))}, notes=notes
    )
    assert result.status == "success", result.message
    assert f"'extra_pnginfo' (a {type(notes).__name__} came" in result.outputs["save"]["text"][0]
    assert "prompt" in read_metadata(path_of(server, result, "save"), find_format("video/h264-mp4"))


@pytest.mark.parametrize("rate", [23.976, 24000 / 1001, 59.94, 60000 / 1001, 119.88], ids=str)
def test_rates_are_exact_in_the_file(client, server, rate):
    result = client.run({"frames": flat(4, 32), "save": combine(frame_rate=rate)})
    assert result.status == "success", result.message
    with av.open(str(path_of(server, result, "save"))) as container:
        assert container.streams.video[0].average_rate == Fraction(rate).limit_denominator(1001)


def test_the_page_takes_three_decimals_of_a_rate(client):
    for kind in ("KinetographVideoCombine", "KinetographVAEDecodeToVideo"):
        (schema,) = client.get_json(f"/object_info/{kind}").values()
        assert schema["input"]["required"]["frame_rate"][1]["step"] == 0.001


def test_names_are_filled_in_by_both_nodes(client, server):
    prefix = "named\\%date:yyyy-MM-dd%/50% %Clip.batch_size%_%KinetographSVDLoader.vae%_%width%"
    prompt = {
        "frames": flat(3, 32),
        **decoded_to_video(filename_prefix=prefix),
        "save": combine(filename_prefix=prefix),
    }
    prompt["frames"]["_meta"]["title"] = "Clip"
    before = time.strftime("%Y-%m-%d")
    result = client.run(prompt)
    assert result.status == "success", result.message
    for node_id, width, suffix in (("save", 32, "mp4"), ("video", 64, "webm")):
        path = path_of(server, result, node_id)
        assert path.name == f"50% 3_from the checkpoint_{width}_00001_.{suffix}"
        assert path.parent.parent.name == "named" and before <= path.parent.name <= time.strftime("%Y-%m-%d")


@pytest.mark.parametrize(
    ("token", "said"),
    [("Nobody.seed", "fits no node of this prompt"), ("EmptyImage.width", "fits 2 nodes of this prompt")],
)
def test_a_token_without_one_node_is_an_error_before_any_work(client, token, said):
    prompt = {
        "frames": flat(2),
        "others": flat(3),
        "save": combine(filename_prefix=f"%{token}%/x", frame_rate=6.0),
    }
    result = client.run(prompt)
    assert result.status == "error" and f"%{token}% {said}" in result.message
    assert "frames" not in [data.get("node") for kind, data in result.events if kind == "executing"]


def test_the_page_gets_the_script_that_shows_results(client):
    (script,) = [path for path in client.get_json("/extensions") if path.endswith("/results.js")]
    words = client.get(script).decode()
    assert all(kind in words for kind in ("KinetographVideoCombine", "KinetographVAEDecodeToVideo"))
