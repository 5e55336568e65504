"""A long video is killed at any moment: what was finished is kept, nothing is made twice, and the rerun gives the same.

Its memory does not grow with its length: fresh servers make 4 and 16 segments.
"""

import json
import random
import shutil
import time

from kinetograph.modules.videofile.workspace import PREFIX
from kinetograph.tests.campaigns.outcome import Outcome
from kinetograph.tests.campaigns.watch import everything
from kinetograph.tests.host import continued
from kinetograph.tools import demo

SEGMENTS, LONG, RUNS = 4, 16, 3
PREFIX_OF = "segments/clip"


def run(count, seed, ground, memory=True):
    """Kill `count` servers at random moments of a video of four segments; then, with `memory`, weigh a longer one."""
    outcome = Outcome("segments", count, seed)
    trial = _Trial(ground, outcome, random.Random(seed))
    trial.undisturbed()
    for number in range(count):
        trial.one(number)
    trial.conclude()
    if memory:
        peaks = {n: sorted(trial.peak(n) for _ in range(RUNS))[RUNS // 2] for n in (SEGMENTS, LONG)}
        outcome.figures["peak MB"] = {n: round(peak) for n, peak in peaks.items()}
        outcome.hold("memory of 16 segments to that of 4", peaks[LONG] / peaks[SEGMENTS], "<=", 1.10)
    return outcome


def graph(segments=SEGMENTS, steps=3):
    choices = {
        **continued.plan(segments=segments),
        **continued.sampling(steps=steps),
        **continued.file(PREFIX_OF),
    }
    return continued.continued(choices, continued.BACK_AND_FORTH)


class _Trial:
    """The state of one campaign."""

    def __init__(self, ground, outcome, dice):
        self.ground, self.outcome, self.faults, self.dice = ground, outcome, outcome.faults, dice
        self.folder = ground.output / "segments"
        self.kills = self.amid = self.seconds = 0
        models = ground.base / "models" / "CogVideo"
        shutil.copytree(demo.MODELS / "CogVideo", models, dirs_exist_ok=True)
        continued.write_start(ground.base / "input")

    def result(self):
        """(frames, latents of each segment by file name, report) of the prompt, run to its end."""
        result = self.ground.client.run(graph())
        if result.status != "success":
            self.faults.add("a run fails", self.kills, result.message)
            return None
        (made,) = result.files()
        frames = continued.read_frames(self.folder / made["filename"])
        return frames, self.finished(), result.outputs["continue"]["text"][0]

    def finished(self):
        return {path.name: path.read_bytes() for path in self.folder.rglob("*.safetensors")}

    def undisturbed(self):
        """What the prompt gives, and how long it takes once the model is there."""
        self.result()
        shutil.rmtree(self.folder)
        started = time.monotonic()
        self.frames, self.latents, _ = self.result()
        self.seconds = time.monotonic() - started

    def one(self, number):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ground.client.post("/prompt", json.dumps({"prompt": graph()}).encode())
        # a server just started loads the model first
        time.sleep(self.dice.random() * (self.seconds + 3.0))
        self.ground.kill()
        self.kills += 1
        finished = {
            name
            for name in self.finished()
            if (self.folder / "clip_segments" / name).with_suffix(".json").exists()
        }
        self.amid += 0 < len(finished) < SEGMENTS
        if (
            self.folder.exists()
            and [path for path in self.folder.iterdir() if path.suffix == ".mkv"]
            and len(finished) < SEGMENTS
        ):
            self.faults.add("a part under a final name", number)
        self.judge(number, finished)

    def judge(self, number, finished):
        """The rerun keeps what was finished and gives what an undisturbed run does."""
        if (again := self.result()) is None:
            return
        frames, latents, said = again
        if said.count(": kept") < len(finished):
            self.faults.add("a finished segment is made again", number, said)
        if (
            latents != self.latents
            or frames.shape != self.frames.shape
            or not bool((frames == self.frames).all())
        ):
            self.faults.add("another video", number, said)
        left = [
            path.name
            for path in everything(self.folder)
            if path.name.startswith(PREFIX) or path.suffix == ".half"
        ]
        if left:
            self.faults.add("left behind", number, str(left))

    def conclude(self):
        self.outcome.hold("kills", self.kills, ">=", self.outcome.count)
        self.outcome.none_of("a run fails", "a part under a final name", "a finished segment is made again")
        self.outcome.none_of("another video", "left behind")
        self.outcome.figures |= {
            "kills amid the segments": self.amid,
            "seconds of a run": round(self.seconds, 1),
        }

    def peak(self, segments):
        """The most memory, in MB, that a fresh server had while it made so many segments."""
        server = self.ground.restart()
        shutil.rmtree(self.folder, ignore_errors=True)
        result = self.ground.client.run(graph(segments, steps=1))
        if result.status != "success":
            self.faults.add("a run fails", segments, result.message)
        status = dict(
            line.split(":", 1) for line in open(f"/proc/{server.process.pid}/status") if ":" in line
        )
        return int(status["VmHWM"].split()[0]) / 1024
