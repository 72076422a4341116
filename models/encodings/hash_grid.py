"""Multi-resolution hash grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.encodings.base import Encoding, EncodingConfig
from models.kernels.encodings.hash_encode import FEATURES, HashLevels, hash_encode, hash_encode_with_vjp
from utils.config.schedule import Schedule, constant

Entries = Annotated[
    Literal["float32", "float16"],
    Field(description="what entries are read as: float16 is half the bytes in a cache; the optimizer keeps float32"),
]


class LevelsConfig(EncodingConfig):
    """Keys of all encodings by tables of growing resolution."""

    levels: int = Field(12, ge=1, le=32)
    base: int = Field(16, ge=1, le=1024, description="cells over the cube's side at the coarsest level")
    top: int = Field(1024, ge=1, le=65536, description="cells over the cube's side at the finest level")
    log2_rows: int = Field(17, ge=4, le=24, description="at most 2^this rows per level")
    active: Schedule = Field(constant(1.0), description="share of the levels in use, coarse to fine")
    initial: float = Field(1e-4, gt=0, description="entries start uniform in +/- this")
    entries: Entries = "float32"

    @property
    def numbers(self) -> int:
        return FEATURES * self.rows

    @property
    def rows(self) -> int:
        """Of the tables of all levels."""
        raise TypeError("a config of levels says how many rows they have")

    def lowered(self, share: float) -> str:
        return f"log2_rows={max(self.log2_rows - math.ceil(-math.log2(share)), 4)}"

    def layout_options(self) -> dict[str, int]:
        """Of the layout of the levels, by keyword."""
        return {"levels": self.levels, "base": self.base, "top": self.top, "log2_rows": self.log2_rows}

    def table_options(self) -> dict[str, Any]:
        """Of `LevelTable`, by keyword."""
        return {"active": self.active, "initial": self.initial, "halves": self.entries == "float16"}


class HashGridConfig(LevelsConfig):
    """Trilinear features from tables of growing resolution. Müller et al., "Instant NGP" (2022)."""

    type: Literal["hash_grid"] = "hash_grid"

    @property
    def rows(self) -> int:
        return HashLevels.geometric(**self.layout_options()).rows

    def build(self, dimensions: int = 3) -> HashGrid:
        return HashGrid(HashLevels.geometric(**self.layout_options()), **self.table_options())


class LevelTable(Encoding):
    """[*N, 3] in [-1, 1]^3 -> [*N, 3 + 2 levels]: the point itself, then two features per level from its rows.

    Differentiable once in x and the table; `with_vjp` also makes the input gradient differentiable.
    """

    keeps_input = True
    copy: Tensor | None

    def __init__(
        self, levels: int, rows: int, *, active: Schedule, initial: float, together: int = 1, halves: bool = False
    ) -> None:
        """initial: entries start uniform in +/- this. together: so many levels are switched on at a time.

        halves: read the table as 16-bit floats.
        """
        super().__init__()
        self.levels, self.together, self.schedule = levels, together, active
        self.width = 3 + FEATURES * self.levels
        self.table = nn.Parameter(torch.empty(rows, FEATURES).uniform_(-initial, initial))
        self.register_buffer("copy", self.table.detach().half() if halves else None, persistent=False)
        self._copied: int | None = None  # which version of the table
        self.update(0.0)

    def update(self, progress: float) -> None:
        steps = self.levels // self.together
        self.active = self.together * max(1, min(steps, round(self.schedule(progress) * steps)))
        self._read()

    def _read(self) -> Tensor | None:
        """The table in 16 bits, always at the same place, made anew when the table has changed."""
        if self.copy is None:
            return None
        of = hash((self.table.data_ptr(), self.table._version, self.copy.data_ptr()))
        if self._copied != of:
            self.copy.copy_(self.table.detach())
            self._copied = of  # by now: other threads may ask
        return self.copy

    def _options(self) -> dict[str, Any]:
        """What is asked of the kernels: the levels in use, the point in front, what is read."""
        return {"active": self.active, "lead": 3, "read": self._read()}

    def _encode(self, flat: Tensor) -> Tensor:
        """[M, 3] -> [M, width]."""
        raise TypeError("an encoding by levels defines how they are looked up")

    def _encode_with_vjp(self, flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """[M, 3] -> [M, width] and the vjp [M, width] -> [M, 3]."""
        raise TypeError("an encoding by levels defines how they are looked up")

    def forward(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, width]; see `Encoding`."""
        return self._encode(x.reshape(-1, 3)).reshape(*x.shape[:-1], self.width)

    def with_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """[*N, 3] -> [*N, width] and the vjp [*N, width] -> [*N, 3]; see `Encoding.with_vjp`."""
        features, vjp = self._encode_with_vjp(x.reshape(-1, 3))
        return (
            features.reshape(*x.shape[:-1], self.width),
            lambda weight: vjp(weight.reshape(-1, self.width)).reshape(x.shape),
        )


class HashGrid(LevelTable):
    """`LevelTable` with trilinear features of cubic cells."""

    resolution: Tensor
    first_row: Tensor

    def __init__(self, layout: HashLevels, **options: Any) -> None:
        """options: as of `LevelTable`."""
        super().__init__(len(layout.resolution), layout.rows, **options)
        self.register_buffer("resolution", layout.resolution, persistent=False)
        self.register_buffer("first_row", layout.first_row, persistent=False)

    def _layout(self) -> HashLevels:
        return HashLevels(self.resolution, self.first_row)

    def _encode(self, flat: Tensor) -> Tensor:
        return hash_encode(flat, self.table, self._layout(), **self._options())

    def _encode_with_vjp(self, flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return hash_encode_with_vjp(flat, self.table, self._layout(), **self._options())
