"""What a part of a checkpoint file turned out to be, for programs and in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import CheckpointError, shown_list
from .lora_names import is_lora
from .part import Kind, Part, Shapes


@dataclass(frozen=True)
class Finding:
    """What one part of a checkpoint turned out to be. Key lists are in our naming but for `unexpected`."""

    name: str  # of the file or folder
    family: str = "unknown"
    label: str = "unknown"
    kind: Kind | None = None
    variant: str = "unknown"
    dialect: str = "unknown"
    prefix: str = ""
    part: Part | None = None
    config: Any = None
    renames: Mapping[str, str | None] = field(default_factory=dict)  # the file's key -> ours, None: dropped
    reshaped: Shapes = field(default_factory=dict)  # our key -> shape, where the file stores another
    matched: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()  # the file's own names
    misshapen: tuple[str, ...] = ()  # "key: (got) for (wanted)"
    problem: str | None = None  # why a recognised file is of no use; of a stranger what it is
    parameters: int = 0
    dtype: str = "none"
    keys: int = 0

    @property
    def complete(self) -> bool:
        """Every key is used or dropped knowingly, none is missing, every shape fits."""
        return self.config is not None and not (
            self.missing or self.unexpected or self.misshapen or self.problem
        )

    @property
    def is_stranger(self) -> bool:
        """Whether it is known and none of our parts; `problem` says what it is."""
        return self.part is None and self.problem is not None

    @property
    def what(self) -> str:
        """Label and variant, or label and kind where the sizes are not known."""
        return f"{self.label} {self.variant if self.config is not None else self.kind}"

    @property
    def num_dropped(self) -> int:
        """Keys of the file that are known and not needed."""
        return sum(ours is None for ours in self.renames.values())

    def check(self) -> "Finding":
        """Itself when complete; otherwise CheckpointError with counts, the first five keys and the family."""
        if not self.complete:
            raise CheckpointError(self.complaint())
        return self

    def complaint(self) -> str:
        """Why this is not a complete checkpoint, for a user."""
        if self.is_stranger:
            return f"{self.name} is {self.problem}"
        if self.part is None and is_lora(self.unexpected):
            return f"{self.name} is a LoRA, no checkpoint: put it on a model with LoRA Stack."
        if self.part is None:
            return (
                f"{self.name} is of no kind known here: {self.keys} keys, such as "
                f"{shown_list(self.unexpected)}. Choose another file."
            )
        if self.problem:
            return f"{self.name} looks like {self.what}, but: {self.problem}"
        lists = {"missing": self.missing, "unexpected": self.unexpected, "misshapen": self.misshapen}
        faults = "; ".join(f"{len(keys)} {word} ({shown_list(keys)})" for word, keys in lists.items() if keys)
        return (
            f"{self.name} looks like {self.what} ({self.dialect} keys), {self.matched} keys fit, but not all: "
            f"{faults}. Use the file as it was published."
        )
