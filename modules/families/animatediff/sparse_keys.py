"""The names of SparseCtrl files.

An encoder as diffusers names it, with motion modules in AnimateDiff's names or diffusers'; or, in the copies of
conrevo/AnimateDiff-A1111, as ComfyUI's ControlNet (lllyasviel/ControlNet) names it, with AnimateDiff's. Ours are the last,
the motion modules under `motion.`.
"""

from ...weights.keymap import KeyMap, Rows, originals, same, under
from ..svd.keys import AROUND_BLOCKS, BLOCK, EMBEDDED, RES_BLOCK_PLACES, RESAMPLERS, TRANSFORMER_PLACES
from .keys import DIFFUSERS, ORIGINAL

MOTION = "motion."
DOWN = "down_blocks."
# the stack of convolutions from pixels to latent cells; between any two there is an activation
PIXEL_BLOCKS = 6
HINT: Rows = (
    # for latents: one convolution
    ("controlnet_cond_embedding.{p}", "input_hint_block.0.{p}"),
    ("controlnet_cond_embedding.conv_in.{p}", "input_hint_block.0.{p}"),
    *(
        (f"controlnet_cond_embedding.blocks.{number}.{{p}}", f"input_hint_block.{2 * number + 2}.{{p}}")
        for number in range(PIXEL_BLOCKS)
    ),
    ("controlnet_cond_embedding.conv_out.{p}", f"input_hint_block.{2 * PIXEL_BLOCKS + 2}.{{p}}"),
)
_RES_BLOCK: Rows = (*EMBEDDED, ("conv_shortcut.{p}", "skip_connection.{p}"))
_TRANSFORMER: Rows = (
    *same("norm.{p}", "proj_in.{p}", "proj_out.{p}"),
    *under("transformer_blocks.0.", "transformer_blocks.0.", BLOCK),
)
_WAY_DOWN = ("input_blocks", "middle_block", "time_embed")


def _of_way_down(rows: Rows) -> Rows:
    """The rows of a UNet that a ControlNet has as well."""
    return tuple((theirs, ours) for theirs, ours in rows if ours is not None and ours.startswith(_WAY_DOWN))


ENCODER: Rows = (
    *_of_way_down(AROUND_BLOCKS),
    *(
        row
        for theirs, ours in _of_way_down(RES_BLOCK_PLACES)
        for row in under(theirs, ours or "", _RES_BLOCK)
    ),
    *(
        row
        for theirs, ours in _of_way_down(TRANSFORMER_PLACES)
        for row in under(theirs, ours or "", _TRANSFORMER)
    ),
    *_of_way_down(RESAMPLERS),
    *HINT,
    ("controlnet_down_blocks.{n}.{p}", "zero_convs.{n}.0.{p}"),
    ("controlnet_mid_block.{p}", "middle_block_out.0.{p}"),
)


# places by number alone: whoever named it so made it of any size
COMFY: Rows = (
    *same(
        "time_embed.{n}.{p}", "input_blocks.0.0.{p}", "input_blocks.{n}.0.op.{p}", "input_hint_block.{n}.{p}"
    ),
    *same("zero_convs.{n}.0.{p}", "middle_block_out.0.{p}"),
    *originals((*under("", "input_blocks.{n}.0.", _RES_BLOCK), *under("", "middle_block.{n}.", _RES_BLOCK))),
    *originals(
        (*under("", "input_blocks.{n}.1.", _TRANSFORMER), *under("", "middle_block.1.", _TRANSFORMER))
    ),
)


def _beside(encoder: Rows, motion: KeyMap) -> KeyMap:
    """An encoder with the motion modules of a dialect, which are on the way down alone."""
    down = tuple((theirs, ours) for theirs, ours in motion.rows if theirs.startswith(DOWN))
    return KeyMap(*encoder, *under("", MOTION, down))


SPARSE_ORIGINAL = _beside(ENCODER, ORIGINAL)
SPARSE_DIFFUSERS = _beside(ENCODER, DIFFUSERS)
SPARSE_COMFY = _beside(COMFY, ORIGINAL)
