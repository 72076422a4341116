"""Structural similarity of patches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.losses.base import DataNeeds, LossConfig, Step, shared_mean
from models.losses.patches import in_patches
from utils.evaluation.image_metrics import gaussian_window, structural_similarity


class StructureLoss(LossConfig):
    """1 - SSIM of each patch, mean over the windows that lie wholly in it and over channels; in [0, 2].

    K1 = 0.01, K2 = 0.03, data range 1, covariances of the population. Wang et al. (2004), eq. 13.
    """

    type: Literal["structure"] = "structure"
    window: int = Field(7, ge=2, le=1024, description="side of the windows, pixels")
    sigma: float | None = Field(None, gt=0, description="of a Gaussian window, pixels; null: all pixels count alike")

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(patch=self.window)

    def __call__(self, step: Step) -> Tensor:
        color, target = (in_patches(each, step.batch.patch) for each in (step.rendering.color, step.batch.color))
        window = color.new_full((self.window,), 1 / self.window)
        if self.sigma is not None:
            window = gaussian_window(self.window, self.sigma).to(color)
        return shared_mean(1 - structural_similarity(color, target, window))
