"""What a campaign found: figures, the goals they are held to, and examples of what went wrong."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

SHOWN, WIDTH = 4, 300  # examples of each kind of fault, and characters of each
SIGNS = {"<=": lambda got, bound: got <= bound, ">=": lambda got, bound: got >= bound}


@dataclass(frozen=True)
class Goal:
    """One figure and the bound it has to keep; a figure that is no number keeps none."""

    what: str
    got: float
    sign: str
    bound: float

    @property
    def holds(self):
        return SIGNS[self.sign](self.got, self.bound)


@dataclass
class Faults:
    """Everything that went wrong, counted by kind, with the first few of each in words."""

    counts: Counter = field(default_factory=Counter)
    examples: dict = field(default_factory=dict)

    def add(self, kind, case, text=""):
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(f"{case}: {text}"[:WIDTH])


@dataclass
class Outcome:
    """The result of one campaign."""

    name: str
    count: int
    seed: int
    goals: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    def hold(self, what, got, sign, bound):
        """Note a figure that has a goal."""
        self.goals.append(Goal(what, got, sign, bound))

    def none_of(self, *kinds):
        """Note that no fault of these kinds may have been seen."""
        for kind in kinds:
            self.hold(kind, self.faults.counts[kind], "<=", 0)

    @property
    def good(self):
        """Whether there are goals, and all of them hold."""
        return bool(self.goals) and all(goal.holds for goal in self.goals)

    def to_json(self):
        told = {"name": self.name, "count": self.count, "seed": self.seed, "good": self.good}
        goals = [{**asdict(goal), "holds": goal.holds} for goal in self.goals]
        counts = dict(self.faults.counts.most_common())
        told |= {"goals": goals, "figures": self.figures}
        return told | {"faults": counts, "examples": self.faults.examples}

    def to_text(self):
        rows = [
            (goal.what, f"{goal.got:g}", f"{goal.sign} {goal.bound:g}", goal.holds) for goal in self.goals
        ]
        lines = [f"{self.name}: {self.count}, seed {self.seed}", f"{'figure':44} {'got':>10} {'goal':>10}"]
        lines += [
            f"{what:44} {got:>10} {goal:>10}{'' if held else '  MISSED'}" for what, got, goal, held in rows
        ]
        lines += [f"{what:44} {json.dumps(value)}" for what, value in self.figures.items()]
        for kind, shown in self.faults.examples.items():
            lines += [f"  {kind} ({self.faults.counts[kind]})", *(f"    {text!r}" for text in shown)]
        return "\n".join([*lines, f"{self.name}: {'all goals hold' if self.good else 'MISSED'}"])


def percentile(values, share):
    """The value that `share` of all are not above; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def floor_growth(values):
    """Growth from one value to the next of what lies below all: whole clips come and go on top of it.

    The lowest of the last third less the lowest of the first, over the values between; 0 of fewer than three.
    """
    third = len(values) // 3
    if not third:
        return 0.0
    return round((min(values[-third:]) - min(values[:third])) / (len(values) - third), 4)
