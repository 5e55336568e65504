"""How a prompt is prepared for PixArt-alpha and EasyAnimate v1: in lower case, or as the captions of their training.

Those captions went through the cleaning of DeepFloyd-IF (deep-floyd/IF, `t5.py`), as diffusers' PixArtAlphaPipeline
and EasyAnimate v1 do it to a prompt. It takes what web pages leave in captions: addresses, markup, file names, offers.
"""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from importlib import import_module
from importlib.util import find_spec

LOWER_CASE, DEEPFLOYD = "lower case", "DeepFloyd cleaning"
# what pip calls it, and what Python imports
PACKAGES = {"beautifulsoup4": "bs4", "ftfy": "ftfy"}

# up to white space or a bracket of ComfyUI's prompt weights; a bracket behind a backslash belongs to the name
EMBEDDING = re.compile(r"(?<![^\s()])(embedding:(?:\\[()]|[^\s()])+)")
ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
JOINTS = re.compile("[-_]")
JOINTS_OF_PROSE = 3

DOMAIN = r"[a-z0-9.-]+\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
FILE_KINDS = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
DASHES = (
    r"-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    r"\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)


@dataclass(frozen=True)
class Step:
    """One thing that the cleaning takes out of a caption or makes uniform."""

    subject: str
    act: Callable[[str], str]


def _swap(subject: str, pattern: str, by: str = "") -> Step:
    return Step(subject, partial(re.compile(pattern).sub, by))


def _read_escapes(text: str) -> str:
    """Text out of a web address: `+` is a space, `%C3%A9` an é in UTF-8. What is no UTF-8 becomes U+FFFD."""

    def read(run: re.Match[str]) -> str:
        return bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "replace")

    return ESCAPES.sub(read, text.replace("+", " "))


def _read_markup(text: str) -> str:
    """What a reader of the HTML page sees. Raises ValueError for a section `<![name[` that HTML does not have."""
    try:
        return import_module("bs4").BeautifulSoup(text, features="html.parser").text
    except import_module("bs4.builder").ParserRejectedMarkup as error:
        raise ValueError(
            f"The prompt holds '<![', which begins a section of HTML, but no section that HTML has: {text!r}. "
            f"Take it out, or choose '{LOWER_CASE}' for the prompt."
        ) from error


def _part_joined_words(text: str) -> str:
    """`this_is_my_cat` is a title of four words; up to three joints in a caption may be words with hyphens."""
    return JOINTS.sub(" ", text) if len(JOINTS.findall(text)) > JOINTS_OF_PROSE else text


def _repair_encoding(text: str) -> str:
    return import_module("ftfy").fix_text(text)


def _read_entities(text: str) -> str:
    """`&amp;eacute;` is an é that two programs escaped, one after the other."""
    return html.unescape(html.unescape(text))


