"""Checkpoints that are none: through the modules in a process that may die, and some through the server's post.

One class of error, no crash, no hang, the file named, no path of the machine, nothing of Python's own words.
"""

import json
import os
import random
import select
import subprocess
import sys
import time

from kinetograph.tests.campaigns import strange_files
from kinetograph.tests.campaigns.asking import ask, is_ours
from kinetograph.tests.campaigns.mutants import KINDS
from kinetograph.tests.campaigns.outcome import Outcome, percentile
from kinetograph.tests.campaigns.reader import STEPS
from kinetograph.tests.campaigns.sources import PLACES, choose, read_sources
from kinetograph.tests.campaigns.words import MAX_REPORT, text_faults
from kinetograph.tests.host.graphs import node
from kinetograph.tools.commands import ROOT

PATIENCE = 5.0  # seconds for one step with one file, and for a post
RUN = 60.0  # seconds for a prompt that was taken: it may load weights
POSTED_EVERY = 25
FOLDER = "mutants"  # below models/diffusion_models
TEXTS = ("a path of the machine", "characters that do not print", "a text without end", "raw Python words")
LOADERS = {
    "KinetographCogVideoXLoader": {"model": "", "text_encoder": "", "vae": "", "weight_dtype": "auto"},
    "KinetographSVDLoader": {
        "model": "", "image_encoder": "from the checkpoint", "vae": "from the checkpoint", "weight_dtype": "auto",
    },
    "KinetographExVideoPatch": {"model": ["svd", 0], "exvideo": ""},
}  # fmt: skip


