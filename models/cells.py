"""The cells of a structure, as whoever draws them asks for them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

NOTHING = -1  # depth of what is known to be free, or has no numbers


@dataclass(frozen=True)
class Cells:
    """In which cells points lie. depth: [*N] int64, 0 for the largest cells, or `NOTHING`. side: [*N] scene units.

    Cells of a side are those of the lattice of such cells over the cube [-1, 1]^3.
    """

    depth: Tensor
    side: Tensor
