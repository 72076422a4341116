"""The surface goes through the sparse points, and nothing stands before them."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.bounds.sphere import to_unit_sphere
from models.capabilities import SDF, Offer
from models.losses.base import DataNeeds, LossConfig, Step, mean_of
from models.losses.sdf_depth import in_front
from utils.random_stream import uniform


class PointsLoss(LossConfig):
    """The sdf at sparse points, and before them on the lines of sight that found them; within the unit sphere.

    |sdf| at the points, Fu et al., "Geo-Neus" (2022), section 4.2, as far as it exceeds what a point may be off: there
    the pictures decide. Before the points `in_front` of a surface. Sum of both means over all ranks' points. Zero where
    the data have, or show, too few points.
    """

    type: Literal["points"] = "points"
    needs: ClassVar[frozenset[Offer]] = frozenset({SDF})
    count: int = Field(512, ge=1, le=1 << 24, description="points per step and rank, and as many before them")
    band: float = Field(0.03, gt=0, description="no space is asked to be free nearer before a point, scene units")

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(points=True)

    def __call__(self, step: Step) -> Tensor:
        if step.points is None or not step.points.within:
            return step.rendering.depth.new_zeros(())
        count = math.ceil(self.count * step.batch.share)
        drawn = step.points.drawn(count)
        point = drawn.point
        back = to_unit_sphere(point, -drawn.toward)
        ahead = self.band + uniform((count,), point.device) * (back - self.band).clamp_min(0)
        beside = point - ahead[:, None] * drawn.toward
        value = step.model.foreground.value(torch.cat([point, beside]))
        on, before = value.split(count)
        valid = point.norm(dim=-1) < 1
        off = (on.abs() - drawn.doubt).clamp_min(0)
        return mean_of(off, valid) + mean_of(in_front(before, ahead), valid & (back > self.band))
