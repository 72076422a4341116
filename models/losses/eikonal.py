"""The gradient of a signed distance has length one."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from models.capabilities import GRADIENT, SDF, Offer
from models.kernels.networks.color_inputs import off_unit
from models.losses.base import LossConfig, Step, shared_mean


class EikonalLoss(LossConfig):
    """(|gradient| - 1)^2 of the first medium, mean over samples. Gropp et al., "IGR" (2020), eq. 4."""

    type: Literal["eikonal"] = "eikonal"
    needs: ClassVar[frozenset[Offer]] = frozenset({SDF, GRADIENT})
    random_points: int = Field(
        0, ge=0, le=1 << 24, description="also at this many random points of the unit ball per step"
    )

    def __call__(self, step: Step) -> Tensor:
        gradient = step.rendering.media[0].field.gradient
        if gradient is None:
            raise TypeError("the eikonal loss needs a field with a gradient")
        residual = off_unit(gradient)
        samples = step.rendering.media[0].samples
        loss = shared_mean(samples.total(residual), samples.count())
        if self.random_points:
            points = math.ceil(self.random_points * step.batch.share)
            near_and_far = off_unit(step.model.random_gradient(points, gradient.device))
            loss = loss + shared_mean(near_and_far)
        return loss
