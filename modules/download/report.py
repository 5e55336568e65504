"""A download in words: what will be fetched, what is there at the end, and what people fetch themselves."""

from .errors import DownloadError, amount
from .part import Fetched
from .plan import Elsewhere, Plan, free_bytes

NOT_PINNED = "not pinned by us: the hash is {source}'s word of this moment"


def plan_text(plan: Plan) -> str:
    """What a download will do, before its first byte."""
    lines = [f"From {plan.hub.address}: {amount(plan.bytes)} in {_files(len(plan.missing))} to fetch."]
    if plan.hub.is_mirror:
        lines.append(
            "This is a mirror and not huggingface.co: sizes and hashes that are not on record are its own word."
        )
    lines += _by_release(plan)
    lines += [f"- {each.release.name}: {_elsewhere(each)}" for each in plan.elsewhere]
    for folder in dict.fromkeys(item.target.parent for item in plan.missing):
        lines.append(f"Into {folder}: {amount(free_bytes(folder / 'file'))} free.")
    return "\n".join(lines)


def _by_release(plan: Plan) -> list[str]:
    lines = []
    for release in dict.fromkeys(item.release for item in plan.items):
        items = [item for item in plan.items if item.release is release]
        missing = [item for item in items if not item.is_here]
        size = amount(sum(item.missing_bytes for item in items))
        begun = any(item.missing_bytes < item.file.bytes for item in missing)
        state = f"{size}{' more' * begun} in {_files(len(missing))}" if missing else "is there already"
        repository = items[0].repository
        licence = repository.licence or release.licence or "none told"
        gate = ", its page wants its terms accepted" * (repository.gated or release.gated)
        page = f"{repository.name} at {repository.commit[:12]}"
        lines.append(f"- {release.name}: {state}; licence: {licence}{gate}; {page}")
    return lines


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _elsewhere(each: Elsewhere) -> str:
    return (
        "is there already"
        if each.is_here
        else "lies at a store of its own: the lines to fetch it stand at the end"
    )


def report_or_lines(plan: Plan, found: list[Fetched]) -> str:
    """The report on every file; DownloadError with the lines to type where something lies elsewhere and is not there."""
    report = "\n".join([_of_file(plan, each) for each in found] + _present(plan)) or "Nothing to fetch."
    lacking = [each for each in plan.elsewhere if not each.is_here]
    if not lacking:
        return report
    lines = [line for each in lacking for line in lines_to_type(each)]
    names = ", ".join(each.release.name for each in lacking)
    raise DownloadError(
        f"Not all is there yet: {names} lies at no hub, and this program does not follow other addresses. Type these "
        "lines into a terminal, then run this again:\n\n" + "\n".join(lines) + f"\n\nThere already:\n{report}"
    )


def _of_file(plan: Plan, each: Fetched) -> str:
    item = each.item
    told = f"SHA-256 {each.sha256 or item.file.sha256 or 'not told'}"
    pinned = "as published" if item.is_pinned else NOT_PINNED.format(source=plan.hub.address)
    if each.sha256 is None:
        pinned = "was there already, of the right size; its contents were not read (python dev.py fetch NAME --check does)"
    elif each.was_here:
        pinned += ", was there already"
    return f"{item.target}: {item.file.bytes:,} bytes, {told}, {pinned}; commit {item.repository.commit}"


def _present(plan: Plan) -> list[str]:
    return [
        f"{each.release.folder}/{each.release.place}: there, fetched by hand"
        for each in plan.elsewhere
        if each.is_here
    ]


def lines_to_type(each: Elsewhere) -> list[str]:
    """How a person fetches what lies at no hub."""
    lines = [f'curl -L -C - --create-dirs -o "{each.target}" {each.release.address}']
    if each.target.suffix == ".tar":
        lines.append(f'tar -xf "{each.target}" -C "{each.target.parent}"')
    return lines
