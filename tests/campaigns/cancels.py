"""Cancel, in every phase of work and while ffmpeg takes nothing: how soon it is heard, and what stays behind.

The next prompt gives the same bits as before, nothing is left in the output folder, no process stays.
"""

import random
import threading
import time
from collections import defaultdict

from kinetograph.modules.videofile.workspace import PREFIX
from kinetograph.tests.campaigns import clips
from kinetograph.tests.campaigns.ground import STALLS
from kinetograph.tests.campaigns.outcome import Outcome, percentile
from kinetograph.tests.campaigns.watch import everything, is_idle, offspring, wait_for
from kinetograph.tests.host.graphs import loader, node, text_to_video
from kinetograph.tests.host.state import NONCES, latents, same
from kinetograph.tools.client import Client

PATIENCE = 20.0  # seconds after which a cancel counts as not heard, and we end it
STUCK = 0.4  # seconds until the pipe to a deaf ffmpeg is full
GRACE = 2.0  # seconds for processes to go
P95, WORST = 2.0, 5.0  # seconds until the server is idle
FOLDER = "cancels"
LONG = {"family": "cogvideox", "width": 128, "height": 128, "batch_size": 1}
PHASES = ("load", "sample", "decode", "encode", "decode to a file", *(f"ffmpeg {way}" for way in STALLS))


def prompt_of(phase, noise, number):
    """(prompt, node in whose work the cancel falls, progress that node must have made)."""
    if phase == "load":
        odd = loader(weight_dtype=("fp32", "bf16")[number % 2])
        return {"loader": odd, "shown": node("PreviewAny", source=["loader", 0])}, "loader", 0
    if phase == "sample":
        prompt = text_to_video(frames=17, steps=1000, seed=number)
        return {**prompt, "shown": node("PreviewAny", source=["sampler", 0])}, "sampler", 1
    if phase.startswith("decode"):
        return decoding(phase, number), "work", 1
    prefix = f"{FOLDER}/clip{number}"
    work = {**clips.noisy(noise, 30), "work": clips.combined(prefix, rate=8 + number / 64)}
    return work, "work", 1 if phase == "encode" else 0


def decoding(phase, number):
    empty = node("KinetographVideoLatent", num_frames=161 + 4 * (number % 9), **LONG)
    prompt = {"loader": loader(), "latent": empty}
    inputs = {"vae": ["loader", 2], "latent": ["latent", 0]}
    if phase == "decode":
        work = node("KinetographVAEDecodeChunked", **inputs, chunk=0, overlap=0)
        return {**prompt, "work": work, "shown": node("PreviewAny", source=["work", 0])}
    more = clips.file_settings(f"{FOLDER}/decoded{number}")
    return {**prompt, "work": node("KinetographVAEDecodeToVideo", **inputs, **more)}


def run(count, seed, ground, p95=P95, worst=WORST):
    """Cancel `count` prompts, each at a random moment of the next phase."""
    rng, outcome = random.Random(seed), Outcome("cancels", count, seed)
    trial = _Trial(ground, outcome, clips.write_noise(ground.base))
    number = 0
    while trial.hits < count and number < 2 * count + len(PHASES):
        trial.one(rng, number, PHASES[trial.hits % len(PHASES)])
        number += 1
    trial.conclude(number, p95, worst)
    return outcome


