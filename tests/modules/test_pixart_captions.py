"""PixArt's preparation of prompts, against the cleaning of diffusers' own pipeline."""

import json
import os
import random
import re
from functools import reduce
from pathlib import Path

import pytest

from kinetograph.benchmarks import peers
from kinetograph.modules.families.pixart import captions

GALLERY = json.loads((Path(__file__).parents[1] / "easyanimate_gallery.json").read_text(encoding="utf-8"))
PROMPTS = [row["prompt"] for row in GALLERY]

# every step of the cleaning by its subject, and captions that come out otherwise without it
CASES = {
    "escapes of an address": ("a%20cat+and%20a%20dog", "caf%C3%A9 au lait", "100% wool, %e4%b8 half a sign"),
    "white space around the caption": ("  news at 0:12 \n", "\t'a cat' "),
    "capitals": ("A Cat In The HAT", "ÄRGER ΟΔΟΣ", "JPG of a cat"),
    "a person whose name was taken out": ("portrait of <person> in the rain", "<PERSON>"),
    "addresses with http": (
        "see https://example.org/a/cat?x=1 now",
        "http:cat",
        "a dog at cats.com/food/ eats",
        "http:////a http:-a http:0 http:%2541 http:",
    ),
    "addresses with www": (
        "www:cat is here",
        "www://a cat",
        "see a.comb.com/ b.com",
        "a-b.1.com/x_y/ c.co d.ru e.net f.org g.edu h.gov i.it j.de k",
        "me@a.com a.com@me",
    ),
    "markup": (
        "a <b>bold</b> cat<br/>runs",
        "<a href='x'>link</a> &lt;i&gt;",
        "a <!-- hidden --> cat",
        "2 < 3 > 1",
    ),
    "nicknames": ("photo by @cat_lover99 in rome", "mail@example"),
    "Chinese, Japanese and Korean signs": (
        "a cat 猫 in the 雪 snow",
        "\u31c0 \u31ef stroke",
        "a\u31f0b\u3200c\u3300d",
        "\u3400x\u4dffy\u9fffz",
        "\u31bfa\ua000",
    ),
    "dashes of all kinds": ("night – day — dusk", "a\u2010b\ufe58c\u30a0d", "rain -- sun", "\u30fc \u301c x"),
    "quotation marks of all kinds": ("a « cat » in a “hat”, ¨so¨ `it` is´", "“whole caption”"),
    # ftfy makes them plain, too: only what happens before it sees a difference
    "apostrophes of all kinds": ("the cat’s ‘toy’ is red", "‘tis", "a cat ‘’"),
    "a quotation mark that was escaped twice": (
        "a &amp;quot;good&amp;quot; cat",
        "a &amp;quot good cat",
        "&quot;x&quot;",
    ),
    "an ampersand that was escaped twice": (
        "cats &amp;amp dogs",
        "cats &amp;amp; dogs",
        "a &amp b",
        "cats &amp; dogs",
    ),
    "IP addresses": ("server at 192.168.0.1 is down", "1.2.3.4.5 and 1234.1.1.1", "12.345.67.890"),
    "the number of an article": ("a cat sleeps 0:12 @nick", "at 7:30 @you"),
    "line ends that were written out": ("a cat\\nin the hat", "A\\Nnice cat"),
    "numbers behind #": ("cat #12 of #123 and #1234 or #12345", "#123456 cat"),
    "long numbers": ("picture 12345678 of a cat", "in 123456, not 12345"),
    "file names": (
        "a cat in my_cat.jpg here",
        "look: cat.mp4! and (dog.webp)",
        "a.png b.jpg c.jpeg d.bmp e.webp f.eps g.pdf h.apk i.mp4 j.gif",
        "x.jpeg.png",
    ),
    "quotation marks in a row": ('a """sold""" cat', "a \"'cat'\" b"),
    "full stops in a row": ("wait... a cat", "a..b"),
    "signs that are no punctuation": (
        "***sale*** (of) [a] {cat} | dog / bird",
        "#best ® © ½ § ~ • \\ end",
        "#winter",
        "a®b•c©d™e&f@ g·hºi½j¾k¿l¡m§n~o(p)q[r]s{t}u|v\\w/x*y",
    ),
    "a full stop by itself": ("a cat . a dog", "a .\n b . c"),
    "words that - or _ join": (
        "this-is-my-cute-cat",
        "this_is_my-cute_cat",
        "a well-known black-and-white cat",
    ),
    "text in a wrong encoding": ("a cafÃ© in paris", "schÃ¶n", "ﬁne ﬂower", "a\x1b[31mred"),
    # & itself went as a sign that is no punctuation, but ftfy makes one out of a wide one; < keeps ftfy from entities
    "entities of HTML": ("caf&amp;eacute; cat", "&amp;lt;b&amp;gt;", "1 &lt; 2 ＆amp;amp;eacute; b"),
    "codes such as jc6640": (
        "a bag jc6640 in red",
        "ab123, abcd123, a12",
        "ab12345, a123456789012345, b1234567890123456",
    ),
    "codes such as jc6640vc": ("bag jc6640vc red", "route66a"),
    "codes such as 6640vc231": ("bag 6640vc231 red", "1a1"),
    "offers of shipping": ("red bag free shipping", "worldwide  free shipping", "worldwide shipping of cats"),
    "offers of downloads": ("free download of a cat", "a cat download free now", "downloads"),
    "requests to click": ("click for more cats", "please click on it now", "click cats"),
    "kinds of files": (
        "a cat png images",
        "jpg image of a cat",
        "an mp4 clip",
        "png a jpg b jpeg c bmp d webp e eps f pdf g apk h mp4 i gif",
    ),
    "numbers of pages": ("old book page 12 with a cat", "page  3"),
    "codes such as j2d1a2a": ("a bag j2d1a2a red", "1a2b3c4d end"),
    "sizes such as 1920x1080": (
        "a 1920x1080 wallpaper",
        "3.5×2.5 m",
        "10х20 cyrillic",
        "10.25x20.75 or 10:2x4",
    ),
    "the space before a colon": ("title : a cat", "a   :   b"),
    "no space behind a comma, full stop or slash": ("cat,dog.bird", "a,1 b.2", "1.5 and 1,000"),
    "white space in a row, and line ends": ("a   cat\n\nsleeps", "a\tcat"),
    "quotation marks around the caption": ("'a cat'", '"a cat on a mat"', "'\""),
    "a sign before the caption": ("- a cat", ": cat", "_ _ a cat", "; cat", ", cat"),
    "a sign behind the caption": ("a cat,", "a cat -", "a cat:", "a cat_", "cat '", "a cat %2b"),
    "a caption of one word behind a full stop": (".hidden", ".gitignore"),
    "white space around the rest": ("a cat ,,", "a cat - -", ", , a cat"),
}
TEXTS = [text for texts in CASES.values() for text in texts]
# a file's name as the whole caption: BeautifulSoup warns that a file was perhaps meant
pytestmark = pytest.mark.filterwarnings("ignore:The input passed in on this line looks more like")


