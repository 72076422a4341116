"""Rendered against measured depth."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.kernels.rays.distances import distance
from models.losses.base import DataNeeds, LossConfig, Step


class DepthLoss(LossConfig):
    """Distance between the rendered and the measured depth along the ray, mean over rays with one; scene units."""

    type: Literal["depth"] = "depth"
    norm: Literal["l1", "huber"] = "l1"

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(pixels=("depth",))

    def __call__(self, step: Step) -> Tensor:
        if step.batch.depth is None:
            return step.rendering.depth.new_zeros(())
        measured = step.batch.depth
        per_ray = distance(step.rendering.depth[:, None], measured[:, None], self.norm) * (measured > 0)
        return step.mean(per_ray, step.batch.total_measured())
