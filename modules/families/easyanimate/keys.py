"""The names of EasyAnimate v1's motion modules, which are ours. Their position tables are made anew."""

from ...weights.keymap import KeyMap, under
from ..animatediff.keys import INSIDE

PLACE = "transformer_blocks.{i}.attn_temporal.temporal_transformer."
ORIGINAL = KeyMap(
    *((theirs, None if theirs.endswith(".pe") else ours) for theirs, ours in under(PLACE, PLACE, INSIDE))
)
