"""What a training writes: files in the layouts in which such weights are published, with its notes in their metadata."""

from .lora import host_lora
from .notes import Notes
from .storing import check_room
from .writing import Outcome, contents, num_bytes, write

__all__ = ["Notes", "Outcome", "check_room", "contents", "host_lora", "num_bytes", "write"]
