"""Multi-resolution hash encoding on permutohedral lattices: simplices of four vertices, not cells of eight corners.

Source: Rosu and Behnke, "PermutoSDF: Fast Multi-View Reconstruction with Implicit Surfaces using Permutohedral
Lattices" (2023), section 4; of the lattice see permutohedral_blocks.

Within a simplex the features are linear in the point: its gradient is constant there, and has no derivative in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.kernels.encodings.hash_encode import LevelLookup, look_up, look_up_with_vjp
from models.kernels.encodings.level_blocks import FRAME, LEAD
from models.kernels.encodings.permutohedral_blocks import ENCODE, PULL, SCATTER
from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.native import Floats, Ints, Pairs, Rows, native_kernel

VERTICES = 2  # of the lattice in a cubic cell


@dataclass(frozen=True)
class PermutohedralLevels:
    """Layout of the table: per level the lattice and the first row; a row per vertex where they fit, hashed above.

    cells: [L] float32, cubic cells of the lattice over the cube's side. sides: [L] int32, whole cells to a side for
    which there are rows, 0 for a hashed level. first_row: [L+1] int32, rows of level l are first_row[l] ..
    first_row[l+1]-1; a hashed level has a power of two of them. shift: [L, 3] float32 in [1, 2), in cells: where the
    cube's low corner lies.
    """

    cells: Tensor
    sides: Tensor
    first_row: Tensor
    shift: Tensor

    @staticmethod
    def geometric(levels: int, *, base: int, top: int, log2_rows: int, shift: Tensor) -> PermutohedralLevels:
        """As `HashLevels.geometric`, with as many vertices in the cube as cells of that resolution."""
        growth = (top / base) ** (1 / max(levels - 1, 1))
        cells = [int(base * growth**level + 0.5) / VERTICES ** (1 / 3) for level in range(levels)]
        sides = [math.ceil(n) + 3 for n in cells]  # a shift of up to two, and a vertex beyond the end
        most = 2**log2_rows
        rows = [min(VERTICES * side**3, most) for side in sides]
        sides = [side if VERTICES * side**3 <= most else 0 for side in sides]
        first = torch.tensor([0, *rows]).cumsum(0)
        return PermutohedralLevels(
            torch.tensor(cells), torch.tensor(sides, dtype=torch.int32), first.to(torch.int32), shift
        )

    def to(self, device: torch.device) -> PermutohedralLevels:
        parts = self.cells, self.sides, self.first_row, self.shift
        return PermutohedralLevels(*(part.to(device) for part in parts))

    @property
    def rows(self) -> int:
        return int(self.first_row[-1])


def permutohedral_encode(
    points: Tensor,
    table: Tensor,
    levels: PermutohedralLevels,
    *,
    active: int,
    lead: int = 0,
    read: Tensor | None = None,
) -> Tensor:
    """Features of `points`, linear in the simplices of each level; arguments and result as of `hash_encode`.

    Differentiable in `points` and `table`, once; use `permutohedral_encode_with_vjp` for gradients of the input
    gradient.
    """
    return look_up(points, table, _Lookup(levels, active, lead, read))


def permutohedral_encode_with_vjp(
    points: Tensor,
    table: Tensor,
    levels: PermutohedralLevels,
    *,
    active: int,
    lead: int = 0,
    read: Tensor | None = None,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `permutohedral_encode`, and a function from feature weights w [M, lead + 2L] to d(sum w . features)/d(points).

    To be called once at most; it returns [M, 3]. Features are differentiable in `points` and `table`, the vjp in
    `table` and w, once: in the points it is piecewise constant.
    """
    return look_up_with_vjp(points, table, _Lookup(levels, active, lead, read))


class _Lookup(LevelLookup):
    @property
    def kernels(self) -> tuple[Any, Any, Any]:
        return _encode, _pull, _scatter

    def layout(self) -> list[Any]:
        return [self.levels.cells, self.levels.sides, self.levels.shift, self.levels.first_row]


# The block and level of an item of `LevelLookup.by_level`.
_BY_LEVEL = """
    const int level = item / blocks, block = item - level * blocks;
"""


@native_kernel(
    TYPES
    + _BY_LEVEL
    + f"""
    const int used = lead + 2 * active;
    if (level == 0) {{ {FRAME} }}
"""
    + ENCODE
)
def _encode(
    item: int, points: Rows, cells: Floats, sides: Ints, shifts: Rows, first_rows: Ints, active: int, lead: int,
    blocks: int, table: Ints, words: int, along: Rows, out: Rows,
) -> None:
    """Features, or their derivative along a direction per point."""


@native_kernel(
    TYPES
    + f"""
    const int begin = item * chunk, behind = begin + chunk < blocks ? begin + chunk : blocks;
    for (int block = begin; block < behind; ++block) {{ {LEAD} }}
    for (int level = 0; level < active; ++level)
        for (int block = begin; block < behind; ++block) {{ {PULL} }}
"""
)
def _pull(
    item: int, points: Rows, cells: Floats, sides: Ints, shifts: Rows, first_rows: Ints, active: int, lead: int,
    blocks: int, chunk: int, table: Ints, words: int, weight: Rows, second: Rows, along: Rows, out: Rows,
) -> None:
    """Gradient of sum(weight * features) in the points; that of the derivative along a direction is zero."""


@native_kernel(
    TYPES
    + _BY_LEVEL
    + """
    if (fresh && block == 0)
        for (int row = first_rows.data[level]; row < first_rows.data[level + 1]; ++row)
            table.data[row] = wp::vec2(0.0f, 0.0f);
"""
    + SCATTER
)
def _scatter(
    item: int, points: Rows, cells: Floats, sides: Ints, shifts: Rows, first_rows: Ints, active: int, lead: int,
    blocks: int, table: Pairs, fresh: int, grad: Rows, weight: Rows, along: Rows,
) -> None:
    """Gradient of the table: of the features, and of their derivative along a direction."""
