"""Work that may block, done where nobody waits for it without being asked."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeVar

TICK_SECONDS = 0.2
# in which more may come, to be taken at once: threads that take turns for each piece are slow
GATHER_SECONDS = 0.01
# pieces that may lie between the one who brings and the one who takes
WAITING = 256
Item = TypeVar("Item")
# called several times a second; what it raises ends the work
Tick = Callable[[], None]


class Entry(NamedTuple):
    """An item, or the end of the work, with its error."""

    item: Any
    is_last: bool = False
    problem: BaseException | None = None


def patiently(work: Generator[Item, None, None], tick: Tick) -> Iterator[Item]:
    """The items of `work`, made by another thread, with `tick` between them and while nothing comes.

    What `tick` raises leaves at once; a connection that the thread waits for then ends by its own timeout.
    """
    brought: queue.Queue[Entry] = queue.Queue(WAITING)
    nobody_waits = threading.Event()
    threading.Thread(target=_bring, args=(work, brought, nobody_waits), daemon=True).start()
    try:
        while True:
            tick()
            for item, is_last, problem in _take(brought):
                if problem is not None:
                    raise problem
                if is_last:
                    return
                yield item
    finally:
        nobody_waits.set()


def _take(brought: queue.Queue[Entry]) -> list[Entry]:
    """All that is there, after a moment."""
    time.sleep(GATHER_SECONDS)
    entries = []
    try:
        entries.append(brought.get(timeout=TICK_SECONDS))
        while True:
            entries.append(brought.get_nowait())
    except queue.Empty:
        return entries


def _bring(work: Generator, brought: queue.Queue[Entry], nobody_waits: threading.Event) -> None:
    """Put the items, then the end or the error."""

    def put(entry: Entry) -> None:
        while not nobody_waits.is_set():
            try:
                return brought.put(entry, timeout=TICK_SECONDS)
            except queue.Full:
                continue

    try:
        for item in work:
            put(Entry(item))
            if nobody_waits.is_set():
                return
        put(Entry(None, is_last=True))
    except BaseException as problem:  # told to whoever waits
        put(Entry(None, is_last=True, problem=problem))
    finally:
        work.close()


def rest(seconds: float, tick: Tick) -> None:
    """Wait, with `tick` meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, TICK_SECONDS))