# The order counts: a later step sees what an earlier one left. White space at the ends is left until the last step,
# so that a quote or a comma with a space outside stays in the first round and goes in the second.
STEPS = (
    Step("escapes of an address", _read_escapes),
    Step("white space around the caption", str.strip),
    Step("capitals", str.lower),
    # else it would go as markup
    _swap("a person whose name was taken out", "<person>", "person"),
    _swap("addresses with http", rf"\b(?:https?:(?:/{{1,3}}|[a-z0-9%])|{DOMAIN})"),
    # a domain may stand there only now, out of the rests of two
    _swap("addresses with www", rf"\b(?:www:(?:/{{1,3}}|[a-z0-9%])|{DOMAIN})"),
    Step("markup", _read_markup),
    _swap("nicknames", r"@\w+"),
    # from the strokes (31C0) to the last of the unified ideographs
    _swap("Chinese, Japanese and Korean signs", r"[\u31c0-\u9fff]+"),
    _swap("dashes of all kinds", f"[{DASHES}]+", "-"),
    _swap("quotation marks of all kinds", "[`´«»“”¨]", '"'),
    _swap("apostrophes of all kinds", "[‘’]", "'"),
    _swap("a quotation mark that was escaped twice", "&quot;?"),
    _swap("an ampersand that was escaped twice", "&amp"),
    _swap("IP addresses", r"\d{1,3}(?:\.\d{1,3}){3}", " "),
    _swap("the number of an article", r"\d:\d\d\s+$"),
    _swap("line ends that were written out", r"\\n", " "),
    # four digits may be a year
    _swap("numbers behind #", r"#(?:\d{1,3}|\d{5,})\b"),
    _swap("long numbers", r"\b\d{6,}\b"),
    _swap("file names", rf"\S+\.(?:{FILE_KINDS})"),
    _swap("quotation marks in a row", "[\"']{2,}", '"'),
    _swap("full stops in a row", r"\.{2,}", " "),
    _swap("signs that are no punctuation", r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    _swap("a full stop by itself", r"\s+\.\s+", " "),
    Step("words that - or _ join", _part_joined_words),
    Step("text in a wrong encoding", _repair_encoding),
    Step("entities of HTML", _read_entities),
    _swap("codes such as jc6640", r"\b[a-zA-Z]{1,3}\d{3,15}\b"),
    _swap("codes such as jc6640vc", r"\b[a-zA-Z]+\d+[a-zA-Z]+\b"),
    _swap("codes such as 6640vc231", r"\b\d+[a-zA-Z]+\d+\b"),
    _swap("offers of shipping", r"(?:worldwide\s+)?(?:free\s+)?shipping"),
    _swap("offers of downloads", r"(?:free\s)?download(?:\sfree)?"),
    _swap("requests to click", r"\bclick\s(?:for|on)\s\w+"),
    _swap("kinds of files", rf"\b(?:{FILE_KINDS})(?:\simages?)?"),
    _swap("numbers of pages", r"\bpage\s+\d+\b"),
    _swap("codes such as j2d1a2a", r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    # a Latin x, a Cyrillic one, the sign
    _swap("sizes such as 1920x1080", r"\b\d+\.?\d*[x\u0445×]\d+\.?\d*\b"),
    _swap("the space before a colon", r"\b\s+:\s+", ": "),
    _swap("no space behind a comma, full stop or slash", r"(\D[,./])\b", r"\1 "),
    _swap("white space in a row, and line ends", r"\s+", " "),
    _swap("quotation marks around the caption", "^[\"'](.+)[\"']$", r"\1"),
    _swap("a sign before the caption", "^[-'_,:;]"),
    _swap("a sign behind the caption", "[-'_,:+]$"),
    _swap("a caption of one word behind a full stop", r"^\.\S+$"),
    Step("white space around the rest", str.strip),
)


def lower(text: str) -> str:
    """The prompt in lower case, but names behind `embedding:` as they are: they are names of files of ComfyUI."""
    pieces = EMBEDDING.split(text.strip())
    return "".join(piece if place % 2 else piece.lower() for place, piece in enumerate(pieces))


def clean(text: str) -> str:
    """The prompt after DeepFloyd's cleaning, twice, for the first round can leave work to the second.

    It knows nothing of ComfyUI's own signs: brackets of prompt weights go, names behind `embedding:` lose their
    capitals. Raises ValueError where a package is missing, and for markup that nobody can read.
    """
    check_packages()
    return _clean_once(_clean_once(text))


def _clean_once(text: str) -> str:
    return reduce(lambda rest, step: step.act(rest), STEPS, text)


def missing_packages() -> tuple[str, ...]:
    """Packages that the cleaning needs and this Python lacks, as pip calls them."""
    return tuple(package for package, module in PACKAGES.items() if find_spec(module) is None)


def check_packages() -> None:
    """Raise ValueError if the cleaning cannot be done here, with the two ways on."""
    if missing := missing_packages():
        raise ValueError(
            f"'{DEEPFLOYD}' of a prompt needs packages that are not installed: {', '.join(missing)}. "
            f"Run 'pip install {' '.join(PACKAGES)}' in ComfyUI's Python and start ComfyUI again, "
            f"or choose '{LOWER_CASE}' for the prompt."
        )


PREPARATIONS: Mapping[str, Callable[[str], str]] = {LOWER_CASE: lower, DEEPFLOYD: clean}
