"""Multi-resolution hash encoding on permutohedral lattices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.encodings.hash_grid import LevelsConfig, LevelTable
from models.kernels.encodings.permutohedral import (
    PermutohedralLevels,
    permutohedral_encode,
    permutohedral_encode_with_vjp,
)


class PermutohedralConfig(LevelsConfig):
    """Features linear in simplices, from tables of growing resolution. Rosu and Behnke, "PermutoSDF" (2023).

    A level has as many vertices in the cube as a cubic grid of so many cells over its side.
    """

    type: Literal["permutohedral"] = "permutohedral"
    shifted: bool = Field(True, description="move the lattice of each level by an amount of its own, drawn at random")

    @property
    def rows(self) -> int:
        return PermutohedralLevels.geometric(**self.layout_options(), shift=torch.zeros(self.levels, 3)).rows

    def build(self, dimensions: int = 3) -> Permutohedral:
        shift = 1 + (torch.rand(self.levels, 3) if self.shifted else torch.zeros(self.levels, 3))
        return Permutohedral(
            PermutohedralLevels.geometric(**self.layout_options(), shift=shift), **self.table_options()
        )


class Permutohedral(LevelTable):
    """`LevelTable` with features linear in the simplices of the lattices, of four vertices each."""

    cells: Tensor
    sides: Tensor
    first_row: Tensor
    shift: Tensor

    def __init__(self, layout: PermutohedralLevels, **options: Any) -> None:
        """options: as of `LevelTable`."""
        super().__init__(len(layout.cells), layout.rows, **options)
        for name in ("cells", "sides", "first_row"):
            self.register_buffer(name, getattr(layout, name), persistent=False)
        self.register_buffer("shift", layout.shift)  # part of the state: it was drawn

    def _layout(self) -> PermutohedralLevels:
        return PermutohedralLevels(self.cells, self.sides, self.first_row, self.shift)

    def _encode(self, flat: Tensor) -> Tensor:
        return permutohedral_encode(flat, self.table, self._layout(), **self._options())

    def _encode_with_vjp(self, flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return permutohedral_encode_with_vjp(flat, self.table, self._layout(), **self._options())
