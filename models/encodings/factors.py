"""What encodings by products of interpolated tables share: layout, growth, the box that they cover."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.capabilities import Offer
from models.encodings.base import Encoding, EncodingConfig
from models.encodings.growth import Grow, due, sides_of
from models.kernels.encodings.factors import Factors, factor_features, factor_features_with_vjp, layout_of

TABLES = Offer("tables", "an encoding by lines, planes or voxels")
MOST_NUMBERS = 1 << 29
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class FactorConfig(EncodingConfig):
    """Keys of all encodings by products of tables. axes: of each table. together: the tables of a product."""

    offers: ClassVar[frozenset[Offer]] = frozenset({TABLES})
    axes: ClassVar[tuple[tuple[int, ...], ...]]
    together: ClassVar[int]

    cells: int = Field(256, ge=2, le=4096, description="on each axis in the end")
    components: int = Field(16, ge=1, le=512, description="numbers in a row of each table")
    grow: Grow = Field((), description="progresses at which the cells become more, `cells` in the end")
    growth: float = Field(2.0, gt=1, le=4, description="factor of the cells on each axis at each growth")
    initial: float = Field(0.1, ge=0, description="numbers start normal, of this standard deviation")

    @model_validator(mode="after")
    def _fits_into_memory(self) -> FactorConfig:
        numbers = self.components * self.table_rows
        if numbers > MOST_NUMBERS:
            raise ValueError(f"tables of {numbers:,} numbers; expected at most {MOST_NUMBERS:,}: lower `cells`")
        if (first := sides_of([self.cells], self.growth, len(self.grow))[0][0]) < 2:
            raise ValueError(f"grows from {first} cells; expected at least 2: lower `growth`, or fewer in `grow`")
        return self

    @property
    def table_rows(self) -> int:
        """Rows of the table, which do not change during a run."""
        return layout_of(self.axes, (self.cells,) * 3)[1]

    @property
    def numbers(self) -> int:
        return self.components * self.table_rows

    def lowered(self, share: float) -> str:
        return f"cells={max(int(self.cells * share ** (1 / max(map(len, self.axes)))), 2)}"

    def build(self, dimensions: int = 3) -> FactorEncoding:
        return FactorEncoding(self)


class FactorEncoding(Encoding):
    """[*N, 3] -> [*N, 3 + terms F]: the point itself, then the products of the tables, term by term.

    The table has the rows of the final resolution from the start. Of each factor the first are in use; the others are
    read by no point and get no gradient. One that grows takes the interpolated value of the old at its new corners:
    where the cells are split into equal parts, the features stay the same up to rounding.
    """

    keeps_input = True
    whole: bool = True  # whether every corner has a row
    resolution: Tensor
    box: Tensor
    layout: Tensor

    def __init__(self, config: FactorConfig) -> None:
        super().__init__()
        self.axes, self.together, self.grow = config.axes, config.together, config.grow
        self.sides = sides_of((config.cells,) * 3, config.growth, len(config.grow))
        layout, _ = layout_of(config.axes, self.sides[-1])
        self.width = 3 + len(config.axes) // config.together * config.components
        self.firsts = layout[:, -1].tolist()
        self.register_buffer("layout", layout, persistent=False)
        self.register_buffer("resolution", torch.tensor(self.sides[0], dtype=torch.int32))
        self.register_buffer("box", torch.tensor([-1.0, -1, -1, 1, 1, 1]))
        self.table = nn.Parameter(config.initial * torch.randn(config.table_rows, config.components))
        self.register_load_state_dict_post_hook(_count_generations)

    def factors(self) -> Factors:
        """The layout of the table as kernels read it, at present."""
        return Factors(self.layout, self.resolution, self.box, self.together)

    def forward(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, width]; see `Encoding`."""
        features = factor_features(x.reshape(-1, 3), self.table, self.factors(), lead=3)
        return self._read(features).reshape(*x.shape[:-1], self.width)

    def with_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """[*N, 3] -> [*N, width] and the vjp [*N, width] -> [*N, 3]; see `Encoding.with_vjp`."""
        features, vjp = factor_features_with_vjp(x.reshape(-1, 3), self.table, self.factors(), lead=3)
        return (
            self._read(features).reshape(*x.shape[:-1], self.width),
            lambda weight: vjp(self._unread(weight.reshape(-1, self.width))).reshape(x.shape),
        )

    def features(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, width - 3]; see `Encoding.features`."""
        features = factor_features(x.reshape(-1, 3), self.table, self.factors())
        return self._read(features).reshape(*x.shape[:-1], self.width - 3)

    def _read(self, features: Tensor) -> Tensor:
        """Features [M, W] of whole rows of the table -> those that count, of which there may be fewer."""
        return features

    def _unread(self, weight: Tensor) -> Tensor:
        """The way back, of weights: those of whole rows."""
        return weight

    def total(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Encoding.total`. By the kernel, which writes one number per point."""
        return factor_features(x.reshape(-1, 3), self.table, self.factors(), summed=True).reshape(x.shape[:-1])

    @property
    def by_voxels(self) -> bool:
        """Whether it is one grid over all axes."""
        return len(self.axes) == 1

    @torch.no_grad()
    def cover(self, low: Tensor, high: Tensor) -> None:
        """See `Encoding.cover`."""
        self.box.copy_(torch.cat([low, high]))

    def refresh(self, progress: float) -> bool:
        """As `Encoding.refresh`: grow until as many of `grow` are passed."""
        before, wanted = self.generation, due(self.grow, progress)
        while self.generation < wanted:
            self._grow()
        return self.generation > before

    @torch.no_grad()
    def _grow(self) -> None:
        new = self.sides[self.generation + 1]
        for axes, first, grid in self._grids(self.table):
            fine = resized(grid, [new[axis] + 1 for axis in reversed(axes)]).flatten(0, -2)
            self.table[first : first + len(fine)] = fine
        self.resolution.copy_(torch.tensor(new))
        self.generation += 1

    def measures(self) -> dict[str, float]:
        """See `Encoding.measures`."""
        if not self.grow:
            return {}
        rows = sum(grid[..., 0].numel() for grid in self.grids(self.table))
        return {"cells": float(max(self.sides[self.generation])), "rows": float(rows)}

    def bytes_of_change(self) -> int:
        """See `Encoding.bytes_of_change`: the largest table as it is interpolated, and in the order of rows."""
        largest = max(math.prod(self.sides[-1][axis] + 1 for axis in axes) for axes in self.axes)
        return 2 * largest * self.table[:1].nbytes if self.grow else 0

    def latest_change(self) -> str:
        """`grew to`, and the cells on each axis."""
        return f"grew to {' x '.join(map(str, self.sides[self.generation]))}"

    def grids(self, rows: Tensor) -> list[Tensor]:
        """The tables in use, [n_k + 1, n_j + 1, n_i + 1, F] without the axes that a table lacks; the last axis first.

        Views of rows [N, F], of the table or of what is as long.
        """
        return [grid for _, _, grid in self._grids(rows)]

    def _grids(self, rows: Tensor) -> Iterator[tuple[tuple[int, ...], int, Tensor]]:
        """Of each table in use its axes, its first row, and the view of its rows."""
        for axes, first in zip(self.axes, self.firsts, strict=True):
            shape = [self.sides[self.generation][axis] + 1 for axis in reversed(axes)]
            yield axes, first, rows[first : first + torch.Size(shape).numel()].view(*shape, -1)


def resized(grid: Tensor, sides: Sequence[int]) -> Tensor:
    """[*old, F] values at corners -> [*new, F], interpolated linearly on each of one to three axes.

    The first and the last corner of each axis stay. Differentiable in the grid.
    """
    columns = grid.movedim(-1, 0)[None]
    fine = F.interpolate(columns, size=tuple(sides), mode=MODES[len(sides)], align_corners=True)
    return fine[0].movedim(0, -1)


def _count_generations(encoding: nn.Module, missing: object) -> None:
    """The layout is that of the state, whatever the progress. Raises ValueError for one that cannot be."""
    assert isinstance(encoding, FactorEncoding)
    low, high = encoding.box.chunk(2)
    if not (torch.isfinite(encoding.box).all() and (low < high).all()):
        raise ValueError(f"a box from {low.tolist()} to {high.tolist()} - expected its least corner and its greatest")
    found = tuple(encoding.resolution.tolist())
    if found not in encoding.sides:
        raise ValueError(f"tables over {found} cells - expected one of {encoding.sides}")
    encoding.generation = encoding.sides.index(found)
