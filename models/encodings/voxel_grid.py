"""One dense grid of voxels, all numbers of a corner in one row (DVGO)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from models.capabilities import Offer
from models.encodings.factors import TABLES, FactorConfig

VOXELS = Offer("voxels", "an encoding by voxels")


class VoxelGridConfig(FactorConfig):
    """Numbers at the corners of voxels, interpolated. Sun et al., "DVGO" (2022), section 3.

    Beside `dense_grid` it has one grid of any number of components, grows by any factor, and covers a box.
    """

    type: Literal["voxel_grid"] = "voxel_grid"
    offers: ClassVar[frozenset[Offer]] = frozenset({TABLES, VOXELS})
    axes: ClassVar[tuple[tuple[int, ...], ...]] = ((0, 1, 2),)
    together: ClassVar[int] = 1

    cells: int = Field(160, ge=2, le=1024, description="on each axis in the end")
    components: int = Field(1, ge=1, le=512, description="numbers at each corner")
    initial: float = Field(0.0, ge=0, description="numbers start normal, of this standard deviation")
