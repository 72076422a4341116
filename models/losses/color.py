"""The distance of colors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.losses.base import LossConfig, huber, shared_mean
from models.model import Model
from models.volume import Rendering

if TYPE_CHECKING:
    from dataio.batches import RayBatch


class ColorLoss(LossConfig):
    """Distance of colors, mean over rays and channels; that of proposals, where there are any, is added."""

    type: Literal["color"] = "color"
    norm: Literal["l1", "l2", "huber"] = "l1"
    masked: bool = Field(False, description="count only rays within the masks, as NeuS does with masks")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        loss = self._distance(rendering.color, batch)
        return loss if rendering.proposed is None else loss + self._distance(rendering.proposed, batch)

    def _distance(self, color: Tensor, batch: RayBatch) -> Tensor:
        distances: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": huber}
        per_ray = distances[self.norm](color, batch.color, reduction="none").mean(-1)
        if self.masked and batch.mask is not None:
            return shared_mean(batch.weighed(per_ray * batch.mask), batch.total_mask())
        return shared_mean(batch.weighed(per_ray))
