"""Checks for `validate_inputs`: the host stops checking bounds and lists of every input that is named there.

It also lets NaN through its own bounds. Linked inputs arrive as None and pass.
"""

from collections.abc import Iterable
from typing import Any


def check_number(name: str, value: float | None, low: float, high: float) -> None:
    """ValueError unless low <= value <= high; NaN is outside every bound."""
    if value is not None and not low <= value <= high:
        got = "NaN" if value != value else value
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}: got {got}.")


def check_choice(name: str, chosen: Any, choices: Iterable[str]) -> None:
    """ValueError unless the key of a combo, or of a DynamicCombo's dictionary, is one of `choices`."""
    key = chosen.get(name) if isinstance(chosen, dict) else chosen
    if key is not None and key not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}: got {key!r}.")
