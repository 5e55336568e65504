"""What no text for users may hold: Python's own words, paths of the machine, characters that do not print."""

import builtins
import re

MAX_ERROR, MAX_REPORT = 4000, 20_000  # characters
RAW = re.compile(
    r"\b(Type|Key|Attribute|Index|Recursion|ZeroDivision|UnboundLocal|Name|Assertion|OS|Permission|Unicode\w+)"
    r"Error\b|Traceback|File \"|\[Errno|object has no attribute|has no len|not subscriptable|is not iterable"
    r"|is not callable|unhashable|not supported between|unsupported operand|invalid literal|could not convert"
    r"|cannot convert float|must be real number|argument of type|unexpected keyword|positional argument"
    r"|index out of range|out of range for|division by zero|math domain|not enough values|too many values"
    r"|recursion depth|size mismatch|mat1 and mat2|expected str|embedded null|<class '|object at 0x"
)
KNOWN = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
FOREIGN = ("torch.", "av.", "PIL.", "numpy.", "json.", "safetensors", "subprocess.", "struct.", "zipfile.")


def is_raw(text, exception=""):
    """Whether words, or the type of an exception, are Python's and not ours."""
    strange = exception.startswith(FOREIGN) or (exception in KNOWN and exception != "ValueError")
    return strange or bool(RAW.search(text))


def text_faults(text, folders, longest=MAX_ERROR):
    """The kinds of fault in a text for users; `folders` are paths that it must not hold."""
    found = {
        "a path of the machine": any(str(folder) in text for folder in folders),
        "characters that do not print": not text.replace("\n", "").isprintable(),
        "a text without end": len(text) > longest,
        "raw Python words": is_raw(text),
    }
    return [kind for kind, seen in found.items() if seen]
