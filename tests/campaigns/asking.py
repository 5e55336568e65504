"""One prompt to a server whose answer may never come: posted, waited for, and told apart."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from http.client import HTTPException

from kinetograph.tests.campaigns.watch import POLL

PACK_FILES = "ComfyUI-Kinetograph"


@dataclass
class Answer:
    """What became of a prompt.

    `status`: refused, success, error, interrupted; silent: the post got no answer in time; lost: it was taken and
    did not end in time; gone: the server went away.
    """

    code: int = 0
    status: str = "silent"
    said: dict = field(default_factory=dict)  # of the post
    failure: dict = field(default_factory=dict)  # of the node that failed
    seconds: float = 0.0

    def complaints(self):
        """(node id or None, error) for everything that the post was refused for."""
        error = self.said.get("error")
        yield from [(None, error)] if isinstance(error, dict) else ()
        for key, node in (self.said.get("node_errors") or {}).items():
            yield from ((key, error) for error in node["errors"])

    @property
    def text(self):
        """Every word for users: of the post, or of the node that failed."""
        words = [f"{error.get('message', '')}: {error.get('details', '')}" for _, error in self.complaints()]
        return "\n".join([*words, self.failure.get("exception_message", "")]).strip()


def ask(client, prompt, seconds=10.0, release=lambda: None, run=None):
    """Post a prompt, for at most `seconds`, and wait for its end, for at most `run` or else as long.

    `release` is called again and again while a post stays silent.
    """
    answer = Answer()
    try:
        _ask(client, prompt, seconds, release, run or seconds, answer)
    except (OSError, HTTPException):
        answer.status = "gone"
    return answer


def _ask(client, prompt, seconds, release, run, answer):
    started = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        body = json.dumps({"prompt": prompt, "client_id": client.id}).encode()
        posted = thread.submit(client.post, "/prompt", body)
        try:
            answer.code, content = posted.result(seconds)
        except Late:
            answer.seconds = time.monotonic() - started
            _wait(posted, release)
            return
    answer.said = _parse(content)
    if answer.code == 200:
        _follow(client, answer, time.monotonic() + run, release)
    else:
        answer.status = "refused"
    answer.seconds = time.monotonic() - started


def _wait(posted, release):
    while not posted.done():
        release()
        time.sleep(POLL)


def _parse(content):
    try:
        said = json.loads(content)
    except ValueError:
        return {"error": {"message": content.decode(errors="replace")}}
    return said if isinstance(said, dict) else {}


def _follow(client, answer, deadline, release):
    """Wait for the entry in the history."""
    key = answer.said["prompt_id"]
    while not (history := client.get_json(f"/history/{key}")):
        if time.monotonic() > deadline:
            answer.status = "lost"
            client.interrupt()
            release()
            return
        time.sleep(POLL)
    told = history[key]["status"]
    answer.status = told["status_str"]
    for kind, data in told["messages"]:
        if kind == "execution_error":
            answer.failure = data
        elif kind == "execution_interrupted":
            answer.status = "interrupted"


def is_ours(trace):
    """Whether a traceback goes through a file of this pack."""
    return any(PACK_FILES in line for line in trace or ())
