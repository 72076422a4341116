"""Trilinear features on dense voxel grids."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator

from models.encodings.base import EncodingConfig
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
    active: Schedule = Field(constant(1.0), description="share of the grids in use, first to last")
    initial: float = Field(1e-4, gt=0, description="entries start uniform in +/- this")
    entries: Entries = "float32"

    @field_validator("resolutions")
    @classmethod
    def _fit_into_memory(cls, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        if not resolutions:
            raise ValueError("should name at least one grid")
        if sum((n + 1) ** 3 for n in resolutions) > MOST_ROWS:
            raise ValueError(f"grids of more than {MOST_ROWS:,} corners in all")
        return resolutions

    def build(self, dimensions: int = 3) -> HashGrid:
        # A grid of more features is several levels of one resolution, which are switched on together.
        together = self.features // FEATURES
        levels = [n for n in self.resolutions for _ in range(together)]
        first = torch.tensor([0, *((n + 1) ** 3 for n in levels)]).cumsum(0)
        layout = HashLevels(torch.tensor(levels, dtype=torch.int32), first.to(torch.int32))
        return HashGrid(
            layout, active=self.active, initial=self.initial, together=together, halves=self.entries == "float16"
        )
