"""LoRA files for PixArt: the portrait's with its part for T5, and whose a file is that has names of CogVideoX, too."""

import pytest

from kinetograph.modules.catalogue import LORA, Catalogue
from kinetograph.modules.families import FAMILIES
from kinetograph.modules.lora_origin import family_of, find_origin
from kinetograph.tests.checkpoints import BY_NAME, KEYS, read_key_list, write_sparse
from kinetograph.tests.modules.test_catalogue import age

NETWORK = BY_NAME["pixart-512"].shapes
PORTRAIT_LORA = read_key_list(KEYS / "loras" / "easyanimate-portrait.txt").shapes


def without(shapes, key):
    return {other: shape for other, shape in shapes.items() if other != key}


def modules_of(shapes):
    return {key.rsplit(".lora_", 1)[0] for key in shapes if ".lora_" in key}


def of_modules(keep):
    """The keys of the portrait LoRA's modules that `keep` takes."""
    return {key: shape for key, shape in PORTRAIT_LORA.items() if keep(key.split(".")[0])}


DIT = of_modules(lambda module: module.startswith("lora_unet__"))
TEXT = of_modules(lambda module: module.startswith("lora_te_"))


def test_the_portrait_lora_is_pixarts_with_a_part_for_t5():
    assert (len(modules_of(DIT)), len(modules_of(TEXT)), len(PORTRAIT_LORA)) == (286, 168, 3 * 454)
    origin = find_origin(PORTRAIT_LORA)
    assert (origin.family, origin.label, origin.variants) == ("pixart", "PixArt", ("512", "1024-MS"))
    assert (origin.lora.matched, origin.num_text_modules, origin.unmatched) == (286, 168, ())
    assert set(origin.lora.renames) == set(DIT) and set(origin.text_keys) == set(TEXT)
    assert set(origin.lora.ranks.values()) == {128} and origin.folder == "Personalized_Model"
    assert origin.what == "PixArt 512 or 1024-MS"
    # the patch convolution is the only layer of the network that it leaves
    linears = {key.removesuffix(".weight") for key, shape in NETWORK.items() if len(shape) == 2}
    linears = {name for name in linears if not name.endswith(("scale_shift_table", "y_embedding"))}
    assert set(origin.lora.ranks) == linears


@pytest.mark.parametrize("place", [0, 500, 700, 1300])
def test_a_lora_that_lacks_a_key_or_has_another_is_not_matched_whole(place):
    key = sorted(PORTRAIT_LORA)[place]
    while not key.endswith(("down.weight", "up.weight")):
        place += 1
        key = sorted(PORTRAIT_LORA)[place]
    changes = (
        without(PORTRAIT_LORA, key),
        {**without(PORTRAIT_LORA, key), f"lora_unet__strange.{key}": PORTRAIT_LORA[key]},
        {**PORTRAIT_LORA, key: (*PORTRAIT_LORA[key][:-1], 77)},
    )
    for number, shapes in enumerate(changes):
        origin = find_origin(shapes)
        if key in DIT:
            assert origin.unmatched and origin.lora.matched == 285, (key, number)
        else:
            # a part for a text encoder is weighed against the encoder that is there
            assert origin.lora.matched == 286 and len(origin.text_keys) == len(TEXT) - (number < 2)


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (PORTRAIT_LORA, "pixart"),
        (DIT, "pixart"),
        # names that CogVideoX has, too: the widths tell
        (of_modules(lambda module: "_attn1_to_" in module), "pixart"),
        ({key: tuple({1152: 1920}.get(n, n) for n in shape) for key, shape in DIT.items()}, "pixart"),
        (
            {
                key: tuple({1152: 1920}.get(n, n) for n in shape)
                for key, shape in DIT.items()
                if "_attn1_" in key
            },
            "cogvideox",
        ),
        (TEXT, "other"),
    ],
)
def test_lists_know_whose_a_lora_is(tmp_path, shapes, family):
    assert family_of(shapes) == family
    shelf = Catalogue(FAMILIES)
    path = age(write_sparse(tmp_path / "any.safetensors", shapes))
    assert not shelf.is_others(path, "cogvideox", LORA)
    shelf.wait(30)
    assert shelf.is_others(path, "cogvideox", LORA) == (family != "cogvideox")
