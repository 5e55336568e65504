"""Fit Video over HTTP: its VIDEO in the host's nodes, and frames that are decoded only for whoever takes them."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from kinetograph.tests.films import numbers, shots, write
from kinetograph.tests.host.graphs import loader, node

CHOICES = {
    "start": 0.5,
    "frame_rate": 0.0,
    "every_nth": 2,
    "num_frames": 9,
    "width": 48,
    "height": 32,
    "fit": "crop",
}
TAKEN = list(range(10, 28, 2))
EXACT = {"posterior": "mean"}


@pytest.fixture(scope="module")
def film(base):
    (base / "input").mkdir(exist_ok=True)
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 24000)).astype(np.float32)
    write(base / "input" / "prompt_film.mkv", shots(60), 20, sound=(sound, 8000, Fraction(0)))
    return "prompt_film.mkv"


def fitted(film, **changes):
    return {
        "load": node("LoadVideo", file=film),
        "fit": node("KinetographFitVideo", video=["load", 0], **{**CHOICES, **changes}),
    }


def frames_of(client, result, node_id):
    pictures = (Image.open(io.BytesIO(client.view(file))) for file in result.outputs[node_id]["images"])
    return [np.asarray(picture.convert("RGB")) for picture in pictures]


def parts(video, name):
    """The host's own nodes on a VIDEO."""
    return {
        f"{name}_parts": node("GetVideoComponents", video=video),
        name: node("SaveImage", images=[f"{name}_parts", 0], filename_prefix=name),
    }


def test_its_video_in_the_hosts_nodes(client, server, film):
    """Save Video and Get Video Components take it, with sound; nobody asked for the IMAGE."""
    save = node("SaveVideo", video=["fit", 2], filename_prefix="video/fit", format="auto", codec="auto")
    result = client.run({**fitted(film), **parts(["fit", 2], "shown"), "save": save})
    assert result.error is None, result.message
    assert numbers(frames_of(client, result, "shown")) == TAKEN
    (file,) = result.outputs["save"]["images"]
    with av.open(io.BytesIO(client.view(file))) as container:
        assert len(list(container.decode(video=0))) == 9 and container.streams.audio
        assert container.streams.video[0].average_rate == 10


def test_whoever_takes_the_frames_later_gets_them(client, film):
    """The host keeps what a node gave; frames that nobody took must not be missing when somebody does."""
    without = client.run({**fitted(film, start=0.3), **parts(["fit", 2], "first")})
    assert without.error is None, without.message
    taken = node("SaveImage", images=["fit", 0], filename_prefix="taken")
    sound = node("SaveAudio", audio=["fit", 1], filename_prefix="sound")
    both = client.run({**fitted(film, start=0.3), "taken": taken, "sound": sound})
    assert both.error is None, both.message
    assert (
        numbers(frames_of(client, both, "taken")) == list(range(6, 24, 2)) and both.outputs["sound"]["audio"]
    )
    again = client.run({**fitted(film, start=0.3), **parts(["fit", 2], "third")})
    assert again.error is None, again.message
    assert numbers(frames_of(client, again, "third")) == list(range(6, 24, 2))


def test_encoded_from_either_kind(client, film):
    """One input, two kinds of link; a saved workflow with an IMAGE there opens as before."""
    prompt = {**fitted(film), "loader": loader()}
    for name, source in (("image", ["fit", 0]), ("video", ["fit", 2])):
        encode = node("KinetographVAEEncodeChunked", vae=["loader", 2], images=source, posterior="mean")
        decode = node("VAEDecode", samples=[f"{name}_latent", 0], vae=["loader", 2])
        prompt |= {
            f"{name}_latent": encode,
            f"{name}_frames": decode,
            name: node("SaveImage", images=[f"{name}_frames", 0], filename_prefix=name),
        }
    result = client.run(prompt)
    assert result.error is None, result.message
    image, video = (frames_of(client, result, name) for name in ("image", "video"))
    assert len(image) == len(video) == 9 and all(map(np.array_equal, image, video))


def test_a_latent_in_its_place_is_refused(client, film):
    latent = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    encode = node("KinetographVAEEncodeChunked", vae=["loader", 2], images=["latent", 0], posterior="mean")
    save = node("SaveLatent", samples=["encode", 0], filename_prefix="x")
    result = client.run({"loader": loader(), "latent": latent, "encode": encode, "save": save})
    assert result.error is not None and "images" in str(result.message)
