"""Work that may block, done where nobody waits for it without being asked."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

TICK_SECONDS = 0.2
# pieces that may lie between the one who brings and the one who takes
WAITING = 32
Item = TypeVar("Item")
# called several times a second; what it raises ends the work
Tick = Callable[[], None]


def patiently(work: Generator[Item, None, None], tick: Tick) -> Iterator[Item]:
    """The items of `work`, made by another thread, with `tick` between them and while nothing comes.

    What `tick` raises leaves at once; a connection that the thread waits for then ends by its own timeout.
    """
    brought: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(WAITING)
    nobody_waits = threading.Event()
    threading.Thread(target=_bring, args=(work, brought, nobody_waits), daemon=True).start()
    try:
        while True:
            tick()
            try:
                item, problem, is_last = brought.get(timeout=TICK_SECONDS)
            except queue.Empty:
                continue
            if problem is not None:
                raise problem
            if is_last:
                return
            yield item  # type: ignore[misc]
    finally:
        nobody_waits.set()


def _bring(work: Generator, brought: queue.Queue, nobody_waits: threading.Event) -> None:
    """Put the items, then the end or the error."""

    def put(*entry: object) -> None:
        while not nobody_waits.is_set():
            try:
                return brought.put(entry, timeout=TICK_SECONDS)
            except queue.Full:
                continue

    try:
        for item in work:
            put(item, None, False)
            if nobody_waits.is_set():
                return
        put(None, None, True)
    except BaseException as problem:  # told to whoever waits
        put(None, problem, True)
    finally:
        work.close()


def rest(seconds: float, tick: Tick) -> None:
    """Wait, with `tick` meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, TICK_SECONDS))
