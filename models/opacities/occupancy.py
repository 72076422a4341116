"""UNISURF: the probability of being inside, sample by sample."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from models.capabilities import SDF, Offer
from models.opacities.base import NEGLIGIBLE, Opacity, OpacityConfig
from models.samples import FieldSample, RaySamples
from utils.config.schedule import Schedule, constant


class OccupancyConfig(OpacityConfig):
    """UNISURF: each sample is occupied, or not, by the probability of a logit."""

    type: Literal["occupancy"] = "occupancy"
    scale: float = Field(
        -10.0,
        description="logit per unit of value: -10 for a field that is positive outside, as published; 1 for logits",
    )
    sharpen: Schedule = Field(
        constant(1.0),
        description="multiplies the scale over the run; what is seen lies about 2 / scale in front of the value 0",
    )

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("should not be 0")
        return scale

    def misfit(self, kind: Offer) -> str:
        expected = "positive" if kind != SDF else "negative"
        if (self.scale > 0) == (kind != SDF):
            return ""
        return f"with scale: {self.scale:g} would make empty space opaque; expected a {expected} scale"

    def build(self) -> Occupancy:
        return Occupancy(self)


class Occupancy(Opacity):
    """tau = softplus(logit), logit = scale * value: 1 - exp(-tau) is the occupancy sigmoid(logit).

    Oechsle et al., "UNISURF" (2021), eq. 6. A sample's opacity does not depend on the length of its interval, but for
    an empty interval, which has none.
    """

    surface_level = 0.0
    scale: Tensor

    def __init__(self, config: OccupancyConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("scale", torch.zeros(()), persistent=False)
        self.outside_sign = -math.copysign(1.0, config.scale)
        # The slope of a distance is one, and so the length known over which the logit rises; that of others is not.
        self.has_width = self.outside_sign > 0
        self.update(0.0)

    def update(self, progress: float) -> None:
        self.scale.fill_(self.config.scale * self.config.sharpen(progress))

    def width(self) -> float | None:
        return 1 / abs(float(self.scale)) if self.has_width else None

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        """[*N] >= 0; see `Opacity.optical_depth`."""
        return self.estimated_optical_depth(sample.value, samples)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] -> [*N] bool; see `Opacity.occupied`."""
        # As if the field rose by one per scene unit. All of the inside counts: what hides it may have few samples.
        return F.softplus(self.scale * value + self.scale.abs() * reach) > NEGLIGIBLE

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] -> [*N] >= 0; see `Opacity.estimated_optical_depth`."""
        tau = F.softplus(self.scale * value)
        return torch.where(samples.length > 0, tau, torch.zeros_like(tau))
