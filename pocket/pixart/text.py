"""What the pocket SD's text encoder says of captions, each one read alone, without padding."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..parts import TEXT_SETTINGS
from ..sd.parts import MODEL, TEXT, open_text, part_of_file
from ..tokens import Vocabulary

TEXT_WIDTH: int = TEXT_SETTINGS["d_model"]


class Captions:
    """Features of captions, each worked out once. Rows behind the last token are zero: no token's features are."""

    def __init__(self) -> None:
        self.words = Vocabulary()
        own = part_of_file(MODEL, TEXT)
        self.text: nn.Module = open_text(self.words, own).requires_grad_(False).eval()
        self.known: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(b, l, d), l of the longest caption."""
        return nn.utils.rnn.pad_sequence([self.of(caption) for caption in captions], batch_first=True)

    @torch.no_grad()
    def of(self, caption: str) -> Tensor:
        """(l, d) of one caption and its end token."""
        if caption not in self.known:
            rows = self.words.tokenizer(caption).input_ids
            ids = torch.tensor([[self.words.place[row] for row in rows]])
            self.known[caption] = self.text(ids).last_hidden_state[0]
        return self.known[caption]