@pytest.fixture(scope="module")
def reference():
    """`text -> text` of PixArtAlphaPipeline, twice cleaned. Without its packages diffusers would only lower the case."""
    if missing := captions.missing_packages():
        words = f"not installed, and diffusers' cleaning needs it: {', '.join(missing)}"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    pipeline = peers.load_diffusers().PixArtAlphaPipeline
    alone = pipeline.__new__(pipeline)
    return lambda text: pipeline._text_preprocessing(alone, text, clean_caption=True)[0]


def test_the_gallery_is_cleaned_as_diffusers_does(reference):
    assert len(PROMPTS) == 19
    assert [captions.clean(prompt) for prompt in PROMPTS] == [reference(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("text", TEXTS)
def test_every_kind_of_rubbish_is_cleaned_as_diffusers_does(reference, text):
    assert captions.clean(text) == reference(text)


def without(subject):
    """The cleaning with one step left out."""
    steps = [step for step in captions.STEPS if step.subject != subject] * 2
    return lambda text: reduce(lambda rest, step: step.act(rest), steps, text)


@pytest.mark.parametrize("subject", [step.subject for step in captions.STEPS])
def test_every_step_is_needed(reference, subject):
    """So that the comparison sees each of them."""
    poorer = without(subject)
    assert [text for text in CASES[subject] if poorer(text) != reference(text)]


def random_text(draw):
    """Words of the cases in another order, whole cases and single signs between, with and without space."""
    words = [word for text in TEXTS for word in re.split(r"(\s+)", text) if word]
    signs = " \n\t.,:;-_'\"`#@&%+<>/\\()[]{}|*~0129axXé猫–’×х\u00a0\u200b\ufe0f\U0001f600"
    pool = draw.choices([words, TEXTS, signs], [5, 1, 4], k=draw.randint(1, 12))
    return draw.choice(["", " "]).join(map(draw.choice, pool))


def test_random_texts_are_cleaned_as_diffusers_does(reference):
    draw = random.Random(11)
    texts = [random_text(draw) for _ in range(2000)]
    assert [(text, captions.clean(text)) for text in texts] == [(text, reference(text)) for text in texts]


def test_markup_that_nobody_can_read_is_refused(reference):
    with pytest.raises(ValueError, match=r"'a cat <!\[odd\[ in a hat'.*Take it out.*'lower case'"):
        captions.clean("A cat <![odd[ in a hat")


@pytest.mark.parametrize(
    "text", [*PROMPTS, "  A Cat\n", "ΟΔΟΣ (ΟΔΟΣ) ÄÖ", "Embedding:Name", "anembedding:Name", ""]
)
def test_lower_case_is_strip_and_lower(text):
    assert captions.lower(text) == text.lower().strip()


@pytest.mark.parametrize(
    ("text", "lowered"),
    [
        ("Embedding:Name", "embedding:name"),
        (" A Cat, embedding:My_Style.PT And A Dog ", "a cat, embedding:My_Style.PT and a dog"),
        ("embedding:Sub/Name", "embedding:Sub/Name"),
        ("A (embedding:Name:1.2) Cat", "a (embedding:Name:1.2) cat"),
        (r"embedding:Name\(V2\) Cat", r"embedding:Name\(V2\) cat"),
        ("(embedding:Name)And (Dogs)embedding:Name", "(embedding:Name)and (dogs)embedding:Name"),
        ("embedding:One embedding:Two\nThree", "embedding:One embedding:Two\nthree"),
        ("Xembedding:Name", "xembedding:name"),
    ],
)
def test_lower_case_leaves_names_of_files(text, lowered):
    assert captions.lower(text) == lowered


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (set(), ()),
        ({"bs4"}, ("beautifulsoup4",)),
        ({"ftfy"}, ("ftfy",)),
        ({"bs4", "ftfy"}, ("beautifulsoup4", "ftfy")),
    ],
)
def test_missing_packages_are_named(monkeypatch, absent, named):
    monkeypatch.setattr(captions, "find_spec", lambda name: None if name in absent else object())
    assert captions.missing_packages() == named
    if not named:
        return captions.check_packages()
    words = rf"not installed: {', '.join(named)}\. Run 'pip install beautifulsoup4 ftfy' in ComfyUI's Python.*'lower case'"
    with pytest.raises(ValueError, match=words):
        captions.check_packages()
    with pytest.raises(ValueError, match=words):
        captions.PREPARATIONS["DeepFloyd cleaning"]("a cat")
    assert captions.PREPARATIONS["lower case"]("A Cat") == "a cat"
