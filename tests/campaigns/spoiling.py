"""One wrong value in a right prompt, and what has to become of it."""

from dataclasses import dataclass

from kinetograph.tests.campaigns.valid_prompts import DYNAMIC, LINKS
from kinetograph.tests.host.graphs import node

NAN, INF = float("nan"), float("inf")
REFUSED = "refused"  # the post has to say no
FAILS = "fails"  # it arrives by a link, so a node has to say no while running
FREE = "free"  # the host turns it into a value or ignores it: whatever happens, happens in words for people
NO_NUMBER = ("many", "", "1e", None, {}, {"a": 1}, "0x10", "\x00", "٣x", [1, 2, 3], [], {"__value__": [1, 2]})
SOME_NUMBER = ("12", 9.5, True, " 3 ", {"__value__": "3"})
NO_CHOICE = (
    None,  # first: what need not be given may be None
    "no such",
    "",
    5,
    -1,
    NAN,
    {},
    {"a": 1},
    True,
    "\x00\n",
    {"__value__": ["x"]},
    [],
)
ODD_TEXT = (None, 5, {}, True, NAN, "\x00", "x" * 100_000, "\ud800", {"__value__": [1]})
BAD_NAMES = (
    "", "../up", "a/../../b", "/absolute", "C:\\x", "line\nbreak", "-option", ".hidden", "CON", "nul.mp4", "a//b",
    "trailing.", "trailing ", "a:b", "tab\there", "x" * 121, "\ud800", "null\0byte", "a/", "com1", "a/.b", "~\x7f",
    "a?b", 'a"b', "a<b", "a|b", "a*b", "  ", "..", ".", "-", "\u2028",
)  # fmt: skip
ODD_NAMES = (
    "a b",
    "été",
    "日本",
    "%year%",
    "%%",
    "100%",
    "a%sb",
    "{}",
    "$HOME",
    "`x`",
    "a'b",
    "%NodeX.width%",
    "a\\b",
    "🎬",
)
BAD_FRAMES = ("", "a", "1.5", "-", "0;x", "1e3", "9" * 30, "٣", "0x1", "\x00", "--1", "0, one", "None", "½")
BAD_SEEDS = ("x", "1", "0: 4", "1: x", "1:-2", "9999999: 1", "1: 2; 3", "1: " + "9" * 30, "\x00", ":")
ODD_FRAMES = ("0 0", "99", "-99", "0,,0", "+0", "0, 1, 2", "999999999")
NO_SLOTS = (99, -99, 10**30, "0", None, 1.5, NAN, {}, "x")
PRIMITIVES = {"INT": "PrimitiveInt", "FLOAT": "PrimitiveFloat", "STRING": "PrimitiveString"}


@dataclass(frozen=True)
class Change:
    """A spoiled input: what to write (`value`, or nothing), which nodes it needs, and what must follow."""

    what: str
    fate: str
    value: object = None
    absent: bool = False
    more: tuple = ()  # (id, node) to add to the prompt


def changes(field, rng):
    """One change of every kind that fits a field, each with a value drawn at random."""
    made = [*by_type(field, rng), *linked(field, rng)]
    if field.required:
        made.append(Change("missing", REFUSED, absent=True))
    return made


def by_type(field, rng):
    if field.type in ("INT", "FLOAT"):
        return numbers(field, rng)
    if field.type in ("COMBO", DYNAMIC):
        return [Change("unknown option", REFUSED, rng.choice(NO_CHOICE[not field.required :]))]
    if field.type == "STRING":
        return texts(field, rng)
    if field.type == "BOOLEAN":
        return [Change("odd switch", FREE, rng.choice(ODD_TEXT))]
    literal = rng.choice([5, "x", None, {}, True, NAN, "cog", {"samples": 1}, 10**30])
    return [Change("literal in a socket", REFUSED, literal)]


def numbers(field, rng):
    low, high = field.options["min"], field.options["max"]
    step = 1 if field.type == "INT" else rng.choice([0.01, 1.0, 1e9])
    outside = rng.choice(
        [low - step, high + step, -(2**70), 2**70, -1e300 if field.type == "FLOAT" else -(10**300)]
    )
    return [
        Change("out of bounds", REFUSED, outside),
        Change("NaN", REFUSED, rng.choice([NAN, "nan"]) if field.type == "FLOAT" else NAN),
        Change("infinity", REFUSED, rng.choice([INF, -INF])),
        Change("no number", REFUSED, rng.choice(NO_NUMBER)),
        Change(
            "some number", FREE, rng.choice(SOME_NUMBER) if field.name not in ("steps", "num_frames") else "1"
        ),
    ]


def texts(field, rng):
    name = field.name.split(".")[-1]
    bad = {"filename_prefix": BAD_NAMES, "frames": BAD_FRAMES, "seeds": BAD_SEEDS}.get(name, ())
    odd = {"filename_prefix": ODD_NAMES, "frames": ODD_FRAMES}.get(name, ODD_TEXT)
    made = [Change("odd text", FREE, rng.choice(odd)), Change("no text", FREE, rng.choice(ODD_TEXT))]
    return made + ([Change("bad text", REFUSED, rng.choice(bad))] * 2 if bad else [])


def linked(field, rng):
    """Links that lead nowhere, or to another type, or bring a wrong value."""
    # a socket may take several types
    wrong = [link for name, link in LINKS.items() if not {*name.split(",")} & {*field.type.split(",")}]
    made = [
        Change("link to no slot", REFUSED, [rng.choice(["frames", "cog"]), rng.choice(NO_SLOTS)]),
        Change("link to no node", REFUSED, [rng.choice(["nobody", "", "99"]), 0]),
        Change("link to itself", REFUSED, ["node", 0]),
        Change("link to another type", REFUSED, list(rng.choice(wrong))),
    ]
    if field.type == DYNAMIC:
        word = node("PrimitiveString", value=rng.choice([*field.choices, "no such"]))
        made.append(Change("link into a DynamicCombo", REFUSED, ["given", 0], more=(("given", word),)))
    if (value := bad_link(field, rng)) is not None:
        given = (("given", node(PRIMITIVES[field.type], value=value)),)
        made.append(Change("wrong value by a link", FAILS, ["given", 0], more=given))
    return made


def bad_link(field, rng):
    """A value that no link may bring, small enough to be harmless where nobody looks at it."""
    if field.name == "filename_prefix":
        return rng.choice([name for name in BAD_NAMES if name.isprintable()])
    if field.name == "frames":
        return rng.choice(BAD_FRAMES[:7])
    if field.type == "FLOAT":
        return rng.choice([NAN, field.options["min"] - 1, field.options["max"] + 1])
    return field.options["min"] - rng.choice([1, 1000]) if field.type == "INT" else None
