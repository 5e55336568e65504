"""The server is killed while it writes a clip: no part of it under a final name, nothing left after the next start."""

import json
import random
import time
from collections import Counter

from kinetograph.modules.videofile.workspace import PREFIX
from kinetograph.tests.campaigns import clips
from kinetograph.tests.campaigns.outcome import Outcome
from kinetograph.tests.campaigns.watch import everything, offspring, wait_for

FOLDER = "kills"
REPEATS = 60  # of the noise: 480 frames
REACHED, GONE = 60.0, 20.0  # seconds until a clip is being written, and until an orphaned ffmpeg ends


def run(count, seed, ground):
    """Kill `count` servers, each at a random moment of writing a clip in the next format."""
    rng, outcome = random.Random(seed), Outcome("kills", count, seed)
    trial = _Trial(ground, outcome, clips.write_noise(ground.base))
    trial.first_use("before")
    for number in range(count):
        trial.one(rng, number, list(clips.FORMATS)[number % len(clips.FORMATS)])
        trial.first_use(number)
    trial.conclude()
    return outcome


class _Trial:
    """The state of one campaign."""

    def __init__(self, ground, outcome, noise):
        self.ground, self.outcome, self.faults, self.noise = ground, outcome, outcome.faults, noise
        self.folder = ground.output / FOLDER
        self.known = set()
        self.strangers = {path for path in everything(ground.output) if path.name.startswith(PREFIX)}
        self.kills, self.at_work, self.formats = 0, 0, Counter()

    def one(self, rng, number, name):
        prompt = {**clips.noisy(self.noise, REPEATS), "save": clips.combined(f"{FOLDER}/clip{number}", name)}
        self.ground.client.post("/prompt", json.dumps({"prompt": prompt}).encode())
        before = self.workspaces()
        if wait_for(lambda: self.workspaces() - before, REACHED) is None:
            self.faults.add("no clip is being written", f"{number} {name}")
        time.sleep(rng.random() * rng.choice([0.1, 1.0, 3.0]))
        self.ground.kill()
        self.kills += 1
        self.at_work += bool(caught := self.workspaces() - before)
        self.formats[name] += bool(caught)
        self.judge(number, name)

    def workspaces(self):
        """Those that came since the campaign began."""
        found = {path for path in everything(self.ground.output) if path.name.startswith(PREFIX)}
        return found - self.strangers

    def judge(self, number, name):
        """What stands under a final name is whole, now and after the orphaned ffmpeg has ended."""
        new = clips.finished(self.folder) - self.known
        frames = REPEATS * clips.SHOTS
        for path in new:
            if not clips.is_whole(path, frames):
                self.faults.add("a part under a final name", f"{number} {name}", path.name)
        self.known |= new

    def first_use(self, number):
        """Start again, write one clip into the same folder, and look for what the dead one left."""
        result = self.ground.client.run(clips.plain(f"{FOLDER}/after", color=1 + self.kills))
        if result.status != "success":
            self.faults.add("the next start fails", number, result.message)
        if wait_for(lambda: not offspring(self.ground), GONE) is None:
            self.faults.add("a child stays", number)
        if left := self.workspaces():
            self.faults.add("left after the next start", number, str(sorted(path.name for path in left)))
        self.known |= clips.finished(self.folder)

    def conclude(self):
        outcome = self.outcome
        outcome.hold("kills", self.kills, ">=", outcome.count)
        outcome.hold("kills while a clip was being written", self.at_work, ">=", outcome.count / 2)
        outcome.none_of("no clip is being written", "a part under a final name", "left after the next start")
        outcome.none_of("the next start fails", "a child stays")
        outcome.figures |= {"formats": dict(self.formats), "files under final names": len(self.known)}
