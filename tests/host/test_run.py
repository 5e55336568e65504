"""`dev.py run` from end to end: a shipped template with values of one's own, and a picture from an address."""

import http.server
import json
import shutil
import socket
import threading
from functools import partial

import av
import pytest
from PIL import Image

from kinetograph.tools import run
from kinetograph.tools.commands import Trouble

pytestmark = pytest.mark.newest

WISHES = [
    "Prompt.text=a blue square",
    "CogVideoX Loader.model=CogVideo/mine/pocket-cogvideox-i2v.safetensors",
    "First frame.image=https://pictures.test/start.png",
    "Video Latent.num_frames=9",
    "VideoSampler.steps=2",
    "VideoCombine.frame_rate=12",
    "VideoCombine.format=video/ffv1-mkv",
    "VideoCombine.filename_prefix=mine/clip",
]


@pytest.fixture
def connect(tmp_path):
    """Leads every host to a folder of this machine with one picture in it."""
    (tmp_path / "web").mkdir()
    Image.new("RGB", (100, 80), "blue").save(tmp_path / "web" / "start.png")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "web")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield lambda host, port: socket.create_connection(server.server_address, 5)
    server.shutdown()
    server.server_close()


def test_a_template_with_values_of_ones_own(host, tmp_path, connect, capfd):
    """The model lies in a models folder of the user's, and says so by its name."""
    mine = tmp_path / "my models" / "CogVideo" / "mine"
    mine.mkdir(parents=True)
    shutil.copy(run.session.ROOT / "pocket/models/CogVideo/pocket-cogvideox-i2v.safetensors", mine)
    output = tmp_path / "results"
    job = run.plan("try_cogvideox_image", WISHES, output, connect)
    assert run.run(host, job, cpu=True, models=[mine.parents[1]]) == 0
    (clip,) = (output / "mine").iterdir()
    words = capfd.readouterr().out
    assert f"Reopened: {clip}: 9 frames of 64x64" in words and "Video Sampler\n" in words
    assert (output / "start.png").read_bytes() == (tmp_path / "web" / "start.png").read_bytes()
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 12
        ran = {key.lower(): value for key, value in container.metadata.items()}["prompt"]
    assert len(frames) == 9
    assert (frames[0].mean((0, 1)) - (0, 0, 255) < 60).all()  # it starts with the picture
    inputs = [node["inputs"] for node in json.loads(ran).values()]
    assert any(one.get("text") == "a blue square" for one in inputs)
    assert not any("format.crf" in one for one in inputs)  # an option of the format that stood there


def test_words_of_the_server_reach_the_person(server, client, tmp_path):
    job = run.plan("try_cogvideox_image", ["CogVideoX Loader.model=CogVideo/none"], tmp_path)
    with pytest.raises(Trouble, match="(?s)did not make the video .refused.*CogVideo/none"):
        run.session.make(server, job.graph, 60)
