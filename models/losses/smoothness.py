"""Normals that agree nearby (UNISURF)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.capabilities import GRADIENT, Offer
from models.losses.base import LossConfig, Step, mean_of, surface_points
from utils.random_stream import uniform


class SmoothnessLoss(LossConfig):
    """Distance of the normals at the surface and at random points beside it, mean over rays that hit.

    Oechsle et al., "UNISURF" (2021), eq. 11: |n(x) - n(x + e)|, the length itself, as in its code.
    """

    type: Literal["smoothness"] = "smoothness"
    needs: ClassVar[frozenset[Offer]] = frozenset({GRADIENT})
    shift: float = Field(5e-3, gt=0, description="e is uniform within +/- this on each axis, scene units")
    points: int = Field(1024, ge=1, le=1 << 24, description="at most this many surface points per step")

    def __call__(self, step: Step) -> Tensor:
        x, valid = surface_points(step.rendering, self.points)
        beside = x + (2 * uniform(x.shape, x.device) - 1) * self.shift
        here, there = step.model.normal(torch.cat([x, beside])).chunk(2)
        return mean_of(((here - there).square().sum(-1) + 1e-12).sqrt(), valid)
