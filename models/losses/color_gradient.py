"""Differences of neighboring pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from models.losses.base import LossConfig, shared_mean
from models.losses.patches import in_patches
from models.model import Model
from models.volume import Rendering

if TYPE_CHECKING:
    from dataio.batches import RayBatch


class ColorGradientLoss(LossConfig):
    """L1 between the differences of neighboring pixels, rendered and seen, mean over neighbors and channels.

    The gradient term of Mathieu et al., "Deep multi-scale video prediction" (2016), eq. 6, for alpha = 1; signed.
    """

    type: Literal["color_gradient"] = "color_gradient"

    @property
    def least_patch(self) -> int:
        return 2

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        off = in_patches(rendering.color - batch.color, batch.patch)
        return shared_mean(torch.cat([off.diff(dim=-1).flatten(), off.diff(dim=-2).flatten()]).abs())
