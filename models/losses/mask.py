"""The opacity of rays against masks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.losses.base import DataNeeds, LossConfig, Step


class MaskLoss(LossConfig):
    """Binary cross entropy between the opacity of the first medium and the mask; nothing without masks."""

    type: Literal["mask"] = "mask"
    margin: float = Field(1e-3, gt=0, lt=0.5, description="the opacity is cut to [margin, 1 - margin]")

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(pixels=("mask",))

    def __call__(self, step: Step) -> Tensor:
        if step.batch.mask is None:
            return step.rendering.opacity.new_zeros(())
        opacity = step.rendering.opacity.clamp(self.margin, 1 - self.margin)
        return step.mean(F.binary_cross_entropy(opacity, step.batch.mask, reduction="none"))
