"""Rays that hit or miss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.losses.base import LossConfig, Step


class EntropyLoss(LossConfig):
    """Entropy of a ray's opacity in the first medium, in nats, mean over rays: a ray should hit or miss."""

    type: Literal["entropy"] = "entropy"
    margin: float = Field(1e-3, gt=0, lt=0.5, description="the opacity is cut to [margin, 1 - margin]")

    def __call__(self, step: Step) -> Tensor:
        hit = step.rendering.opacity.clamp(self.margin, 1 - self.margin)
        return step.mean(-hit * hit.log() - (1 - hit) * (1 - hit).log())


class BetaLoss(LossConfig):
    """log T + log(1 - T), T the transmittance of the first medium, mean over rays: negative, low where T is 0 or 1.

    Fridovich-Keil, Yu et al., "Plenoxels" (2022), section 3.4, after Lombardi et al., "Neural Volumes" (2019).
    """

    type: Literal["beta"] = "beta"
    margin: float = Field(1e-3, gt=0, lt=0.5, description="T is cut to [margin, 1 - margin]")

    def __call__(self, step: Step) -> Tensor:
        hit = step.rendering.opacity.clamp(self.margin, 1 - self.margin)
        return step.mean(hit.log() + (1 - hit).log())
