"""What a user may choose of a format: enumerated words, bounded whole numbers, yes or no.

Only these reach the encoder's command line, never text from outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Argv = tuple[str, ...]
Value = str | int | bool


@dataclass(frozen=True)
class Choice:
    """One of a closed list of words; the first is the default."""

    name: str
    words: Mapping[str, Argv]
    tooltip: str

    @property
    def default(self) -> str:
        return next(iter(self.words))

    def problem(self, value: object) -> str | None:
        if isinstance(value, str) and value in self.words:
            return None
        return f"{self.name} must be one of {', '.join(self.words)}: got {value!r}"

    def argv(self, value: Value) -> Argv:
        return self.words[str(value)]


@dataclass(frozen=True)
class Amount:
    """A whole number between two bounds."""

    name: str
    flag: str
    low: int
    high: int
    default: int
    tooltip: str

    def problem(self, value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return None
        return f"{self.name} must be a whole number from {self.low} to {self.high}: got {value!r}"

    def argv(self, value: Value) -> Argv:
        return self.flag, str(int(value))


@dataclass(frozen=True)
class Switch:
    """Yes or no."""

    name: str
    default: bool
    on: Argv
    off: Argv
    tooltip: str

    def problem(self, value: object) -> str | None:
        return None if isinstance(value, bool) else f"{self.name} must be true or false: got {value!r}"

    def argv(self, value: Value) -> Argv:
        return self.on if value else self.off


Option = Choice | Amount | Switch
