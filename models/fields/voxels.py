"""Explicit fields: one encoding whose sum is the density, another that holds the colors (DVGO, TensoRF, Plenoxels)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field as Key
from torch import Tensor, nn

from models.capabilities import DENSITY, Offer
from models.encodings.base import EncodingConfig
from models.encodings.voxel_grid import VoxelGridConfig
from models.fields.base import Field, FieldConfig
from models.inits.hull import HullInit
from models.samples import FieldSample, Points
from utils.config.parts import Choice
from utils.meshing.cells import cell_centers

if TYPE_CHECKING:
    from dataio.scene import Scene

LATTICE = 64  # cells on each axis of the cube, of which it is known whether they are free
NEAR_HULL = 1.5  # cells: what is so near to the hull is not known to be free
EMPTY = -1e4  # raw density of what is known to be free: no activation makes any density of it


class VoxelsConfig(FieldConfig):
    """A raw density and features without a network between grid and density."""

    type: Literal["voxels"] = "voxels"
    value_kind: ClassVar[Offer] = DENSITY

    density: Choice[EncodingConfig] = Key(VoxelGridConfig(), description="its features are added up to the raw density")
    colors: Choice[EncodingConfig] = Key(VoxelGridConfig(components=12), description="features for the appearance")
    features: int | None = Key(
        None, ge=1, le=4096, description="so many linear combinations of what `colors` gives; null: that itself"
    )
    initial_value: float = Key(-4.6, description="added to the raw density; lower starts emptier")
    free: Literal["hull", "nothing"] = Key(
        "hull",
        description="known free space: what lies outside of the hull of the masks, and the grids cover the box of the"
        " rest; nothing, and the grids cover the cube, where there are no masks",
    )

    def build(self) -> Voxels:
        return Voxels(self)


class Voxels(Field):
    """value: raw density, the sum of the density encoding's features plus the initial value.

    The density is what the opacity makes of the interpolated value, so that a surface may lie sharp within a cell: Sun
    et al., "DVGO" (2022), section 4.1. The combination of features is the matrix B of Chen et al., "TensoRF" (2022),
    eq. 8, without bias. Of free space that is known for good, as DVGO's, the value is `EMPTY`.
    """

    solid: Tensor

    def __init__(self, config: VoxelsConfig) -> None:
        super().__init__()
        self.initial_value, self.knows_hull = config.initial_value, config.free == "hull"
        self.density, self.colors = config.density.build(), config.colors.build()
        own = self.colors.width - 3 * self.colors.keeps_input
        self.features = own if config.features is None else config.features
        self.basis = None if config.features is None else nn.Linear(own, self.features, bias=False)
        self.register_buffer("solid", torch.ones(LATTICE**3, dtype=torch.bool))

    @torch.no_grad()
    def initialize(self, scene: Scene | None = None) -> None:
        hull = HullInit().distance(scene) if scene is not None and self.knows_hull else None
        solid = None if hull is None else hull(cell_centers(LATTICE)) < NEAR_HULL * 2 / LATTICE
        if solid is not None and solid.any():
            self.solid.copy_(solid)
            box = box_within(solid)
            for encoding in (self.density, self.colors):
                encoding.cover(*box)

    def update(self, progress: float) -> None:
        self.density.update(progress)
        self.colors.update(progress)

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Field.value`."""
        return torch.where(self.solid[cells_of(x)], self.density.total(x) + self.initial_value, EMPTY)

    def forward(self, at: Points) -> FieldSample:
        """Value and features [*N, F] at points `*N`; see `Field.forward`."""
        features = self.colors.features(at.x)
        return FieldSample(self.value(at.x), features if self.basis is None else self.basis(features))


def cells_of(x: Tensor) -> Tensor:
    """[*N, 3] -> [*N] int64, the nearest cell of the lattice to points in the cube or beyond. Not differentiable."""
    x, y, z = ((x.detach() + 1) * (LATTICE / 2)).clamp(0, LATTICE - 1).long().unbind(-1)
    return (x * LATTICE + y) * LATTICE + z


def box_within(solid: Tensor) -> tuple[Tensor, Tensor]:
    """The corners [3] and [3] of the box around the cells where solid [LATTICE^3] bool is true, anywhere at least."""
    centers, half = cell_centers(LATTICE)[solid], 1 / LATTICE
    return centers.amin(0) - half, centers.amax(0) + half
