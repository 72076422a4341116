"""Normals that turn slowly along the surface."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.capabilities import GRADIENT, Offer
from models.losses.base import LossConfig, Step, mean_of, surface_points
from utils.random_stream import normal


class CurvatureLoss(LossConfig):
    """How fast the normal turns along the surface: |n(x) - n(x + h t)|^2 / h^2 for a random unit tangent t.

    For small h the square of the curvature (and twist) along t, in 1 / scene unit^2; mean over rays that hit. After
    Rosu and Behnke, "PermutoSDF" (2023), section 3.3, who have the angle between the normals.
    """

    type: Literal["curvature"] = "curvature"
    needs: ClassVar[frozenset[Offer]] = frozenset({GRADIENT})
    shift: float = Field(5e-3, gt=0, description="h, scene units")
    points: int = Field(512, ge=1, le=1 << 24, description="at most this many surface points per step")

    def __call__(self, step: Step) -> Tensor:
        x, valid = surface_points(step.rendering, self.points)
        here = step.model.normal(x)
        tangent = torch.linalg.cross(here.detach(), F.normalize(normal(x.shape, x.device), dim=-1))
        there = step.model.normal(x + self.shift * F.normalize(tangent, dim=-1))
        return mean_of((here - there).square().sum(-1), valid) / self.shift**2
