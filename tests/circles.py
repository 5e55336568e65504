"""Circles among arrows: who leads back to itself."""


def circles(arrows):
    """Groups of files of which each reaches all others, a line for each import inside a group."""
    reached = {name: reach(name, arrows) for name in arrows}
    return sorted(
        f"{'.'.join(name)}:{line} -> {'.'.join(other)}"
        for name, others in arrows.items()
        for other, line in others.items()
        if name in reached[other]
    )


def reach(name, arrows):
    """Every file at the end of a way of one or more imports."""
    seen, waiting = set(), [name]
    while waiting:
        new = arrows[waiting.pop()].keys() - seen
        seen |= new
        waiting += new
    return seen
