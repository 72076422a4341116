"""The distance of colors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.kernels.rays.distances import Norm, distance
from models.losses.base import DataNeeds, LossConfig, Step


class ColorLoss(LossConfig):
    """Distance of colors, mean over rays and channels; that of proposals, where there are any, is added."""

    type: Literal["color"] = "color"
    norm: Norm = "l1"
    masked: bool = Field(False, description="count only rays within the masks, as NeuS does with masks")

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(pixels=("mask",) if self.masked else ())

    def __call__(self, step: Step) -> Tensor:
        loss, proposed = self._distance(step.rendering.color, step), step.rendering.proposed
        return loss if proposed is None else loss + self._distance(proposed, step)

    def _distance(self, color: Tensor, step: Step) -> Tensor:
        per_ray = distance(color, step.batch.color, self.norm)
        if self.masked and step.batch.mask is not None:
            return step.mean(per_ray * step.batch.mask, step.batch.total_mask())
        return step.mean(per_ray)
