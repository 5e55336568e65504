"""Layers that a program quantised: known by what lies beside their weights, and refused by name with the way out."""

from collections.abc import Iterable, Mapping

# ComfyUI's names (comfy/ops.py, comfy/utils.py: convert_old_quants), older and newer files
COMPANIONS = frozenset(
    {
        *("comfy_quant", "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale"),
        *("scale_weight", "scale_input"),
    }
)
FORMATS = {
    "F8_E4M3": "fp8 with scales",
    "F8_E5M2": "fp8 with scales",
    "I8": "int8",
    "U8": "4 bits, such as nvfp4",
}
INTEGERS = ("I8", "U8")
REMEDY = "Use the file that is published in fp32, bf16, fp16 or fp8 without scales; weight_dtype fp8_e4m3fn keeps it as small."


def problem(unknown: Iterable[str], extras: Iterable[str], dtypes: Mapping[str, str]) -> str | None:
    """Why a part cannot be read though its keys may all be known; None when nothing of it is quantised.

    `unknown` are keys that the part has no use for; `extras` those that it hands on to a host, which takes fp8 with
    scales but no integers. `dtypes` are those of the file, by its own keys.
    """
    unread, layers = _layers(unknown, dtypes), _layers(extras, dtypes)
    formats = {dtypes[f"{layer}.weight"] for layer in unread or layers}
    if not unread and not formats & set(INTEGERS):
        return None
    names = sorted({FORMATS.get(word, word) for word in formats})
    return f"{len(unread or layers)} of its layers are quantised ({', '.join(names)}), which is not read here. {REMEDY}"


def _layers(keys: Iterable[str], dtypes: Mapping[str, str]) -> set[str]:
    """The layers whose weights companions lie beside."""
    parts = (key.rpartition(".") for key in keys)
    return {layer for layer, _, name in parts if name in COMPANIONS and f"{layer}.weight" in dtypes}
