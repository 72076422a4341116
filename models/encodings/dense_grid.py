"""Trilinear features on dense voxel grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from models.encodings.base import EncodingConfig
from models.encodings.growth import Grow, due
from models.encodings.hash_grid import Entries, HashGrid
from models.kernels.encodings.hash_encode import FEATURES, HashLevels
from utils.config.schedule import Schedule, constant

MOST_ROWS = 1 << 28
Resolution = Annotated[int, Field(ge=1, le=1024)]


class DenseGridConfig(EncodingConfig):
    """One grid, or several of growing resolution, without collisions. Sun et al., "DVGO" (2022), section 3."""

    type: Literal["dense_grid"] = "dense_grid"
    resolutions: tuple[Resolution, ...] = Field((32, 64, 128), description="cells over the cube's side, per grid")
    features: Literal[2, 4, 8, 16] = Field(2, description="per grid")
    grow: Grow = Field(
        (), description="progresses at which all grids double; they start at 1/2^n of `resolutions` for n of these"
    )
    active: Schedule = Field(constant(1.0), description="share of the grids in use, first to last")
    initial: float = Field(1e-4, gt=0, description="entries start uniform in +/- this")
    entries: Entries = "float32"

    @field_validator("resolutions")
    @classmethod
    def _fit_into_memory(cls, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        if not resolutions:
            raise ValueError("should name at least one grid")
        if _rows(resolutions) > MOST_ROWS:
            raise ValueError(f"grids of more than {MOST_ROWS:,} corners in all")
        return resolutions

    @model_validator(mode="after")
    def _divisible(self) -> DenseGridConfig:
        by = 2 ** len(self.grow)
        if odd := [n for n in self.resolutions if n % by]:
            raise ValueError(f"`resolutions` should be multiples of {by}, {len(self.grow)} times doubled (got {odd})")
        return self

    @property
    def numbers(self) -> int:
        return self.features * _rows(self.resolutions)

    def lowered(self, share: float) -> str:
        by = 2 ** len(self.grow)
        fewer = [max(int(n * share ** (1 / 3)) // by, 1) * by for n in self.resolutions]
        return f"resolutions=[{', '.join(map(str, fewer))}]"

    def build(self, dimensions: int = 3) -> DenseGrid:
        # A grid of more features is several levels of one resolution, which are switched on together.
        together = self.features // FEATURES
        levels = [n for n in self.resolutions for _ in range(together)]
        first = torch.tensor([0, *((n + 1) ** 3 for n in levels)]).cumsum(0)
        layout = HashLevels(torch.tensor(levels, dtype=torch.int32), first.to(torch.int32))
        options = {"active": self.active, "initial": self.initial, "halves": self.entries == "float16"}
        return DenseGrid(layout, grow=self.grow, together=together, **options)


def _rows(resolutions: Sequence[int]) -> int:
    """Corners of grids of so many cells to a side, in all."""
    return sum((n + 1) ** 3 for n in resolutions)


class DenseGrid(HashGrid):
    """[*N, 3] -> [*N, 3 + 2 levels], as `HashGrid`; its resolutions may double during a run.

    The table has the rows of the final resolutions from the start. Of a level's rows the first (n + 1)^3 are in use;
    the others are read by no point and get no gradient. A level that doubles takes the trilinear value of the old grid
    at its new corners: the features stay the same up to rounding. Sun et al., "DVGO" (2022), section 5.
    """

    def __init__(self, layout: HashLevels, *, grow: tuple[float, ...], together: int, **options: Any) -> None:
        """layout: of the final resolutions. grow: the progresses at which they double. options: as of `HashGrid`."""
        super().__init__(layout, together=together, **options)
        self.grow = grow
        if grow:  # what can change is part of the state
            self._final = layout.resolution.tolist()
            self.register_buffer("resolution", layout.resolution // 2 ** len(grow))
            self.register_load_state_dict_post_hook(_count_generations)

    def refresh(self, progress: float) -> bool:
        """As `Encoding.refresh`: double until as many of `grow` are passed."""
        before, wanted = self.generation, due(self.grow, progress)
        while self.generation < wanted:
            self._double()
        return self.generation > before

    @torch.no_grad()
    def _double(self) -> None:
        factor = 2 ** (len(self.grow) - self.generation)
        for n, first in zip(self._final, self.first_row.tolist()[:-1], strict=True):
            side = n // factor + 1
            level = self.table[first : first + side**3].view(side, side, side, -1)
            fine = doubled(level).reshape(-1, FEATURES)
            self.table[first : first + len(fine)] = fine
        self.resolution *= 2
        self.generation += 1
        self._read()

    def measures(self) -> dict[str, float]:
        """See `Encoding.measures`; cells to a side of the finest grid, corners of all."""
        if not self.grow:
            return {}
        sides = self.resolution.tolist()[:: self.together]
        return {"cells": float(max(sides)), "rows": float(_rows(sides))}

    def bytes_of_change(self) -> int:
        """See `Encoding.bytes_of_change`: the largest level, doubled on one axis after the other."""
        return 3 * max((n + 1) ** 3 for n in self._final) * self.table[:1].nbytes if self.grow else 0

    def latest_change(self) -> str:
        """`grew to`, and the cells to a side of each grid."""
        return f"grew to {', '.join(map(str, self.resolution.tolist()[:: self.together]))}"


def doubled(grid: Tensor) -> Tensor:
    """[X, Y, Z, F] values at corners -> [2X-1, 2Y-1, 2Z-1, F], trilinear at new ones. Differentiable in the grid."""
    for axis in range(3):
        old = grid.movedim(axis, 0)
        between = torch.stack([old[:-1], (old[:-1] + old[1:]) / 2], 1).flatten(0, 1)
        grid = torch.cat([between, old[-1:]]).movedim(0, axis)
    return grid


def _count_generations(grid: nn.Module, missing: object) -> None:
    """The layout is that of the state, whatever the progress."""
    assert isinstance(grid, DenseGrid)
    final = torch.tensor(grid._final)
    if not any(torch.equal(grid.resolution.cpu(), final // 2**k) for k in range(len(grid.grow) + 1)):
        raise ValueError(f"grids of {grid.resolution.tolist()} cells - expected those that double to {grid._final}")
    ahead = grid._final[0] // max(int(grid.resolution[0]), 1)
    grid.generation = len(grid.grow) - (ahead.bit_length() - 1)
