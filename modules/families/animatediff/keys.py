"""The names of motion-module files, and of the LoRA files that change them.

The original names, those of diffusers' MotionAdapter; LoRAs by AnimateDiff, by diffusers and by MotionDirector
(ExponentialML/AnimateDiff-MotionDirector, kijai/ComfyUI-ADMotionDirector).
"""

from ...weights.keymap import KeyMap, Rows, same, under

PLACES = ("down_blocks.{i}.", "mid_block.", "up_blocks.{i}.")
ATTENTION = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.{p}")
BLOCK = "transformer_blocks.0."
OURS = "motion_modules.{j}.temporal_transformer."

INSIDE: Rows = (
    *same("norm.{p}", "proj_in.{p}", "proj_out.{p}"),
    *under(
        BLOCK,
        BLOCK,
        (
            *(row for n in "01" for row in same(*(f"attention_blocks.{n}.{name}" for name in ATTENTION))),
            *same("attention_blocks.{k}.pos_encoder.pe", "norms.{k}.{p}"),
            *same("ff.net.0.proj.{p}", "ff.net.2.{p}", "ff_norm.{p}"),
        ),
    ),
)
_DIFFUSERS: Rows = (
    *same("norm.{p}", "proj_in.{p}", "proj_out.{p}"),
    *under(
        BLOCK,
        BLOCK,
        (
            *(
                (f"attn{n + 1}.{name}", f"attention_blocks.{n}.{name}")
                for n in range(2)
                for name in ATTENTION
            ),
            # one table for both attentions
            ("pos_embed.pe", "attention_blocks.0.pos_encoder.pe"),
            *((f"norm{n + 1}.{{p}}", f"norms.{n}.{{p}}") for n in range(2)),
            *same("ff.net.0.proj.{p}", "ff.net.2.{p}"),
            ("norm3.{p}", "ff_norm.{p}"),
        ),
    ),
)

ORIGINAL = KeyMap(*(row for place in PLACES for row in under(place + OURS, place + OURS, INSIDE)))
DIFFUSERS = KeyMap(
    *(row for place in PLACES for row in under(f"{place}motion_modules.{{j}}.", place + OURS, _DIFFUSERS))
)

# Of a module `head.last` attention processors of old kept the LoRA as `head.processor.last_lora`: AnimateDiff and
# diffusers for attention, MotionDirector for every linear layer, cut at its last dot.
_PROJECTIONS: Rows = tuple(
    (f"processor.{name}.weight", f"{name}.weight") for name in ("to_q", "to_k", "to_v")
)
_PROCESSORS: Rows = (*_PROJECTIONS, ("processor.to_out.weight", "to_out.0.weight"))
_LORA_INSIDE: Rows = under("attention_blocks.{k}.", "attention_blocks.{k}.", _PROCESSORS)
_LORA_DIRECTOR: Rows = (
    *under(
        "attention_blocks.{k}.",
        "attention_blocks.{k}.",
        (*_PROJECTIONS, ("to_out.processor.0.weight", "to_out.0.weight")),
    ),
    ("ff.net.processor.2.weight", "ff.net.2.weight"),
    ("ff.net.0.processor.proj.weight", "ff.net.0.proj.weight"),
)
_LORA_DIFFUSERS: Rows = tuple(
    row for n in range(2) for row in under(f"attn{n + 1}.", f"attention_blocks.{n}.", _PROCESSORS)
)
LORA_ORIGINAL = KeyMap(
    *(row for place in PLACES for row in under(place + OURS + BLOCK, place + OURS + BLOCK, _LORA_INSIDE))
)
# a table of its own: back from our names each table knows one spelling of a module
LORA_DIRECTOR = KeyMap(
    *(row for place in PLACES for row in under(place + OURS + BLOCK, place + OURS + BLOCK, _LORA_DIRECTOR))
)
LORA_DIFFUSERS = KeyMap(
    *(
        row
        for place in PLACES
        for row in under(f"{place}motion_modules.{{j}}.{BLOCK}", place + OURS + BLOCK, _LORA_DIFFUSERS)
    )
)
