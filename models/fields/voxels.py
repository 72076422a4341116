"""Explicit fields: one encoding whose sum is the density, another that holds the colors (DVGO, TensoRF, Plenoxels)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field as Key
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.capabilities import DENSITY, Offer
from models.encodings.base import EncodingConfig
from models.encodings.linked_voxels import LinkedVoxels, LinkedVoxelsConfig
from models.encodings.voxel_grid import VoxelGridConfig
from models.fields.base import Field, FieldConfig
from models.fields.pruning import PruneConfig
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
    prune: PruneConfig | None = Key(None, description="drop rows of `linked_voxels` that no training ray sees")

    @model_validator(mode="after")
    def _rows_can_be_dropped(self) -> VoxelsConfig:
        parts = {"density": self.density, "colors": self.colors}
        linked = {name: part for name, part in parts.items() if isinstance(part, LinkedVoxelsConfig)}
        if self.prune is None:
            return self
        if len(linked) < len(parts):
            raise ValueError("prune: drops rows of linked_voxels; expected them as density and colors, or prune: null")
        self.prune.check(linked)
        return self

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
        self.pruning = config.prune.build(self.linked()[0]) if config.prune else None
        self._progress = 0.0
        self.register_load_state_dict_post_hook(_resume_pruning)

    def linked(self) -> list[LinkedVoxels]:
        """The encodings that have rows for some corners only."""
        return [part for part in (self.density, self.colors) if isinstance(part, LinkedVoxels)]

    @torch.no_grad()
    def initialize(self, scene: Scene | None = None) -> None:
        hull = HullInit().distance(scene) if scene is not None and self.knows_hull else None
        solid = None if hull is None else hull(cell_centers(LATTICE)) < NEAR_HULL * 2 / LATTICE
        if solid is not None and solid.any():
            self.solid.copy_(solid)
            box = box_within(solid)
            for encoding in (self.density, self.colors):
                encoding.cover(*box)
            for linked in self.linked():
                linked.keep(near_solid(solid, linked))

    def refresh(self, medium: nn.Module, step: int) -> bool:
        """As `Field.refresh`; what is pruned are the encodings, which say so themselves when they are asked next."""
        if self.pruning is not None:
            self.pruning.refresh(self._progress, self.linked())
        return False

    def update(self, progress: float) -> None:
        self._progress = progress
        self.density.update(progress)
        self.colors.update(progress)

    def kept(self) -> int:
        """See `Field.kept`: what the encoding of colors gives, and what is made of it."""
        return self.colors.width + (self.features if self.basis is not None else 0)

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


def near_solid(solid: Tensor, encoding: LinkedVoxels) -> Tensor:
    """Which corners of an encoding lie so near to solid [LATTICE^3] bool that a cell about them may hold some of it.

    [n + 1, n + 1, n + 1] bool, as of `LinkedVoxels.present`.
    """
    low, high = encoding.box.chunk(2)
    reach = math.ceil(float((high - low).max()) / encoding.cells * LATTICE / 2)  # a cell's side in cells of the lattice
    lattice = solid.float().view(1, 1, LATTICE, LATTICE, LATTICE)
    near = F.max_pool3d(lattice, 2 * reach + 1, 1, reach).flatten() > 0
    corners = torch.arange(encoding.corners, device=solid.device)
    return near[cells_of(encoding.positions(corners))].view(3 * (encoding.cells + 1,))


def _resume_pruning(field: nn.Module, missing: object) -> None:
    assert isinstance(field, Voxels)
    if field.pruning is not None:
        field.pruning.resume(field.linked())


def box_within(solid: Tensor) -> tuple[Tensor, Tensor]:
    """The corners [3] and [3] of the box around the cells where solid [LATTICE^3] bool is true, anywhere at least."""
    centers, half = cell_centers(LATTICE)[solid], 1 / LATTICE
    return centers.amin(0) - half, centers.amax(0) + half
