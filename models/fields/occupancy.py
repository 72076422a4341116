"""Occupancy: a value that falls through zero at the surface, the logit of being inside but for a factor (UNISURF)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from models.capabilities import LOGIT, Offer
from models.fields.sdf import Sdf, SurfaceConfig
from models.samples import FieldSample, Points


class OccupancyFieldConfig(SurfaceConfig):
    """Larger inside; the opacity's `scale` (10, as published) makes the logit of it."""

    type: Literal["occupancy"] = "occupancy"
    value_kind: ClassVar[Offer] = LOGIT

    def build(self) -> OccupancyField:
        return OccupancyField(self)


class OccupancyField(Sdf):
    """value: minus a network f that is initialized to a sphere's signed distance, so that it is larger inside.

    Nothing keeps f a distance later: only its sign has a meaning.
    Oechsle et al., "UNISURF" (2021), section 3.1.
    """

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Field.value`."""
        return -super().value(x)

    def gradient(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, 3]; see `Field.gradient`."""
        return -super().gradient(x)

    def forward(self, at: Points) -> FieldSample:
        """Value, features [*N, F] and gradient at points `*N`; see `Field.forward`."""
        sample = super().forward(at)
        assert sample.gradient is not None
        return replace(sample, value=-sample.value, gradient=-sample.gradient)
