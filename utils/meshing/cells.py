"""Cells of the cube about the unit sphere."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_centers(side: int) -> Tensor:
    """[side^3, 3] float32, the centers of the cells of [-1, 1]^3, `side` on each axis; z changes fastest."""
    axis = (torch.arange(side) + 0.5) * (2 / side) - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