class _Trial:
    """The state of one campaign."""

    def __init__(self, ground, outcome, noise):
        self.ground, self.outcome, self.faults, self.noise = ground, outcome, outcome.faults, noise
        self.idle = defaultdict(list)  # phase -> seconds
        self.hits = self.exact = 0
        (ground.output / FOLDER).mkdir(parents=True, exist_ok=True)
        self.reference = self.sampled()

    def sampled(self):
        """Latents of one short run that no cache answers; its file is taken away."""
        graph = text_to_video(frames=5, steps=2, seed=7, nonce=next(NONCES))
        graph["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix=f"{FOLDER}/exact")
        content = latents(self.ground.client, graph)
        for path in (self.ground.output / FOLDER).glob("exact*"):
            path.unlink()
        return content

    def one(self, rng, number, phase):
        before, server = everything(self.ground.output), self.ground.server
        prompt, place, made = prompt_of(phase, self.noise, number)
        if stalled := phase.startswith("ffmpeg"):
            self.ground.stall(phase.removeprefix("ffmpeg "))
        try:
            made, delay = made * rng.randint(1, 12), rng.random() / 2
            status, seconds = self.cancel(server.client, prompt, place, made, delay, stalled)
        finally:
            self.ground.stall()
        if seconds is None:
            return
        case = f"{number} {phase}"
        self.hits += 1
        self.idle[phase].append(seconds)
        if status != "interrupted":
            self.faults.add("not interrupted", case, status)
        self.look_around(case, before)
        self.next_one(case)

    def cancel(self, client, prompt, place, made, delay, stalled):
        """(status, seconds from the cancel until the server is idle); no seconds where it came too late."""
        reached, ended = threading.Event(), []

        def listen(kind, data):
            at = data.get("node") == place if isinstance(data, dict) else False
            if at and (kind == "executing" and not made or kind == "progress" and data["value"] >= made):
                reached.set()

        def work():
            try:
                ended.append(Client(client.port).run(prompt, listen, timeout=PATIENCE * 4).status)
            except Exception as error:
                ended.append(repr(error))
            reached.set()

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        reached.wait(PATIENCE * 3)
        if stalled and wait_for(self.is_writing, PATIENCE) is not None:
            delay += STUCK
        time.sleep(delay)
        if ended:
            return self.came_late(ended[0])
        client.interrupt()
        seconds = wait_for(lambda: is_idle(client), PATIENCE)
        if seconds is None:
            self.end_by_force(client)
            seconds = PATIENCE
        worker.join(PATIENCE)
        if ended == ["success"]:
            return "success", None
        return (ended or ["no end"])[0], seconds

    def is_writing(self):
        """Whether a clip is being made: its workspace is there, and so is an ffmpeg."""
        names = {path.name for path in (self.ground.output / FOLDER).iterdir()}
        return any(name.startswith(PREFIX) for name in names) and bool(offspring(self.ground))

    def came_late(self, status):
        if status != "success":
            self.faults.add("failed before the cancel", status)
        return status, None

    def end_by_force(self, client):
        """Take away what the server waits for, and the server if that does not help."""
        for process in offspring(self.ground):
            process.kill()
        if wait_for(lambda: is_idle(client), PATIENCE) is None:
            self.faults.add("the server runs nothing more", "ended by force")
            self.ground.restart()

    def look_around(self, case, before):
        if wait_for(lambda: not offspring(self.ground), GRACE) is None:
            left = offspring(self.ground)
            self.faults.add("a child stays", case, str([process.name() for process in left]))
            for process in left:
                process.kill()
        if left := everything(self.ground.output) - before:
            self.faults.add("a file stays", case, str(sorted(path.name for path in left)))

    def next_one(self, case):
        try:
            self.exact += (exact := same(self.sampled(), self.reference))
            if not exact:
                self.faults.add("the next prompt differs", case)
        except (AssertionError, OSError) as error:
            self.faults.add("the next prompt fails", case, str(error))

    def conclude(self, tried, p95, worst):
        outcome, everyone = self.outcome, sum(self.idle.values(), [])
        outcome.hold("cancels", self.hits, ">=", outcome.count)
        outcome.hold("phases", len(self.idle), ">=", min(outcome.count, len(PHASES)))
        outcome.hold("p95 seconds to idle", percentile(everyone, 0.95), "<=", p95)
        outcome.hold("longest, seconds", percentile(everyone, 1), "<=", worst)
        outcome.hold("next prompts that were exact", self.exact, ">=", outcome.count)
        outcome.none_of("not interrupted", "a child stays", "a file stays", "the server runs nothing more")
        outcome.none_of("the next prompt differs", "the next prompt fails", "failed before the cancel")
        told = {
            phase: [len(seen), percentile(seen, 0.95), percentile(seen, 1)]
            for phase, seen in self.idle.items()
        }
        outcome.figures |= {"tried": tried, "phase: count, p95, longest": told}
