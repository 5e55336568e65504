"""The T5 v1.1 text encoder that several families share. The host builds it; here it is only recognised.

Raffel et al., arXiv 1910.10683; v1.1 (gated GELU) as published by Google and kept by Hugging Face's keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..weights.keymap import KeyMap
from ..weights.part import NodeName, Part, Shapes, lengths

FIRST = "encoder.block.0.layer.0.SelfAttention."
TABLE = FIRST + "relative_attention_bias.weight"
ATTENTION = "encoder.block.{i}.layer.0."
FEED_FORWARD = "encoder.block.{i}.layer.1."
NAMES = (
    "shared.weight",
    "encoder.final_layer_norm.weight",
    ATTENTION + "SelfAttention.relative_attention_bias.weight",
    ATTENTION + "layer_norm.weight",
    FEED_FORWARD + "layer_norm.weight",
)
LINEARS = (
    *(ATTENTION + f"SelfAttention.{name}" for name in "qkvo"),
    *(FEED_FORWARD + f"DenseReluDense.{name}" for name in ("wi", "wi_0", "wi_1", "wo")),
)
TOKENS = 32100  # of the tokenizer; the published table has a few rows more
# What fp8 files of the host keep beside a linear, and the tokenizer some of them carry.
SCALES = ("scale_weight", "scale_input", "weight_scale", "weight_scale_2", "input_scale", "comfy_quant")
EXTRAS = KeyMap(
    *((f"{linear}.{scale}", f"{linear}.{scale}") for linear in LINEARS for scale in SCALES),
    ("scaled_fp8", "scaled_fp8"),
    ("spiece_model", "spiece_model"),
)
HUGGING_FACE = KeyMap(
    *((name, name) for name in NAMES),
    *((f"{linear}.weight", f"{linear}.weight") for linear in LINEARS),
    ("encoder.embed_tokens.weight", None),  # the same table as shared.weight, stored twice
    ("logit_scale", None),  # left by programs that save every text encoder alike
)


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5 encoder, in the words of its config.json."""

    d_model: int = 4096
    num_layers: int = 24
    num_heads: int = 64
    d_kv: int = 64
    d_ff: int = 10240
    vocab_size: int = 32128
    gated: bool = True
    relative_attention_num_buckets: int = 32


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> T5Config:
    """Sizes from the shapes alone: the table of relative positions has one column per head.

    Raises ValueError for a table that is no T5's, and for a width that is no whole number of heads.
    """
    buckets, num_heads = lengths(shapes, TABLE, 2)
    vocab_size, d_model = lengths(shapes, "shared.weight", 2)
    if vocab_size < TOKENS:
        raise ValueError(
            f"shared.weight knows {vocab_size} tokens, prompts are written in T5's {TOKENS}. Use the file as it was "
            "published."
        )
    inner, _ = lengths(shapes, FIRST + "q.weight", 2)
    _check_table(buckets, num_heads, inner)
    blocks = {int(key.split(".")[2]) for key in shapes if key.startswith("encoder.block.")}
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in shapes
    return T5Config(
        d_model=d_model,
        num_layers=1 + max(blocks),
        num_heads=num_heads,
        d_kv=inner // num_heads,
        d_ff=lengths(shapes, "encoder.block.0.layer.1.DenseReluDense.wo.weight", 2)[1],
        vocab_size=vocab_size,
        gated=gated,
        relative_attention_num_buckets=buckets,
    )


def _check_table(buckets: int, num_heads: int, inner: int) -> None:
    """ValueError unless the table of positions has the rows that the host's T5 looks up, and a column per head."""
    if buckets != T5Config.relative_attention_num_buckets or inner % num_heads:
        turned = " It lies on its side." if num_heads == T5Config.relative_attention_num_buckets else ""
        raise ValueError(
            f"{TABLE} has the shape {(buckets, num_heads)}: {T5Config.relative_attention_num_buckets} rows fit, with a "
            f"column for each head of {inner} channels.{turned} Use the file as it was published."
        )


def key_shapes(config: T5Config) -> Shapes:
    """Key -> shape of every weight of an encoder of these sizes."""
    d, ff, inner = config.d_model, config.d_ff, config.num_heads * config.d_kv
    shapes = {
        "shared.weight": (config.vocab_size, d),
        TABLE: (config.relative_attention_num_buckets, config.num_heads),
        "encoder.final_layer_norm.weight": (d,),
    }
    for i in range(config.num_layers):
        attention, feed_forward = ATTENTION.format(i=i), FEED_FORWARD.format(i=i)
        shapes |= {f"{attention}SelfAttention.{name}.weight": (inner, d) for name in "qkv"}
        shapes |= {f"{attention}SelfAttention.o.weight": (d, inner)}
        shapes |= {f"{part}layer_norm.weight": (d,) for part in (attention, feed_forward)}
        inputs = ("wi_0", "wi_1") if config.gated else ("wi",)
        shapes |= {f"{feed_forward}DenseReluDense.{name}.weight": (ff, d) for name in inputs}
        shapes |= {f"{feed_forward}DenseReluDense.wo.weight": (d, ff)}
    return shapes


def variant(config: T5Config) -> str:
    """The published name where the sizes are T5 v1.1 XXL's, else the sizes."""
    if config == T5Config():
        return "T5 v1.1 XXL encoder"
    return f"T5 encoder {config.d_model} wide, {config.num_layers} layers"


def t5_encoder(node: NodeName, own_folder: str) -> Part:
    """The text-encoder Part of a family whose loader is `node` and whose files lie in `own_folder`, too."""
    return Part(
        kind="text_encoder",
        signature=("shared.weight", TABLE, FIRST + "q.weight",
                   "encoder.block.0.layer.1.DenseReluDense.wo.weight"),
        dialects={"huggingface": HUGGING_FACE},
        read_config=read_config,
        variant=variant,
        build=None,
        folders=("text_encoders", "checkpoints", own_folder),
        folder="text_encoders",
        components=("text_encoder",),
        node=node,
        host_shapes=key_shapes,
        extras=EXTRAS,
    )  # fmt: skip
