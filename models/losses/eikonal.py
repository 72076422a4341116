"""The gradient of a signed distance has length one."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.capabilities import GRADIENT, SDF, Offer
from models.kernels.networks.color_inputs import off_unit
from models.losses.base import LossConfig, Step, shared_mean
from models.volume import Medium
from utils.random_stream import normal, uniform

FARTHEST = 50.0  # scene units: of the places in the background


class EikonalLoss(LossConfig):
    """(|gradient| - 1)^2, mean over the first medium's samples. Gropp et al., "IGR" (2020), eq. 4.

    Also of a background that is a distance, in its own coordinates, at `random_points` in all: half of them its
    samples, half even in 1/r.
    """

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
            if step.model.background is not None and step.model.background.opacity.reads_distance:
                loss = loss + _of_background(step, step.model.background, points // 2)
        return loss


def _of_background(step: Step, background: Medium, count: int) -> Tensor:
    """[] the mean at so many of its samples, as far as rays reach it, and at so many places even in 1/r."""
    device = step.rendering.depth.device
    direction = torch.nn.functional.normalize(normal((count, 3), device), dim=-1)
    points = [direction / uniform((count, 1), device).clamp_min(1 / FARTHEST)]
    found = step.rendering.media[-1].samples.positions.reshape(-1, 3)
    if len(found):
        points.append(found[(uniform((count,), device) * len(found)).long().clamp_max(len(found) - 1)])
    gradient = background.field.own_gradient(torch.cat(points).detach())
    if gradient is None:
        raise TypeError("the eikonal loss of a background needs a field with a gradient of its own")
    return shared_mean(off_unit(gradient))
