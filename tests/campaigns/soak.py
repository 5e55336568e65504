"""Many mixed prompts on one server, some failing, some interrupted: what it holds afterwards is what it held before."""

import random
import statistics
import time
from collections import Counter

from kinetograph.tests.campaigns import clips
from kinetograph.tests.campaigns.outcome import Outcome, floor_growth
from kinetograph.tests.campaigns.watch import is_idle, read, wait_for
from kinetograph.tests.host.graphs import loader, node, picture_to_video, text_to_video, with_chunked_frames
from kinetograph.tools.client import Result

WARM_UP = 20
FAILING, INTERRUPTED = 0.1, 0.1  # shares
MB_A_PROMPT, FDS, THREADS = 0.05, 2, 1
SETTLE = 0.05  # seconds for connections to close
FOLDER = "soak"
PATIENCE = 60.0


def text_clip(seed, noise):
    graph = text_to_video(frames=9, steps=2, seed=seed)
    work = {"vae": ["loader", 2], "latent": ["sampler", 0], **clips.file_settings(f"{FOLDER}/text")}
    return {**graph, "save": node("KinetographVAEDecodeToVideo", **work)}


def text_frames(seed, noise):
    graph = with_chunked_frames(text_to_video(frames=9, steps=2, seed=seed))
    return {**graph, "save": node("PreviewImage", images=["decode", 0])}


def picture_clip(seed, noise):
    graph = picture_to_video("", frames=3, steps=2, seed=seed)
    graph["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=seed % 2**24)
    return {**with_chunked_frames(graph), "save": node("PreviewAny", source=["decode", 0])}


def clip(seed, noise):
    return {**clips.noisy(noise, 2), "save": clips.combined(f"{FOLDER}/clip", rate=1 + seed % 97)}


def other_clip(seed, noise):
    names = list(clips.FORMATS)
    return {
        **clips.noisy(noise, 1),
        "save": clips.combined(f"{FOLDER}/clip", names[seed % len(names)], 1 + seed % 47),
    }


def another_dtype(seed, noise):
    graph = text_to_video(frames=5, steps=1, seed=seed)
    graph["loader"] = loader(weight_dtype=("fp32", "bf16", "fp16")[seed % 3])
    return {**graph, "shown": node("PreviewAny", source=["sampler", 0])}


def doctor(seed, noise):
    return {"doctor": node("KinetographModelDoctor", model="SVD/tiny-svd.safetensors", nonce=seed)}


def wrong_latent(seed, noise):
    graph = text_to_video(steps=1, seed=seed)
    graph["latent"] = node("EmptyLatentImage", width=64, height=64, batch_size=1 + seed % 5)
    return {**graph, "shown": node("PreviewAny", source=["sampler", 0])}


def wrong_name(seed, noise):
    return clips.plain(f"../{FOLDER}{seed}")


def wrong_frames(seed, noise):
    """The encoder itself refuses: odd sizes with halved chroma."""
    graph = clips.plain(f"{FOLDER}/odd", color=seed % 2**24)
    graph["frames"] = node("EmptyImage", width=63, height=61, batch_size=2, color=seed % 2**24)
    return graph


def long_sampling(seed, noise):
    graph = text_to_video(frames=17, steps=1000, seed=seed)
    return {**graph, "shown": node("PreviewAny", source=["sampler", 0])}


def long_clip(seed, noise):
    return {**clips.noisy(noise, 40), "save": clips.combined(f"{FOLDER}/long", rate=1 + seed % 97)}


GOOD = (text_clip, text_frames, picture_clip, clip, other_clip, another_dtype, doctor)
BAD = (wrong_latent, wrong_name, wrong_frames)
LONG = (long_sampling, long_clip)


def plan(count, rng):
    """[(what, how it has to end)], every kind early and then in turn, in an order drawn at random."""
    every = max(2, round(1 / FAILING))
    made = []
    for number in range(count):
        if number % every == 3:
            made.append((BAD[number // every % len(BAD)], ("error", "refused")))
        elif number % every == 7:
            made.append((LONG[number // every % len(LONG)], ("interrupted",)))
        else:
            made.append((rng.choice(GOOD) if number >= WARM_UP else GOOD[number % len(GOOD)], ("success",)))
    return made


def run(count, seed, ground, mb_a_prompt=MB_A_PROMPT):
    """Run `count` prompts and read the server after each."""
    rng, outcome = random.Random(seed), Outcome("soak", count, seed)
    noise, ended, readings = clips.write_noise(ground.base), Counter(), []
    first = rng.randrange(2**32)
    for number, (make, wanted) in enumerate(plan(count, rng)):
        result = one(ground, make(first + number, noise), wanted)
        ended[result.status] += 1
        if result.status not in wanted:
            outcome.faults.add("ended otherwise", f"{number} {make.__name__} {result.status}", result.message)
        readings.append(read(ground.server))
    conclude(outcome, ended, readings[min(WARM_UP, count // 2) :], mb_a_prompt)
    return outcome


def one(ground, prompt, wanted):
    """The result of a prompt; one that has to be interrupted is, as soon as it makes progress."""
    client, asked = ground.client, []

    def listen(kind, data):
        if kind == "progress" and wanted == ("interrupted",) and not asked:
            asked.append(True)
            client.interrupt()

    try:
        result = client.run(prompt, listen, timeout=PATIENCE)
    except OSError as error:
        return Result("gone", error={"message": repr(error)})
    wait_for(lambda: is_idle(client), PATIENCE)
    time.sleep(SETTLE)
    return result


def conclude(outcome, ended, seen, mb_a_prompt):
    rss = [reading.rss for reading in seen]
    outcome.hold("prompts", sum(ended.values()), ">=", outcome.count)
    outcome.hold("prompts that failed", ended["error"] + ended["refused"], ">=", outcome.count * FAILING / 2)
    outcome.hold("prompts that were interrupted", ended["interrupted"], ">=", outcome.count * INTERRUPTED / 2)
    outcome.hold("memory, MB a prompt", floor_growth(rss), "<=", mb_a_prompt)
    outcome.hold("descriptors, growth", growth([reading.fds for reading in seen]), "<=", FDS)
    outcome.hold("threads, growth", growth([reading.threads for reading in seen]), "<=", THREADS)
    outcome.hold("children, most", max((reading.children for reading in seen), default=0), "<=", 0)
    outcome.none_of("ended otherwise")
    outcome.figures |= {"ended": dict(ended), "memory, first and last MB": [round(rss[0]), round(rss[-1])]}


def growth(values):
    """How much the middle of the last quarter lies above that of the first."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) - statistics.median(values[:quarter])
