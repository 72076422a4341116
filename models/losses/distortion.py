"""Weights that lie close together on a ray."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.losses.base import LossConfig, Step


class DistortionLoss(LossConfig):
    """Spread of a ray's weights in the first medium, mean over rays; zero for one thin layer.

    Barron et al., "Mip-NeRF 360" (2022), eq. 15, in scene units.
    """

    type: Literal["distortion"] = "distortion"

    def __call__(self, step: Step) -> Tensor:
        part = step.rendering.media[0]
        samples, weight = part.samples, part.weight()
        middle = (samples.t0 + samples.t1) / 2
        # Pairs i < j, by running sums: sum_j w_j (t_j sum_i w_i - sum_i w_i t_i).
        apart = weight * (middle * samples.exclusive_sum(weight) - samples.exclusive_sum(weight * middle))
        thick = weight.square() * (samples.t1 - samples.t0) / 3
        return step.mean(samples.total(2 * apart + thick))