class Reader:
    """The child of `reader`, started again whenever it died or was ended."""

    def __init__(self):
        self._process = None

    def steps(self, path, seconds):
        """(its answer, seconds) for each step; the last is "hang" or "crash" when there is none."""
        if self._process is None:
            self._start()
        for step in STEPS:
            started = time.monotonic()
            self._process.stdin.write(json.dumps([step, os.fspath(path)]) + "\n")
            self._process.stdin.flush()
            line = self._line(seconds)
            yield (
                json.loads(line) if line else "hang" if line is None else "crash",
                time.monotonic() - started,
            )
            if not line:
                self.close()
                return

    def _start(self):
        command = [sys.executable, str(ROOT / "tools" / "pack.py"), "kinetograph.tests.campaigns.reader"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(
            command, **pipes, text=True, bufsize=1, start_new_session=True, cwd="/"
        )
        if not self._line(120):
            raise RuntimeError("The child that reads files did not start.")

    def _line(self, seconds):
        """One line, "" at the end of the stream, None when time is up."""
        ready = select.select([self._process.stdout], [], [], seconds)[0]
        return self._process.stdout.readline() if ready else None

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def run(count, seed, ground, patience=PATIENCE):
    """Write `count` mutants one after another and judge each."""
    rng, outcome = random.Random(seed), Outcome("files", count, seed)
    folder = ground.base / "models" / "diffusion_models" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    trial = _Trial(ground, outcome, folder, read_sources(), patience)
    try:
        kinds = [list(KINDS)[number % len(KINDS)] for number in range(count)]
        for number, kind in enumerate(kinds):
            trial.one(rng, number, kind, post=number < len(KINDS) or number % POSTED_EVERY == 0)
        trial.still_serves()
    finally:
        trial.reader.close()
        strange_files.remove(folder)
        folder.rmdir()
    trial.conclude()
    return outcome


class _Trial:
    """The state of one campaign: its child, its server, and what was counted."""

    def __init__(self, ground, outcome, folder, sources, patience):
        self.patience = patience
        self.ground, self.outcome, self.faults = ground, outcome, outcome.faults
        self.folder, self.sources = folder, sources
        self.reader = Reader()
        self.slowest, self.posts, self.refused, self.read = [], 0, 0, 0
        self.hidden = (folder, ground.base, ROOT)

    def one(self, rng, number, kind, post):
        source, stem = choose(self.sources, rng), f"mutant{number}"
        path = KINDS[kind](rng, source, stem, self.folder)
        case, names = f"{number} {kind} of {source.name}", _names(path, stem)
        answers, seconds = zip(*self.reader.steps(path, self.patience), strict=True)
        self.slowest.append(max(seconds))
        if isinstance(answers[-1], str):
            self.faults.add(answers[-1], f"{case}, after {len(answers) - 1} steps")
            answers = answers[:-1]
        self.judge(answers, case, names)
        if post:
            self.post(path, source, case, names)
        strange_files.remove(self.folder)

    def judge(self, answer, case, names):
        self.read += not any(exception for _, exception, _, _ in answer)
        self.refused += any(exception for _, exception, _, _ in answer)
        for step, exception, ours, text in answer:
            if exception and not ours:
                self.faults.add("another class of error", f"{case}, {step}", f"{exception} {text}")
            elif exception and not any(name in text for name in names):
                self.faults.add("the file is not named", f"{case}, {step}", text)
            for fault in (
                text_faults(text, self.hidden) if exception else text_faults(text, self.hidden, MAX_REPORT)
            ):
                self.faults.add(fault, f"{case}, {step}", text)

    def post(self, path, source, case, names):
        name = f"{FOLDER}/{os.fsencode(path.name).decode('utf-8', 'surrogateescape')}"
        for prompt in (loading(name, source.name), {"node": node("KinetographModelDoctor", model=name)}):
            self.posts += 1
            answer = ask(self.ground.client, prompt, self.patience, lambda: unblock(self.folder), RUN)
            said = f"{case}, {prompt['node']['class_type']}"
            if answer.status in ("silent", "lost"):
                self.faults.add("the server hangs", f"{said}, {answer.status}")
                self.recover()
            elif answer.status == "gone":
                self.faults.add("the server is dead", said)
            elif answer.status != "success":
                self.judge_answer(answer, said, names)

    def judge_answer(self, answer, case, names):
        traces = [error.get("extra_info", {}).get("traceback") for _, error in answer.complaints()]
        if answer.code >= 500 or any(map(is_ours, traces)):
            self.faults.add("the post fails", case, answer.text)
        if not any(name in answer.text for name in names):
            self.faults.add("the server does not name it", case, answer.text)
        exception = answer.failure.get("exception_type", "")
        for fault in text_faults(f"{answer.text}\n{exception}", self.hidden):
            self.faults.add(f"server: {fault}", case, f"{exception} {answer.text}")

    def recover(self):
        """Let go what a pipe holds; a server that stays busy is replaced."""
        unblock(self.folder)
        if ask(self.ground.client, preview(), self.patience).status != "success":
            self.faults.add("the server is dead", "after a hang")
            self.ground.restart()

    def still_serves(self):
        if ask(self.ground.client, preview(), 30.0).status != "success":
            self.faults.add("the server is dead", "at the end")

    def conclude(self):
        outcome = self.outcome
        outcome.hold("files", len(self.slowest), ">=", outcome.count)
        outcome.hold("kinds", min(outcome.count, len(KINDS)), ">=", min(outcome.count, 40))
        outcome.hold("posts", self.posts, ">=", outcome.count / POSTED_EVERY)
        outcome.hold("refused", self.refused, ">=", outcome.count / 2)
        outcome.hold("slowest, seconds", round(max(self.slowest, default=0), 2), "<=", self.patience)
        outcome.none_of("crash", "hang", "another class of error", "the file is not named", *TEXTS)
        outcome.none_of(
            "the server hangs", "the server is dead", "the post fails", "the server does not name it"
        )
        outcome.none_of(*(f"server: {fault}" for fault in TEXTS))
        outcome.figures |= {
            "read without complaint": self.read,
            "p95 seconds": percentile(self.slowest, 0.95),
        }


def _names(path, stem):
    """What a text may call a mutant: its own name, or that of a file in it."""
    inside = [entry.name for entry in path.iterdir()] if path.is_dir() and os.access(path, os.R_OK) else []
    return [stem, *inside]


def loading(name, source):
    """A prompt that loads a file as what it once was, and shows the result."""
    kind, place = PLACES[source][2]
    inputs = {**LOADERS[kind], place: name}
    if kind == "KinetographCogVideoXLoader":
        inputs = {key: value or "CogVideo/tiny-5B" for key, value in inputs.items()}
    prompt = {"node": node(kind, **inputs), "shown": node("PreviewAny", source=["node", 0])}
    if kind == "KinetographExVideoPatch":
        svd = {**LOADERS["KinetographSVDLoader"], "model": "SVD/tiny-svd.safetensors"}
        prompt["svd"] = node("KinetographSVDLoader", **svd)
    return prompt


def preview():
    """The least that a server can do."""
    image = node("EmptyImage", width=16, height=16, batch_size=1, color=random.randrange(2**24))
    return {"image": image, "shown": node("PreviewAny", source=["image", 0])}


def unblock(folder):
    """End the wait of whoever opened a pipe below a folder to read from it."""
    for path in folder.rglob("*"):
        if path.is_fifo():
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:  # nobody waits
                pass
