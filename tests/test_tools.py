"""The parts of `dev.py` that need neither network nor ComfyUI."""

import base64
import hashlib
import io
import re
import socket
import struct
import sys
import tarfile
import threading

import pytest
import yaml

from kinetograph.tools import contact_sheet, environment, hosts, reopening
from kinetograph.tools.client import Result
from kinetograph.tools.commands import Trouble
from kinetograph.tools.server import free_port, lay_out
from kinetograph.tools.websocket import GUID, WebSocket


def frame(opcode, payload, final=True):
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + struct.pack("!H", size)
    else:
        length = b"\x7f" + struct.pack("!Q", size)
    return bytes([opcode | (0x80 if final else 0)]) + length + payload


@pytest.fixture
def speak():
    """A server that shakes hands, says the bytes given, and hangs up when told; returns a connected client."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()
    heard = []

    def serve(words, accept):
        connection, _ = listener.accept()
        request = connection.recv(4096).decode()
        key = re.search(r"Sec-WebSocket-Key: (\S+)", request)[1]
        answer = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        head = f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept or answer}\r\n\r\n"
        connection.sendall(head.encode() + words)
        done.wait(5)
        connection.settimeout(0.2)
        try:
            heard.append(connection.recv(4096))
        except TimeoutError:
            pass
        connection.close()

    def start(words, accept=None):
        threading.Thread(target=serve, args=(words, accept), daemon=True).start()
        return WebSocket(*listener.getsockname(), "/ws")

    start.heard, start.done = heard, done
    yield start
    done.set()
    listener.close()


def test_messages_of_all_lengths_arrive_whole(speak):
    long = bytes(range(256)) * 400
    talk = speak(frame(1, "{}é".encode()) + frame(2, b"x" * 300) + frame(2, long))
    assert [talk.receive(5) for _ in range(3)] == ["{}é", b"x" * 300, long]


def test_split_messages_are_joined_and_pings_answered(speak):
    talk = speak(frame(1, b"one ", final=False) + frame(9, b"?") + frame(0, b"two"))
    assert talk.receive(5) == "one two"
    speak.done.set()
    with pytest.raises(ConnectionError):
        talk.receive(5)
    (pong,) = speak.heard
    assert pong[0] == 0x8A and pong[1] == 0x81 and pong[6] ^ pong[2] == ord("?")


def test_silence_is_a_timeout_and_leaves_the_connection_usable(speak):
    talk = speak(b"")
    with pytest.raises(TimeoutError):
        talk.receive(0.05)
    with pytest.raises(TimeoutError):
        talk.receive(0.05)


def test_a_server_that_is_no_websocket_is_refused(speak):
    with pytest.raises(ConnectionError):
        speak(b"", accept="wrong")


def archive(path, names, link=None):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"data"))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(member)
    return path


def test_only_comfyui_leaves_the_archive(tmp_path):
    names = ["p-1/setup.py", "p-1/vendor/ComfyUI/main.py", "p-1/vendor/ComfyUI/comfy/sd.py"]
    climbing = ["p-1/vendor/ComfyUI/../../../../climbed.py", "p-1/vendor/Other/x.py"]
    source = archive(tmp_path / "a.tar.gz", names + climbing, link="p-1/vendor/ComfyUI/link")
    hosts._unpack(source, tmp_path / "out")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["a.tar.gz", "out/comfy/sd.py", "out/main.py"]


def test_own_comfyui_comes_first_and_must_be_one(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(Trouble, match="holds no ComfyUI"):
        hosts.find()
    (tmp_path / "main.py").touch()
    (tmp_path / "comfy").mkdir()
    assert hosts.find() == tmp_path.resolve()


def test_a_step_runs_once_per_wish(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment, "STAMPS", tmp_path)
    done = []
    for wish in ("a", "a", "b"):
        environment._step("Some step", [wish], lambda wish=wish: done.append(wish))
    assert done == ["a", "b"]
    assert capsys.readouterr().out.count("Setting up: Some step") == 2


def test_a_failed_step_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "STAMPS", tmp_path)

    def fail():
        raise Trouble("no network")

    with pytest.raises(Trouble):
        environment._step("Some step", ["a"], fail)
    done = []
    environment._step("Some step", ["a"], lambda: done.append(1))
    assert done == [1]


def test_base_directory_holds_the_pack_and_names_the_models(tmp_path):
    models = tmp_path / "models"
    (models / "CogVideo").mkdir(parents=True)
    places = lay_out(tmp_path / "base", models)
    assert "  CogVideo: CogVideo\n" in places.read_text()
    assert (tmp_path / "base" / "custom_nodes" / "ComfyUI-Kinetograph" / "dev.py").exists()


def test_models_may_lie_in_several_folders_or_in_none(tmp_path):
    folders = [tmp_path / "pocket", tmp_path / 'my "own": models']
    for folder in folders:
        (folder / "SVD").mkdir(parents=True)
    places = yaml.safe_load(lay_out(tmp_path / "base", folders).read_text())
    assert places == {f"models_{i}": {"base_path": str(folders[i]), "SVD": "SVD"} for i in (0, 1)}
    assert yaml.safe_load(lay_out(tmp_path / "other").read_text()) == {}


def test_free_ports_are_free():
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_results_name_their_files_and_troubles():
    result = Result(outputs={"9": {"images": [{"filename": "a.mp4"}], "animated": [True], "text": ["x"]}})
    assert result.files() == [{"filename": "a.mp4"}]
    errors = [{"message": "Value too small", "details": "width"}]
    refused = Result(error={"message": "refused", "details": ""}, node_errors={"1": {"errors": errors}})
    assert refused.message == "refused\nValue too small: width"


def write_video(path, num_frames):
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height = 32, 16
        for i in range(num_frames):
            picture = np.full((16, 32, 3), i * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def test_contact_sheet_counts_before_it_draws(tmp_path, capsys):
    video, sheet = tmp_path / "v.mp4", tmp_path / "v.png"
    write_video(video, 9)
    assert contact_sheet.main(str(video), str(sheet), "10", "32", "16") == 1
    assert not sheet.exists() and "asked were (10, 32, 16)" in capsys.readouterr().out
    assert contact_sheet.main(str(video), str(sheet), "9", "32", "16") == 0
    assert sheet.exists()


def test_results_are_opened_again_and_counted(tmp_path, capsys):
    from PIL import Image

    paths = [tmp_path / name for name in ("v.mp4", "p.png", "a.gif", "notes.safetensors")]
    write_video(paths[0], 9)
    pictures = [Image.new("RGB", (20, 10), (i, 0, 0)) for i in range(0, 150, 50)]
    pictures[0].save(paths[1])
    pictures[0].save(paths[2], save_all=True, append_images=pictures[1:])
    paths[3].write_bytes(b"12345")
    assert reopening.main(*map(str, paths)) == 0
    said = [line.split(": ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["9 frames of 32x16", "1 frame of 20x10", "3 frames of 20x10", "5 bytes"]


def test_results_that_cannot_be_opened_are_told(tmp_path, capsys):
    for name, content in (("v.mp4", b"x" * 99), ("p.png", b"\x89PNG\r\n\x1a\n"), ("w.wav", b"")):
        (tmp_path / name).write_bytes(content)
        assert reopening.main(str(tmp_path / name)) == 1
        assert "cannot be read" in capsys.readouterr().out
    assert reopening.main(str(tmp_path / "none.webp")) == 1


def test_dev_is_standard_library_only():
    """So that it runs before anything is installed. Five files run inside the environment."""
    from kinetograph.tests.test_house import ROOT, imports_of, sources

    inside = ("contact_sheet.py", "reopening.py", "train.py", "accelerated.py", "zero2.py")
    for path in (path for path in [ROOT / "dev.py", *sources("tools")] if path.name not in inside):
        outside = {name[0] for name, _ in imports_of(path)} - sys.stdlib_module_names
        assert outside <= {"tools", "kinetograph"}, path
