"""Densities that are mostly zero."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from models.losses.base import LossConfig, Step


class SparsityLoss(LossConfig):
    """log(1 + 2 sigma^2) of the densities of a ray's samples in the first medium, summed up; mean over rays.

    sigma: optical depth per scene unit. The logarithm of a Cauchy distribution: most samples are driven to nothing, the
    few that are needed are not. Fridovich-Keil, Yu et al., "Plenoxels" (2022), section 3.3, after Hedman et al.,
    "SNeRG" (2021).
    """

    type: Literal["sparsity"] = "sparsity"

    def __call__(self, step: Step) -> Tensor:
        part = step.rendering.media[0]
        density = part.tau / part.samples.length.clamp_min(1e-9)
        return step.mean(part.samples.total(torch.log1p(2 * density.square())))
