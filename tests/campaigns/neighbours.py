"""Two servers that write into one output folder under one name: no clash, every file whole, nothing swept.

While one is at work the other starts, and uses the folder: both sweep what dead ones left, and only that.
"""

import random
import threading
from collections import Counter

from kinetograph.modules.videofile.workspace import PREFIX
from kinetograph.tests.campaigns import clips
from kinetograph.tests.campaigns.outcome import Outcome
from kinetograph.tests.campaigns.watch import everything, wait_for

FOLDER = "neighbours"
REPEATS = 3  # of the noise: 24 frames
PATIENCE = 120.0


def run(count, seed, first, second, restarts=True):
    """`count` rounds in which both write at once; `restarts`: the second also starts while the first is at work, whose ffmpeg is ours to hold."""
    rng, outcome = random.Random(seed), Outcome("neighbours", count, seed)
    trial = _Trial((first, second), outcome)
    for number in range(count):
        trial.together(rng, number)
    trial.sweep_beside()
    if restarts:
        trial.sweep_beside(second.restart)
    trial.conclude()
    return outcome


class _Trial:
    """The state of one campaign; the first ground is not lent, for its ffmpeg is held."""

    def __init__(self, grounds, outcome):
        self.grounds, self.outcome, self.faults = grounds, outcome, outcome.faults
        self.folder = grounds[0].output / FOLDER
        self.names, self.ended, self.beside = Counter(), Counter(), 0
        self.noise = [clips.write_noise(ground.base) for ground in grounds]
        self.before = clips.finished(self.folder)

    def together(self, rng, number):
        """Both write under the same name; the same format more often than not."""
        formats = rng.choices(list(clips.FORMATS), k=2)
        formats = formats if rng.random() < 0.3 else formats[:1] * 2
        workers = [
            threading.Thread(
                target=self.write, args=(which, f"{number} {name}", name, REPEATS, rng.uniform(1, 40))
            )
            for which, name in enumerate(formats)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE)

    def write(self, which, case, name, repeats, rate=8.0):
        prompt = {
            **clips.noisy(self.noise[which], repeats),
            "save": clips.combined(f"{FOLDER}/clip", name, rate),
        }
        try:
            result = self.grounds[which].client.run(prompt, timeout=PATIENCE)
        except OSError as error:
            self.ended["no answer"] += 1
            self.faults.add("a prompt fails", case, repr(error))
            return
        self.ended[result.status] += 1
        if result.status != "success":
            self.faults.add("a prompt fails", case, result.message)
        for file in {file["filename"] for file in result.files()}:
            self.names[file] += 1
            if not clips.is_whole(self.folder / file, repeats * clips.SHOTS):
                self.faults.add("a file is not whole", case, file)

    def sweep_beside(self, act=lambda: None):
        """Let the second server act, and use the folder, while the first has its workspace there."""
        first, second = self.grounds
        first.stall("waiting")
        worker = threading.Thread(
            target=self.write, args=(0, "beside", "video/webm", REPEATS, 41 + self.beside)
        )
        worker.start()
        try:
            if wait_for(self.workspaces, PATIENCE) is None:
                self.faults.add("no clip is being written", "beside")
            held = self.workspaces()
            act()
            result = second.client.run(clips.plain(f"{FOLDER}/beside", color=1 + self.beside))
            if result.status != "success":
                self.faults.add("a prompt fails", "the one beside", result.message)
            if held - self.workspaces():
                self.faults.add("a workspace at work is swept", "beside")
            self.beside += bool(held)
        finally:
            first.stall()
            worker.join(PATIENCE)

    def workspaces(self):
        return {path for path in everything(self.folder) if path.name.startswith(PREFIX)}

    def conclude(self):
        outcome, clashes = self.outcome, sum(count - 1 for count in self.names.values())
        new = clips.finished(self.folder) - self.before
        outcome.hold("clips written", self.ended["success"], ">=", 2 * outcome.count + 1)
        outcome.hold("names that two clips have", clashes, "<=", 0)
        outcome.hold("times that one worked beside the other", self.beside, ">=", 1)
        outcome.hold("workspaces that stay", len(self.workspaces()), "<=", 0)
        outcome.none_of(
            "a prompt fails",
            "a file is not whole",
            "no clip is being written",
            "a workspace at work is swept",
        )
        outcome.figures |= {"ended": dict(self.ended), "files": len(new)}
