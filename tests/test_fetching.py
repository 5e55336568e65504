"""What `dev.py run` fetches from an address: https alone, of the public network, a picture or a video, whole."""

import http.server
import json
import socket
import threading
import time

import pytest

from kinetograph.tools import fetching, run
from kinetograph.tools.commands import Trouble

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
MP4 = b"\0\0\0\x20ftypisom" + bytes(5000)
ROUND = "https://pictures.test/round"
LONG = 1_000_000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; `seen` is every address it was asked for."""

    protocol_version = "HTTP/1.1"
    seen = []

    def log_message(self, *arguments):
        pass

    def send(self, body=b"", status=200, length=True, **headers):
        self.send_response(status)
        if length:
            self.send_header("Content-Length", str(len(body) if length is True else length))
        else:
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.seen.append((self.headers["Host"], self.path))
        to = self.path.removeprefix("/to/")
        if self.path == "/stall.png":
            self.send(PNG[:100], length=len(PNG))
            time.sleep(1)
            self.close_connection = True
        elif self.path == "/short.png":
            self.send(PNG[:-1], length=len(PNG))
            self.close_connection = True
        elif self.path == "/large.png":
            self.send(PNG, length=LONG)
        elif self.path == "/endless.png":
            self.send(PNG * 100, length=False)
        elif self.path == "/gone.png":
            self.send(b"not here", 404)
        elif self.path == "/page.png":
            self.send(b"<html>sign in first</html>")
        elif to != self.path:
            self.send(b"", 302, Location=to)
        elif self.path.startswith("/plain"):
            self.send(PNG, length=False)
        else:
            self.send(MP4 if self.path.endswith("mp4") else PNG)


@pytest.fixture
def connect(monkeypatch):
    """Leads every host to a small server on this machine, without TLS; notes where it would have gone."""
    Handler.seen = []
    monkeypatch.setitem(fetching.MOST_BYTES, "picture", 100_000)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def connect(host, port):
        connect.hosts.append((host, port))
        return socket.create_connection(server.server_address, 0.3)

    connect.hosts = []
    yield connect
    server.shutdown()
    server.server_close()


def test_what_is_there_is_saved_as_it_is(connect, tmp_path):
    addresses = [
        "https://pictures.test/a/My%20cat%2f%2e%2e.jpeg?size=2",
        "https://pictures.test/a/My_cat.png",
    ]
    first = fetching.fetch(addresses[0], tmp_path, "picture", connect)
    assert first.parent == tmp_path and first.suffix == ".png"  # what it is, not what it is called
    second, third = (fetching.fetch(addresses[1], tmp_path, "picture", connect) for _ in range(2))
    assert (second.name, third.name) == ("My_cat.png", "My_cat_2.png")
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {PNG} and len([*tmp_path.iterdir()]) == 3
    assert Handler.seen[0] == ("pictures.test", "/a/My%20cat%2f%2e%2e.jpeg?size=2")
    assert connect.hosts == [("pictures.test", 443)] * 3


@pytest.mark.parametrize("path", ["plain.png", "to//plain.png", "to/https://other.test:8443/b.png"])
def test_redirects_and_answers_without_a_length(connect, tmp_path, path):
    assert fetching.fetch(f"https://pictures.test/{path}", tmp_path, "picture", connect).read_bytes() == PNG
    assert connect.hosts[-1] == (("other.test", 8443) if "other" in path else ("pictures.test", 443))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://pictures.test/a.png", "Only https"),
        ("https://me:secret@pictures.test/a.png", "Only https"),
        ("https:///a.png", "Only https"),
        ("https://pictures.test:x/a.png", "cannot be fetched"),
        ("https://pictures.test/to/http://pictures.test/a.png", "Only https"),
        ("https://pictures.test/to/file:///etc/passwd", "Only https"),
        ("https://pictures.test/gone.png", "404"),
        ("https://pictures.test/page.png", "neither a picture nor a video"),
        ("https://pictures.test/clip.mp4", "is a video, a picture was wanted"),
        ("https://pictures.test/short.png", "broke off"),
        ("https://pictures.test/stall.png", "broke off after .* timed out"),
        ("https://pictures.test/large.png", "larger than"),
        ("https://pictures.test/endless.png", "larger than"),
    ],
)
def test_what_is_wrong_leaves_nothing_behind(connect, tmp_path, address, words):
    with pytest.raises(Trouble, match=words):
        fetching.fetch(address, tmp_path, "picture", connect)
    assert [*tmp_path.iterdir()] == []


def test_redirects_without_an_end(connect, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send(b"", 302, Location="/again"))
    with pytest.raises(Trouble, match="more than 5 times"):
        fetching.fetch(ROUND, tmp_path, "picture", connect)
    assert len(connect.hosts) == 6


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "0.0.0.0", "10.1.2.3", "169.254.169.254", "[::1]", "[fe80::1]", "[fd00::1]"]
    + ["192.168.0.1", "100.64.0.1", "224.0.0.1", "[::ffff:10.0.0.1]", "[2002:a00:1::]"],
)
def test_private_hosts_are_never_asked(tmp_path, host):
    """Numbers need no network to be looked up; the door of the tests is closed here."""
    with pytest.raises(Trouble, match="inside a private network"):
        fetching.fetch(f"https://{host}/a.png", tmp_path, "picture")


def test_one_private_address_among_public_ones_is_enough():
    def look_up(host, port, type):
        return [(None, None, None, "", (address, port)) for address in addresses]

    addresses = ["8.8.8.8", "2001:4860:4860::8888"]
    assert fetching.public_addresses("name.test", 443, look_up) == addresses
    addresses.append("192.168.1.1")
    with pytest.raises(Trouble, match="name.test is 192.168.1.1"):
        fetching.public_addresses("name.test", 443, look_up)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"RIFF\0\0\0\0WEBPVP8 ", ("picture", ".webp")),
        (b"RIFF\0\0\0\0AVI LIST", ("video", ".avi")),
        (b"RIFF\0\0\0\0WAVEfmt ", ("", "")),
        (b"\0\0\0\x1cftypavif", ("picture", ".avif")),
        (b"\0\0\0\x14ftypqt  ", ("video", ".mov")),
        (
            b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm",
            ("video", ".webm"),
        ),
        (b"#EXTM3U\nfile:///etc/passwd", ("", "")),  # a list of addresses that ffmpeg would follow
        (b"<svg xmlns=", ("", "")),
        (b"", ("", "")),
    ],
)
def test_first_bytes_say_what_a_file_is(head, said):
    assert fetching.kind_of(head) == said


def test_an_address_in_a_prompt_is_fetched_and_laid_beside_it(connect, tmp_path):
    wish = "Picture.image=https://pictures.test/cat.png"
    prompt = {"5": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Picture"}}}
    (tmp_path / "prompt.json").write_text(json.dumps(prompt))
    job = run.plan(str(tmp_path / "prompt.json"), [wish], tmp_path / "results", connect)
    assert job.inputs == {"cat.png": tmp_path / "results" / "cat.png"}
    assert job.graph["5"]["inputs"]["image"] == "cat.png"
