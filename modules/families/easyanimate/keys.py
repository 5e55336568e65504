"""The names of EasyAnimate v1's motion modules, which are ours. Their position tables are made anew."""

from ...weights.keymap import KeyMap, dropped, under
from ..pixart.keys import BLOCK, MOTION
from ..pixart.keys import DIFFUSERS as PIXART

ORIGINAL = KeyMap(
    *((theirs, None if theirs.endswith(".pe") else ours) for theirs, ours in under(BLOCK, BLOCK, MOTION)),
    # its training saves PixArt beside them; that is another part
    *dropped(PIXART.rows),
)
