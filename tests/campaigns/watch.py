"""What a server leaves behind: processes, files, descriptors, memory."""

import time
from dataclasses import dataclass

import psutil

from kinetograph.tests.campaigns.ground import MARK

POLL = 0.02  # seconds
MEGABYTE = 2**20


@dataclass(frozen=True)
class Reading:
    """What a server holds at one moment."""

    rss: float  # MB
    fds: int
    threads: int
    children: int


def read(server):
    process = psutil.Process(server.process.pid)
    with process.oneshot():
        rss = process.memory_info().rss / MEGABYTE
        return Reading(rss, process.num_fds(), process.num_threads(), len(process.children(recursive=True)))


def offspring(ground):
    """Every living process that the ground's servers started, also one whose parents are gone."""
    server = ground.server
    found = set(psutil.Process(server.process.pid).children(recursive=True))
    if ground.lent is None:
        found |= {process for process in psutil.process_iter() if _is_marked(process, ground.mark)}
    return [process for process in found if process.pid != server.process.pid and _lives(process)]


def _is_marked(process, mark):
    try:
        return process.environ().get(MARK) == mark
    except psutil.Error:
        return False


def _lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_for(truth, seconds):
    """Seconds until `truth()` holds, at most `seconds`; None when it never did."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if truth():
            return time.monotonic() - started
        time.sleep(POLL)
    return None


def is_idle(client):
    queue = client.get_json("/queue")
    return not queue["queue_running"] and not queue["queue_pending"]


def everything(folder):
    """Every path below a folder, hidden ones too."""
    return {path for path in folder.rglob("*")} if folder.exists() else set()
