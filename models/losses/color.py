"""The distance of colors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.losses.base import DataNeeds, LossConfig, Step, huber


class ColorLoss(LossConfig):
    """Distance of colors, mean over rays and channels; that of proposals, where there are any, is added."""

    type: Literal["color"] = "color"
    norm: Literal["l1", "l2", "huber"] = "l1"
    masked: bool = Field(False, description="count only rays within the masks, as NeuS does with masks")

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(pixels=("mask",) if self.masked else ())

    def __call__(self, step: Step) -> Tensor:
        loss, proposed = self._distance(step.rendering.color, step), step.rendering.proposed
        return loss if proposed is None else loss + self._distance(proposed, step)

    def _distance(self, color: Tensor, step: Step) -> Tensor:
        distances: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": huber}
        per_ray = distances[self.norm](color, step.batch.color, reduction="none").mean(-1)
        if self.masked and step.batch.mask is not None:
            return step.mean(per_ray * step.batch.mask, step.batch.total_mask())
        return step.mean(per_ray)
