"""Talks to a ComfyUI server as a browser does: posts a prompt, listens to its events, fetches the results."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .websocket import WebSocket

Json = Any
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach our loopback
Listener = Callable[[str, Json], None]
EndOf = {"execution_success": "success", "execution_error": "error", "execution_interrupted": "interrupted"}


@dataclass
class Result:
    """What became of one prompt. `status` is success, error, interrupted or refused (at the post)."""

    status: str = "refused"
    prompt_id: str = ""
    error: Json = None  # of the post, or of the node that failed
    node_errors: dict[str, Json] = field(default_factory=dict)
    outputs: dict[str, Json] = field(default_factory=dict)  # node id -> its user interface values
    cached: list[str] = field(default_factory=list)  # nodes answered from the cache
    events: list[tuple[str, Json]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def message(self) -> str:
        """Every word of explanation the server gave."""
        said = (
            [self.error.get(key) for key in ("exception_message", "message", "details")] if self.error else []
        )
        for node in self.node_errors.values():
            said += [f"{error['message']}: {error['details']}" for error in node["errors"]]
        return "\n".join(dict.fromkeys(word for word in said if word))

    def files(self) -> list[dict[str, str]]:
        """Every file named in the outputs, once each: filename, subfolder, type."""
        found: dict[tuple[str, ...], dict[str, str]] = {}
        for items in (items for values in self.outputs.values() for items in values.values()):
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and "filename" in item:
                    found.setdefault(
                        (item["filename"], item.get("subfolder", ""), item.get("type", "")), item
                    )
        return list(found.values())


class Client:
    """One browser tab at one server."""

    def __init__(self, port: int, host: str = "127.0.0.1"):
        self.host, self.port = host, port
        self.address = f"http://{host}:{port}"
        self.id = uuid.uuid4().hex

    def get(self, path: str, **query: str) -> bytes:
        url = self.address + path + ("?" + urllib.parse.urlencode(query) if query else "")
        with OPENER.open(url, timeout=60) as answer:
            return answer.read()

    def get_json(self, path: str, **query: str) -> Json:
        return json.loads(self.get(path, **query))

    def post(self, path: str, data: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        """Status and body; a refusal is an answer, not an exception."""
        request = urllib.request.Request(self.address + path, data, {"Content-Type": kind})
        try:
            with OPENER.open(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()

    def upload(self, image: Path) -> str:
        """Put a picture into the server's input folder; returns the name to give to LoadImage."""
        boundary = uuid.uuid4().hex
        name = image.name.replace('"', "_")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + image.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        status, answer = self.post("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        if status != 200:
            raise ValueError(f"The server refused the picture {image}: {answer.decode(errors='replace')}")
        stored = json.loads(answer)
        return "/".join(part for part in (stored.get("subfolder"), stored["name"]) if part)

    def view(self, file: dict[str, str]) -> bytes:
        """The content of a file that a result names."""
        keys = ("filename", "subfolder", "type")
        return self.get("/view", **{key: file[key] for key in keys if key in file})

    def interrupt(self) -> None:
        self.post("/interrupt", b"{}")

    def run(
        self,
        prompt: Json,
        listener: Listener | None = None,
        timeout: float = 300.0,
        workflow: Json = None,
        notes: Json = None,
    ) -> Result:
        """Post a prompt and wait for its end. `listener` hears every event while it happens.

        `workflow` is what the page sends along; `notes` is all that comes with a prompt (extra_pnginfo).
        """
        result = Result()
        started = time.monotonic()
        events = WebSocket(self.host, self.port, f"/ws?clientId={self.id}")
        try:
            given = {"workflow": workflow} if workflow and notes is None else notes
            if self._post_prompt(prompt, given, result):
                self._follow(events, result, listener, started + timeout)
        finally:
            events.close()
        result.seconds = time.monotonic() - started
        return result

    def _post_prompt(self, prompt: Json, notes: Json, result: Result) -> bool:
        extra = {} if notes is None else {"extra_pnginfo": notes}
        body = {"prompt": prompt, "client_id": self.id, "extra_data": extra}
        status, answer = self.post("/prompt", json.dumps(body).encode())
        try:
            said = json.loads(answer)
        except ValueError:
            said = {"error": {"message": answer.decode(errors="replace")}}
        result.error = said.get("error")
        result.node_errors = said.get("node_errors") or {}
        result.prompt_id = said.get("prompt_id", "")
        return status == 200

    def _follow(self, events: WebSocket, result: Result, listener: Listener | None, deadline: float) -> None:
        """Collect events until the server says that no node of this prompt is executing any more."""
        while True:
            message = events.receive(max(0.0, deadline - time.monotonic()))
            if isinstance(message, bytes):
                result.previews.append(message)
                kind, data = "preview", message
            else:
                event = json.loads(message)
                kind, data = event["type"], event["data"]
                if data.get("prompt_id", result.prompt_id) != result.prompt_id:
                    continue
                result.events.append((kind, data))
            if listener:
                listener(kind, data)
            if kind == "execution_cached":
                result.cached = list(data["nodes"])
            if kind in EndOf:
                result.status = EndOf[kind]
                result.error = data if kind == "execution_error" else None
            if kind == "executing" and data["node"] is None:
                break
        result.outputs = self._outputs(result.prompt_id)

    def _outputs(self, prompt_id: str) -> dict[str, Json]:
        """The history's outputs; the entry appears a moment after the last event."""
        for _ in range(50):
            history = self.get_json(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id].get("outputs", {})
            time.sleep(0.1)
        return {}
