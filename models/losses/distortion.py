"""Weights that lie close together on a ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from models.losses.base import LossConfig, shared_mean
from models.model import Model
from models.volume import Rendering

if TYPE_CHECKING:
    from dataio.batches import RayBatch


class DistortionLoss(LossConfig):
    """Spread of a ray's weights in the first medium, mean over rays; zero for one thin layer.

    Barron et al., "Mip-NeRF 360" (2022), eq. 15, in scene units.
    """

    type: Literal["distortion"] = "distortion"

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        part = rendering.media[0]
        samples, weight = part.samples, part.weight()
        middle = (samples.t0 + samples.t1) / 2
        # Pairs i < j, by running sums: sum_j w_j (t_j sum_i w_i - sum_i w_i t_i).
        apart = weight * (middle * samples.exclusive_sum(weight) - samples.exclusive_sum(weight * middle))
        thick = weight.square() * (samples.t1 - samples.t0) / 3
        return shared_mean(batch.weighed(samples.total(2 * apart + thick)))
