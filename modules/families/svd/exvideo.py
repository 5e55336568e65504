"""ExVideo: the 16 temporal transformer branches of SVD, tuned for clips of up to 128 frames.

ExVideo (arXiv 2406.14130), sec. 3.2. A branch gets a table of positions instead of the sinusoid and, behind
it, a 3x3x3 convolution over the clip; the rest of the UNet stays. Names are relative to the transformer that
a branch replaces: `time_stack` and `time_pos_embed` as in SVD, `positional.embeddings` (128, channels) and
`positional.conv`.
"""

from collections.abc import Iterator

from torch import nn

from ...layers.attention import Attention
from ...layers.network import Factory, Network
from ...layers.operations import Operations
from .config import GRID, SVDConfig
from .long_positions import MAX_FRAMES, ExVideoPosition
from .model import SVDUNet, transformer_places
from .transformer import VideoTransformer, new_time_embedding, new_time_stack


def check_clip(frames: int, cells_h: int, cells_w: int) -> None:
    """ValueError unless ExVideo can sample such a clip, in frames and latent cells, naming what it can.

    The deepest attention sees an eighth of the cells, and reflection needs two of them (checked against
    modelscope/DiffSynth-Studio 1.1.9).
    """
    multiple = GRID.multiple_hw
    if not 2 <= frames <= MAX_FRAMES:
        raise ValueError(f"ExVideo makes clips of 2 to {MAX_FRAMES} frames: got {frames}. Change num_frames.")
    for name, cells in (("width", cells_w), ("height", cells_h)):
        pixels = cells * GRID.stride_hw
        if pixels % multiple or pixels < 2 * multiple:
            raise ValueError(
                f"ExVideo needs sizes in multiples of {multiple} pixels, at least {2 * multiple}: got {name} {pixels}. "
                "It was trained on 512x512."
            )


def check_fit(name: str, config: SVDConfig, network: SVDConfig) -> None:
    """ValueError unless the layers of a file fit a network's: both name their channels per level."""
    ours, theirs = ((sizes.channels, sizes.context_dim, sizes.head_dim) for sizes in (config, network))
    if ours != theirs:
        raise ValueError(
            f"{name} is for an SVD of other sizes (channels, context, channels per head): {ours}, the model "
            f"has {theirs}. Choose the ExVideo file of this checkpoint."
        )


class ExVideoBranch(nn.Module):
    """What takes the place of a transformer's `time_stack`, `time_pos_embed` and `positional`."""

    def __init__(self, channels: int, config: SVDConfig, ops: Operations, attention: Attention, **factory):
        super().__init__()
        sizes = (channels, config.context_dim, config.head_dim)
        self.time_stack = new_time_stack(*sizes, ops, attention, **factory)
        self.time_pos_embed = new_time_embedding(channels, ops, **factory)
        self.positional = ExVideoPosition(channels, ops, **factory)

    def put_into(self, transformer: VideoTransformer) -> None:
        """Make a transformer use this branch. A host swaps the three parts by its own means instead."""
        for name, part in self.named_children():
            setattr(transformer, name, part)


class ExVideoBranches(Network):
    """All branches under the places of the transformers they belong to: "input_blocks.1.1.positional.conv..."."""

    max_frames = MAX_FRAMES

    def assemble(self, config: SVDConfig, ops: Operations, attention: Attention, factory: Factory) -> None:
        self._places = tuple(transformer_places(config))
        for path, channels in transformer_places(config).items():
            *folders, name = path.split(".")
            folder: nn.Module = self
            for part in folders:
                if part not in folder._modules:
                    folder.add_module(part, nn.Module())
                folder = folder.get_submodule(part)
            branch = ExVideoBranch(channels, config, ops, attention, **factory)
            folder.add_module(name, branch)

    def items(self) -> Iterator[tuple[str, ExVideoBranch]]:
        """(place of the transformer in the UNet, its branch)."""
        for path in self._places:
            yield path, self.get_submodule(path)  # type: ignore[misc]

    def put_into(self, unet: SVDUNet) -> None:
        """Make a UNet use these branches."""
        for path, branch in self.items():
            branch.put_into(unet.get_submodule(path))  # type: ignore[arg-type]

    def start_from(self, unet: SVDUNet) -> None:
        """Where training starts: the branches of a plain SVD with positions that change nothing."""
        for path, branch in self.items():
            branch.positional.reset()
            own = unet.get_submodule(path)
            branch.time_stack.load_state_dict(own.get_submodule("time_stack").state_dict())
            branch.time_pos_embed.load_state_dict(own.get_submodule("time_pos_embed").state_dict())
