"""Sparse voxels of one size (NSVF)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.encodings.sparse_voxels import SparseVoxelsConfig


class NsvfConfig(SparseVoxelsConfig):
    """Numbers at the corners of voxels, all of which are halved at once. Liu et al., "NSVF" (2020), section 3."""

    type: Literal["nsvf"] = "nsvf"

    @property
    def depth(self) -> int:
        return len(self.grow)

    def chosen(self, error: Tensor, leaves: Tensor) -> Tensor:
        """All of the leaves [L], those of the largest error [V] first, in case there are more than the budget has."""
        return leaves[error[leaves].argsort(descending=True, stable=True)]
