"""The opacity of rays against masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.losses.base import LossConfig, shared_mean
from models.model import Model
from models.volume import Rendering

if TYPE_CHECKING:
    from dataio.batches import RayBatch


class MaskLoss(LossConfig):
    """Binary cross entropy between the opacity of the first medium and the mask; nothing without masks."""

    type: Literal["mask"] = "mask"
    margin: float = Field(1e-3, gt=0, lt=0.5, description="the opacity is cut to [margin, 1 - margin]")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        if batch.mask is None:
            return rendering.opacity.new_zeros(())
        opacity = rendering.opacity.clamp(self.margin, 1 - self.margin)
        return shared_mean(batch.weighed(F.binary_cross_entropy(opacity, batch.mask, reduction="none")))
