"""Starts a real ComfyUI on a free loopback port with this pack alone, and stops it again."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .client import Client
from .commands import ROOT, Trouble

PACK = "ComfyUI-Kinetograph"
LEFT_OUT = (".git", ".venv", ".cache", "output", "__pycache__", "runs")
START_SECONDS = 180
STOP_SECONDS = 10
TAIL_LINES = 30


def lay_out(base: Path, models: Path | Sequence[Path] = ()) -> Path:
    """Make `base` a ComfyUI base directory with the pack in it; returns the extra model paths file.

    `models` are folders like ComfyUI's own: each folder in them is named after a kind of model.
    """
    for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    _link(ROOT, base / "custom_nodes" / PACK)
    places = base / "extra_model_paths.yaml"
    lines = []
    for i, folder in enumerate([models] if isinstance(models, Path) else models):
        names = sorted(inner.name for inner in folder.iterdir() if inner.is_dir())
        lines += [f"models_{i}:", f"  base_path: {json.dumps(str(folder.absolute()))}"]
        lines += [f"  {name}: {name}" for name in names]
    places.write_text("\n".join(lines or ["{}"]) + "\n", encoding="utf-8")
    return places


def _link(source: Path, link: Path) -> None:
    """A link where the system allows one, else a copy."""
    if link.exists():
        return
    try:
        if os.name == "nt":
            import _winapi

            _winapi.CreateJunction(str(source), str(link))
        else:
            link.symlink_to(source, target_is_directory=True)
    except OSError:
        shutil.copytree(source, link, ignore=shutil.ignore_patterns(*LEFT_OUT))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A ComfyUI process; a context manager that never leaves it running."""

    def __init__(
        self,
        python: Path,
        host: Path,
        base: Path,
        *,
        cpu: bool = True,
        models: Path | Sequence[Path] = (),
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ):
        self.port = free_port()
        self.log = base / "server.log"
        self.base = base
        self._cwd = host
        # no test and no demo goes to the hub by chance
        self._variables = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **(variables or {})}
        self._command = [str(python), str(host / "main.py"), "--base-directory", str(base)]
        self._command += ["--extra-model-paths-config", str(lay_out(base, models))]
        self._command += ["--listen", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
        self._command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK]
        self._command += ["--cpu"] * cpu + list(arguments)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Client:
        return Client(self.port)

    def __enter__(self) -> "Server":
        environment = {**os.environ, **self._variables}
        # A group of its own: Ctrl-C in the terminal reaches only us, and we stop the server in order.
        alone = {"creationflags": 0x200} if os.name == "nt" else {"start_new_session": True}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self._cwd, env=environment, stdout=log, stderr=log, **alone
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running():
                break
            try:
                self.client.get("/system_stats")
                return
            except OSError:
                time.sleep(0.2)
        raise Trouble(f"{self.tail()}\n\nComfyUI did not start; these are its last words.")

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self) -> str:
        """The last lines of the server's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def stop(self) -> None:
        """End the process by its id: first asked, then forced."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
