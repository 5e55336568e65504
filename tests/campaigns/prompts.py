"""Random prompts from what the server says of our nodes, most with one wrong value.

No HTTP 500 of ours, no raw Python words of ours at the post or while running, wrong values refused at the post,
and the server goes on.
"""

import random
from collections import Counter

from kinetograph.tests.campaigns.asking import ask, is_ours
from kinetograph.tests.campaigns.outcome import Outcome, percentile
from kinetograph.tests.campaigns.spoiling import FAILS, REFUSED, changes
from kinetograph.tests.campaigns.valid_prompts import Prompts, complete
from kinetograph.tests.campaigns.words import is_raw, text_faults
from kinetograph.tests.host.graphs import node, text_to_video
from kinetograph.tools.commands import ROOT

PATIENCE = 20.0  # seconds for one prompt
GOOD_EVERY = 100
UNTOUCHED = 0.08  # share of prompts that are left right
SHARE_REFUSED = 0.95
KINDS_TOLD = 40


def run(count, seed, ground):
    """Post `count` prompts one after another and judge each answer."""
    rng, outcome = random.Random(seed), Outcome("prompts", count, seed)
    trial = _Trial(ground, outcome)
    for number in range(count):
        trial.one(rng, number)
        if number % GOOD_EVERY == GOOD_EVERY - 1 or number == count - 1:
            trial.good_one(number)
    trial.conclude()
    return outcome


class _Trial:
    """The state of one campaign."""

    def __init__(self, ground, outcome):
        self.ground, self.outcome, self.faults = ground, outcome, outcome.faults
        self.prompts = Prompts(ground.client)
        self.statuses, self.fates, self.passed = Counter(), Counter(), Counter()
        self.seconds, self.good, self.log_read = [], 0, 0
        self.hidden = (ground.base, ROOT)

    def one(self, rng, number):
        kind = self.prompts.kinds[number % len(self.prompts.kinds)]
        values, used = self.prompts.inputs(kind, rng)
        field, change = None, None
        if rng.random() >= UNTOUCHED:
            field = rng.choice(used)
            change = rng.choice(changes(field, rng))
            values[field.name] = change.value
            if change.absent:
                del values[field.name]
        prompt = complete({**dict(change.more if change else ()), **self.prompts.around(kind, values)})
        self.log_read = self.ground.server.log.stat().st_size
        answer = ask(self.ground.client, prompt, PATIENCE)
        self.seconds.append(answer.seconds)
        case = f"{number} {kind.removeprefix('Kinetograph')}.{field.name if field else '-'}"
        self.judge(answer, case, change)

    def judge(self, answer, case, change):
        what = f"{case} {change.what if change else 'right'} {str(change.value)[:40]!r}" if change else case
        self.statuses[answer.status] += 1
        if answer.status in ("silent", "lost"):
            self.faults.add("no end", what, answer.status)
            self.recover()
        elif answer.status == "gone":
            self.faults.add("the server dies", what)
        self.judge_post(answer, what)
        self.judge_run(answer, what)
        if change is None:
            self.fates["right"] += 1
            if answer.status != "success":
                self.faults.add("a right prompt fails", what, answer.text)
            return
        self.fates[change.fate] += 1
        place = f"{case.split(' ', 1)[1]}: {change.what}"
        if change.fate == REFUSED and answer.status != "refused":
            self.fates["passed the post"] += 1
            self.passed[f"{place} ({answer.status})"] += 1
        elif change.fate == FAILS and answer.status == "success":
            self.fates["ran with a wrong value"] += 1
            self.passed[f"{place} (success)"] += 1

    def judge_post(self, answer, what):
        if answer.code >= 500:
            log = self.ground.server.log.read_bytes()[self.log_read :]
            ours = is_ours(log.decode(errors="replace").splitlines())
            self.faults.add("HTTP 500 of ours" if ours else "HTTP 500 of the host", what, answer.text)
        for _, error in answer.complaints():
            trace = (error.get("extra_info") or {}).get("traceback")
            words = f"{error.get('details', '')}"
            if is_ours(trace):
                self.faults.add("raw words of ours at the post", what, words)
            elif error.get("type") == "custom_validation_failed":
                self.judge_text(words, "at the post", what)

    def judge_run(self, answer, what):
        failure = answer.failure
        if failure.get("node_type", "").startswith("Kinetograph"):
            self.judge_text(failure["exception_message"], "while running", what, failure["exception_type"])

    def judge_text(self, words, when, what, exception=""):
        if is_raw(words, exception):
            self.faults.add(f"raw words of ours {when}", what, f"{exception} {words}")
        for fault in text_faults(f"{words}\n{exception}", self.hidden):
            if fault != "raw Python words":
                self.faults.add(fault, what, f"{exception} {words}")

    def recover(self):
        """Give it a moment; a server that runs nothing more is replaced."""
        idle = {"image": node("EmptyImage", width=16, height=16, batch_size=1, color=1)}
        idle["shown"] = node("PreviewAny", source=["image", 0])
        if ask(self.ground.client, idle, PATIENCE).status != "success":
            self.faults.add("the server runs nothing more", "after a prompt without end")
            self.ground.restart()

    def good_one(self, number):
        prompt = {**text_to_video(seed=number, steps=1), "save": self.saved()}
        answer = ask(self.ground.client, prompt, 60.0)
        self.good += answer.status == "success"
        if answer.status != "success":
            self.faults.add("the next good prompt fails", number, answer.text)

    def saved(self):
        options = {"format": "video/h264-mp4", "format.crf": 19, "format.pix_fmt": "yuv420p"}
        options |= {"frame_rate": 8.0, "loop_count": 0, "save_output": False, "save_metadata": False}
        ends = {"vae": ["loader", 2], "latent": ["sampler", 0], "filename_prefix": "prompts/good"}
        return node("KinetographVAEDecodeToVideo", **ends, trim_to_audio=False, **options)

    def conclude(self):
        outcome, wrong = self.outcome, self.fates[REFUSED]
        failed = self.faults.counts["a right prompt fails"]
        share = 1 - self.fates["passed the post"] / max(1, wrong)
        outcome.hold("prompts", sum(self.statuses.values()), ">=", outcome.count)
        outcome.hold("nodes left out", len(self.prompts.told) - len(self.prompts.kinds), "<=", 0)
        outcome.hold("wrong values", wrong, ">=", outcome.count / 3)
        outcome.hold("share refused at the post", round(share, 4), ">=", SHARE_REFUSED)
        outcome.hold("good prompts between", self.good, ">=", max(1, outcome.count // GOOD_EVERY))
        outcome.hold("right prompts that failed", failed, "<=", max(1, self.fates["right"] // 10))
        outcome.none_of(
            "HTTP 500 of ours", "raw words of ours at the post", "raw words of ours while running"
        )
        outcome.none_of("a path of the machine", "characters that do not print", "a text without end")
        outcome.none_of(
            "no end", "the server runs nothing more", "the server dies", "the next good prompt fails"
        )
        outcome.hold("ran with a wrong value by a link", self.fates["ran with a wrong value"], "<=", 0)
        outcome.figures |= {
            "ended": dict(self.statuses),
            "wrong values that passed the post": self.fates["passed the post"],
            "which": dict(self.passed.most_common(KINDS_TOLD)),
            "wrong values by a link": self.fates[FAILS],
            "p95 seconds": percentile(self.seconds, 0.95),
        }
