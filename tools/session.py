"""A ComfyUI for as long as a command needs it, and one prompt through it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .client import Result
from .commands import ROOT, Trouble, python_path
from .progress import Progress
from .prompts import Prompt
from .server import Server

INPUT = ROOT / "workflows" / "input"


@contextmanager
def comfy(
    host: Path,
    output: Path,
    *,
    cpu: bool,
    models: Sequence[Path] = (),
    inputs: Mapping[str, Path] | None = None,
) -> Iterator[Server]:
    """A server that writes into `output` and is gone afterwards, with all that it kept elsewhere.

    Its input folder holds what the shipped workflows start from, and `inputs` under their names.
    """
    output.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="kinetograph-"))
    try:
        shutil.copytree(INPUT, base / "input")
        for name, path in (inputs or {}).items():
            shutil.copy(path, base / "input" / name)
        print("Starting ComfyUI", flush=True)
        arguments = ["--output-directory", str(output.absolute())]
        with Server(python_path(), host, base, cpu=cpu, models=models, arguments=arguments) as server:
            print(f"ComfyUI is up at {server.client.address}", flush=True)
            yield server
    finally:
        shutil.rmtree(base, ignore_errors=True)


def make(server: Server, graph: Prompt, timeout: float) -> Result:
    """Run a prompt, drawing its progress. Raises `Trouble` with the server's words unless all of it succeeds."""
    try:
        result = server.client.run(graph, Progress(graph), timeout)
    except OSError as error:
        raise Trouble(
            f"{server.tail()}\n\nThe connection to ComfyUI broke off ({error}); these are its last words."
        ) from error
    if result.status != "success" or result.node_errors:
        raise Trouble(f"ComfyUI did not make the video ({result.status}):\n{result.message}")
    return result
