"""Rendered against measured depth."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from models.losses.base import DataNeeds, LossConfig, Step, huber


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
        known = step.batch.depth > 0
        distance = huber if self.norm == "huber" else F.l1_loss
        per_ray = distance(step.rendering.depth, step.batch.depth, reduction="none") * known
        return step.mean(per_ray, step.batch.total_measured())
