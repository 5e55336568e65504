"""A small hub on the loopback: what huggingface_hub, a browser and our downloads ask of huggingface.co, and its faults.

    with Hub({"owner/name": {"model.safetensors": b"..."}}) as hub:
        ... HF_ENDPOINT=hub.address ...

Weights lie in large storage, to which the hub redirects; other files are small ones that git holds.
"""

import hashlib
import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".ckpt", ".pth", ".bin")
BLOCK = 2**14


@dataclass
class Fault:
    """What the hub does wrong with one file; nothing by default."""

    # breaks off before this byte, so many times
    breaks_at: int | None = None
    times: int = 10**9
    # sends no more from this byte on, for so many seconds, while the connection stands
    stalls_at: int | None = None
    stalls: float = 0.0
    # seconds before each block
    slow: float = 0.0
    # what it sends in place of the file, and whether it says how long that is
    sends: bytes | None = None
    says_length: bool = True
    kind: str = "application/octet-stream"
    # what it lists in place of the truth
    lists_bytes: int | None = None
    lists_sha256: str | None = None
    # answers this in place of the file
    status: int | None = None
    redirects_to: str | None = None
    # begins a range here, wherever it was asked to begin
    range_from: int | None = None
    # knows no ranges
    whole_only: bool = False


def sha256_of(content):
    return hashlib.sha256(content).hexdigest()


def blob_of(content):
    """The hash that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """A server of repositories {name: {path: bytes}}; a context manager."""

    def __init__(self, repositories, licence="apache-2.0", gated=False):
        self.repositories = repositories
        self.licence, self.gated = licence, gated
        self.faults = defaultdict(Fault)
        # (method, path, headers) of all that was asked for
        self.requests = []
        # bytes sent of files
        self.sent = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Answers,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self):
        """For HF_ENDPOINT; the page of ComfyUI takes localhost alone."""
        return f"http://localhost:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name):
        """Of a repository as it is now."""
        paths = sorted((path, blob_of(content)) for path, content in self.repositories[name].items())
        return hashlib.sha1(json.dumps(paths).encode()).hexdigest()

    def asked(self, ending):
        """Requests for a path with this ending."""
        return [entry for entry in self.requests if entry[1].endswith(ending)]


class Answers(BaseHTTPRequestHandler):
    """One request."""

    hub = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.hub.requests.append((self.command, path, dict(self.headers)))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.list("/".join(parts[2:4]), parse_qs(address.query))
        kind, parts = ("cdn", parts[1:]) if parts[0] == "cdn" else ("resolve", parts)
        name, inner = "/".join(parts[:2]), "/".join(parts[4:])
        content = self.hub.repositories.get(name, {}).get(inner)
        fault = self.hub.faults[inner] if content is not None else Fault(status=404)
        if fault.status:
            return self.say(fault.status, b'{"error": "no"}')
        headers = {"X-Repo-Commit": self.hub.commit(name), "Accept-Ranges": "bytes"}
        if kind == "resolve" and (inner.endswith(LARGE) or fault.redirects_to):
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256_of(content)}"'}
            headers["Location"] = fault.redirects_to or f"/cdn{self.path}"
            return self.say(302, b"", headers)
        self.send_file(content, fault, headers)

    def list(self, name, query):
        files = self.hub.repositories.get(name)
        if files is None:
            return self.say(401, b'{"error": "Repository not found"}')
        siblings = []
        for path, content in files.items():
            fault = self.hub.faults[path]
            size = len(content) if fault.lists_bytes is None else fault.lists_bytes
            entry = {"rfilename": path, "size": size, "blobId": blob_of(content)}
            if path.endswith(LARGE):
                digest = fault.lists_sha256 or sha256_of(content)
                entry["lfs"] = {"size": size, "sha256": digest, "pointerSize": 134}
            siblings.append(entry if "blobs" in query else {"rfilename": path})
        card = {"cardData": {"license": self.hub.licence}} if self.hub.licence else {}
        told = {
            "id": name,
            "sha": self.hub.commit(name),
            "gated": self.hub.gated,
            "siblings": siblings,
            **card,
        }
        self.say(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def say(self, status, body, headers=None):
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, content, fault, headers):
        content = content if fault.sends is None else fault.sends
        start, wish = 0, self.headers.get("Range", "")
        if wish and not fault.whole_only:
            start = int(wish.removeprefix("bytes=").partition("-")[0])
        if start and fault.range_from:
            start = fault.range_from
        if start and start >= len(content):
            return self.say(416, b"")
        self.send_response(206 if start else 200)
        headers |= {"ETag": f'"{sha256_of(content)}"', "Content-Type": fault.kind}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault.says_length:
            headers["Content-Length"] = str(len(content) - start)
        else:
            headers["Connection"] = "close"
        for key, value in {**headers, "Access-Control-Allow-Origin": "*"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.pour(content, start, fault)

    def pour(self, content, start, fault):
        """The body, as far as the fault lets it."""
        end = len(content)
        if fault.breaks_at is not None and fault.times > 0:
            fault.times -= 1
            end = min(end, fault.breaks_at)
        for place in range(start, end, BLOCK):
            if fault.stalls_at is not None and place >= fault.stalls_at:
                time.sleep(fault.stalls)
            time.sleep(fault.slow)
            block = content[place : min(place + BLOCK, end)]
            try:
                self.wfile.write(block)
            except OSError:
                break
            self.hub.sent += len(block)
        self.close_connection = self.close_connection or end < len(content) or not fault.says_length
