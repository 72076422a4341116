"""Colors of single samples."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.losses.base import LossConfig, Step


class PointColorLoss(LossConfig):
    """Squared distance of each sample's color to its ray's, by its weight, mean over rays and channels.

    Of the first medium. The weights are constants: each sample learns a color, none is moved. Sun et al., "DVGO"
    (2022), eq. 12.
    """

    type: Literal["point_color"] = "point_color"

    def __call__(self, step: Step) -> Tensor:
        part = step.rendering.media[0]
        off = (part.color - part.samples.spread(step.batch.color)).square().mean(-1)
        return step.mean(part.samples.total(part.weight().detach() * off))
