"""What the adaptive norms of CogVideoX read at each timestep, worked out before a run.

Shift, scale and gate depend on the timestep alone, yet the layers that make them are 14 % of the 5B
weights. With a table those layers need not be in memory while a clip is sampled.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

TABULATED = ("norm1.linear.", "norm2.linear.", "norm_out.linear.", "time_embedding.", "ofs_embedding.")


def is_tabulated(key: str) -> bool:
    """Whether a weight is read only to make a table: with one, it may rest elsewhere or be dropped."""
    return any(name in key for name in TABULATED)


@dataclass(frozen=True)
class Modulation:
    """Rows of one batch: (b, layers, 2 norms, 6, d) for the blocks, (b, 2, d) for the output."""

    blocks_bjncd: Tensor
    out_bcd: Tensor

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for layer in range(self.blocks_bjncd.shape[1]):
            yield self.blocks_bjncd[:, layer, 0], self.blocks_bjncd[:, layer, 1]


@dataclass(frozen=True)
class ModulationTable:
    """The modulation of each timestep of a schedule; its first axis goes with `timesteps`."""

    timesteps: tuple[float, ...]
    ofs: float
    rows: Modulation

    @property
    def nbytes(self) -> int:
        return self.rows.blocks_bjncd.nbytes + self.rows.out_bcd.nbytes

    def at(self, timestep_b: Tensor, ofs_b: Tensor | None, like: Tensor) -> Modulation:
        """Rows of a batch, on the device and in the dtype of `like`; ValueError for a timestep it lacks."""
        wanted = timestep_b.tolist()
        missing = sorted(set(wanted) - set(self.timesteps))
        if missing:
            raise ValueError(
                f"The modulation table has no row for timestep {', '.join(f'{t:g}' for t in missing)}: "
                "tabulate every timestep that the schedule visits."
            )
        if ofs_b is not None and any(ofs != self.ofs for ofs in ofs_b.tolist()):
            raise ValueError(f"The modulation table was made for ofs {self.ofs:g}: got {ofs_b.tolist()}.")
        places = [self.timesteps.index(timestep) for timestep in wanted]
        index = torch.tensor(places, device=self.rows.out_bcd.device)
        return Modulation(
            self.rows.blocks_bjncd.index_select(0, index).to(like),
            self.rows.out_bcd.index_select(0, index).to(like),
        )
