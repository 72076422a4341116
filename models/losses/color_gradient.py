"""Differences of neighboring pixels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from models.losses.base import DataNeeds, LossConfig, Step, shared_mean
from models.losses.patches import in_patches


class ColorGradientLoss(LossConfig):
    """L1 between the differences of neighboring pixels, rendered and seen, mean over neighbors and channels.

    The gradient term of Mathieu et al., "Deep multi-scale video prediction" (2016), eq. 6, for alpha = 1; signed.
    """

    type: Literal["color_gradient"] = "color_gradient"

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(patch=2)

    def __call__(self, step: Step) -> Tensor:
        off = in_patches(step.rendering.color - step.batch.color, step.batch.patch)
        return shared_mean(torch.cat([off.diff(dim=-1).flatten(), off.diff(dim=-2).flatten()]).abs())
