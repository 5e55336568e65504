"""Any template from the command line: its widgets set, its files brought along, its results reopened."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import choices, fetching, prompts, session, settings
from .client import Result
from .commands import Trouble, python_path
from .prompts import Prompt
from .settings import Setting

# nodes of the host that read a file: their widget, and what it holds
MEDIA = {
    ("LoadImage", "image"): "picture",
    ("LoadImageMask", "image"): "picture",
    ("LoadVideo", "file"): "video",
}
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters and more: one is a drive of Windows
PATIENCE = 30 * 86400.0  # seconds: a real model on a CPU takes days


@dataclass(frozen=True)
class Job:
    """A prompt, what was set in it, the files to lay beside it by their names there, where results go."""

    graph: Prompt
    settings: Sequence[Setting]
    inputs: dict[str, Path]
    output: Path


def plan(
    template: str, wishes: Sequence[str], output: Path, connect: fetching.Connect = fetching.connect
) -> Job:
    """All that can go wrong without ComfyUI goes wrong here, as `Trouble`. Fetches what is an address."""
    graph = prompts.read(template)
    changes = [settings.read(graph, wish) for wish in wishes]
    for change in changes:
        settings.apply(graph, change)
    media = [change for change in changes if _media_kind(graph, change)]
    for change in media:
        _check_source(change.text)
    inputs: dict[str, Path] = {}
    for change in media:
        path = _bring(change.text, _media_kind(graph, change), output, connect)
        if path is not None:
            name = fetching.free_path(session.INPUT, path.stem, path.suffix).name
            while name in inputs:
                name = f"_{name}"
            inputs[name] = path
            graph[change.node]["inputs"][change.widget] = name
    return Job(graph, changes, inputs, output)


def run(host: Path, job: Job, cpu: bool, models: Sequence[Path] = ()) -> int:
    """Run the job. Returns 0 only when every file that it made could be opened again."""
    with session.comfy(host, job.output, cpu=cpu, models=models, inputs=job.inputs) as server:
        choices.settle(job.graph, job.settings, server.client.get_json("/object_info"))
        result = session.make(server, job.graph, PATIENCE)
        files = [_keep(file, server.base, job.output) for file in result.files()]
    said = _words(result)
    for line in said:
        print(line)
    if not files and not said:
        raise Trouble("ComfyUI reported success and named no file: does the prompt save anything?")
    script = Path(__file__).with_name("reopening.py")
    return subprocess.run([str(python_path()), str(script), *map(str, files)]).returncode


def _media_kind(graph: Prompt, change: Setting) -> str:
    return MEDIA.get((graph[change.node]["class_type"], change.widget), "")


def _check_source(text: str) -> None:
    """Refuse what is neither an https address nor a file, before anything is fetched."""
    path = session.INPUT / text
    if text.startswith("https://") or Path(text).is_file() or path.is_file():
        return
    if SCHEME.match(text):
        raise Trouble(f"{text!r}: only https addresses are fetched.")
    raise Trouble(f"There is no file at {text}. What the workflows start from is in {session.INPUT}.")


def _bring(text: str, kind: str, output: Path, connect: fetching.Connect) -> Path | None:
    """The file that a widget's text means; None where it lies in the input folder anyhow."""
    if not text.startswith("https://"):
        return Path(text) if Path(text).is_file() else None
    output.mkdir(parents=True, exist_ok=True)
    path = fetching.fetch(text, output, kind, connect)
    print(f"Fetched: {path} ({path.stat().st_size / 2**20:.1f} MB)", flush=True)
    return path


def _keep(file: dict[str, str], base: Path, output: Path) -> Path:
    """Where a result lies in the end: those that the server keeps for the page alone are copied."""
    inner = Path(file.get("subfolder", "")) / file["filename"]
    if file.get("type", "output") == "output":
        return output / inner
    path = fetching.free_path(output, inner.stem, inner.suffix)
    return Path(shutil.copy(base / file["type"] / inner, path))


def _words(result: Result) -> list[str]:
    """What nodes wrote for people to read."""
    found = [line for values in result.outputs.values() for line in values.get("text", ())]
    return [line for line in found if isinstance(line, str)]
