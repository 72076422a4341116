"""Sparse voxels of mixed sizes, small where the picture is wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.encodings.sparse_voxels import SparseVoxelsConfig


class OctreeConfig(SparseVoxelsConfig):
    """As `nsvf`, but only the voxels of the largest color error are halved. After Sun et al., "SVRaster" (2025)."""

    type: Literal["octree"] = "octree"
    levels: int = Field(4, ge=0, le=12, description="how often a voxel may be halved")
    share: float = Field(0.3, gt=0, le=1, description="of the voxels that may be halved, at each time")

    @property
    def depth(self) -> int:
        return self.levels

    def chosen(self, error: Tensor, leaves: Tensor) -> Tensor:
        """The share of the leaves [L] with the largest error [V], the larger first; none that has no error."""
        worst = leaves[error[leaves].argsort(descending=True, stable=True)[: round(self.share * len(leaves))]]
        return worst[error[worst] > 0]
