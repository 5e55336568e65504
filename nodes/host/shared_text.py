"""One prompt for all frames of a batch: keys and values of its tokens are made once, not once a frame.

All frames of a conditioning have the same text, and pixels of one frame know nothing of those of another while they look
at it: so the frames may stand one behind the other in one long row of tokens. The result is that of the host's own
cross-attention but for rounding.
"""

from typing import Any

import torch
from torch import Tensor

# what other nodes would see of a row of tokens
WATCHED = ("attn2_patch", "attn2_output_patch")


def share(options: dict[str, Any], context_nld: Tensor | None) -> None:
    """Have one call of a UNet, whose `transformer_options` these are, share text where its rows are equal.

    Not so where another node looks at cross-attention, replaces it, or gives frames texts of their own.
    """
    patches = options.get("patches") or {}
    watched = any(patches.get(name) for name in WATCHED) or (options.get("patches_replace") or {}).get(
        "attn2"
    )
    count = len(options.get("cond_or_uncond") or (0,))
    if watched or context_nld is None or len(context_nld) % count or len(context_nld) == count:
        return
    context_gfld = context_nld.unflatten(0, (count, -1))
    first_g1ld = context_gfld[:, :1]
    if torch.equal(context_gfld, first_g1ld.expand_as(context_gfld)):
        rows = _Rows(first_g1ld[:, 0])
        options["patches"] = {**patches, WATCHED[0]: [rows.join], WATCHED[1]: [rows.part]}


class _Rows:
    """The frames of each conditioning as one row of tokens, and back."""

    def __init__(self, context_gld: Tensor):
        self.context_gld = context_gld

    def join(self, tokens_nld: Tensor, context: Tensor, value: Tensor, options: Any) -> tuple[Tensor, ...]:
        """A patch before cross-attention."""
        self.tokens = tokens_nld.shape[1]
        rows = tokens_nld.unflatten(0, (len(self.context_gld), -1)).flatten(1, 2)
        return rows, self.context_gld, self.context_gld

    def part(self, rows_gld: Tensor, options: Any) -> Tensor:
        """A patch behind it."""
        return rows_gld.unflatten(1, (-1, self.tokens)).flatten(0, 1)
