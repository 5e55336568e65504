"""Releases into the model folders: planned, told, checked for room and rights, then fetched one by one."""

from collections.abc import Callable, Iterable, Mapping

from ..families.family import Release
from .hub import Hub
from .part import Fetched, compare, fetch_file
from .patience import patiently
from .plan import Item, Plan, RootsOf, make_plan, with_all_needs
from .report import plan_text, report_or_lines

# called several times a second with bytes that are there and bytes in all; what it raises ends the download
Progress = Callable[[int, int], None]


def download(
    names: Iterable[str],
    releases: Mapping[str, Release],
    roots_of: RootsOf,
    hub: Hub,
    tell: Callable[[str], None],
    progress: Progress,
    with_needs: bool = True,
    reads_all: bool = False,
) -> str:
    """Bring releases, called by their names, and what they need; the report on every file.

    `tell` gets the plan before the first byte. `reads_all` reads what is there already and compares its hash. ValueErrors
    say what stands in the way; parts of files stay for the next run.
    """
    wanted = with_all_needs(names, with_needs, releases)
    plan = make_plan(wanted, roots_of, hub, lambda: progress(0, 1))
    tell(plan_text(plan))
    plan.check_room()
    _check_gates(plan, lambda: progress(0, 1))
    total, done, found = plan.bytes, 0, []
    for item in plan.items:
        before = item.missing_bytes
        found.append(_bring(plan, item, done, total, progress, reads_all))
        done += before
        progress(done, max(1, total))
    return report_or_lines(plan, found)


def _check_gates(plan: Plan, tick: Callable[[], None]) -> None:
    """Ask for one file of each repository whose page wants its terms accepted, before anything is fetched."""
    asked = {
        item.repository.name: item for item in plan.missing if item.repository.gated or item.release.gated
    }
    for item in asked.values():
        for _ in patiently(plan.hub.check_access(item.repository, item.file), tick):
            pass


def _bring(plan: Plan, item: Item, done: int, total: int, progress: Progress, reads_all: bool) -> Fetched:
    """One file, which may be there already."""

    def tick(new: int = 0) -> None:
        progress(done + new, max(1, total))

    if item.is_here:
        return compare(item, tick) if reads_all else Fetched(item, None, was_here=True)
    start, state = item.file.bytes - item.missing_bytes, [0]

    def grown(size: int) -> None:
        state[0] = max(0, size - start)
        tick(state[0])

    return fetch_file(plan.hub, item, lambda: tick(state[0]), grown)
