"""Rendered against measured depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor
from torch.nn import functional as F

from models.losses.base import LossConfig, huber, shared_mean
from models.model import Model
from models.volume import Rendering

if TYPE_CHECKING:
    from dataio.batches import RayBatch


class DepthLoss(LossConfig):
    """Distance between the rendered and the measured depth along the ray, mean over rays with one; scene units."""

    type: Literal["depth"] = "depth"
    norm: Literal["l1", "huber"] = "l1"

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        if batch.depth is None:
            return rendering.depth.new_zeros(())
        known = batch.depth > 0
        distance = huber if self.norm == "huber" else F.l1_loss
        per_ray = distance(rendering.depth, batch.depth, reduction="none") * known
        return shared_mean(batch.weighed(per_ray), batch.total_measured())
