"""What every opacity offers: field values to optical depth, the one thing besides sampling in which the methods differ.

Every opacity returns tau >= 0 per interval; the renderer needs nothing else. Signs: an sdf is positive outside.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from models.capabilities import DENSITY, LOGIT, SDF, Offer
from models.samples import FieldSample, RaySamples
from utils.config.parts import Part

# The opacity that a ray may miss in what an occupancy grid leaves out on one side of a surface.
NEGLIGIBLE = 5e-3


class OpacityConfig(Part):
    """Turns field values into optical depth.

    takes: the kinds of value that make sense to it. why: said where another is given.
    """

    takes: ClassVar[frozenset[Offer]] = frozenset({SDF, DENSITY, LOGIT})
    why: ClassVar[str] = ""

    @property
    def needs(self) -> frozenset[Offer]:
        """What the field must offer beside its value."""
        return frozenset()

    def misfit(self, kind: Offer) -> str:
        """Why values of this kind make no sense here, in words; empty where they do."""
        return "" if kind in self.takes else self.why

    def build(self) -> Opacity:
        raise TypeError("an opacity config says how it is built")


class Opacity(nn.Module):
    """FieldSample on an interval -> tau. Owns its learned scale (s, beta) and the value of the surface."""

    surface_level: float  # the field value of the surface
    outside_sign: float  # +1 where larger values are outside (sdf), -1 where larger values are inside (density)
    reads_distance: bool = False  # whether the values are distances to the surface, so that a ray may step by them
    has_width: bool = False  # whether it rises over a known distance there, `width`; reading that synchronizes

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        """tau [*N] >= 0. Differentiable in value, gradient, the rays' directions and the learned scale, once."""
        raise TypeError("an opacity defines optical_depth")

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """Whether points within `reach` (one or [*N]) of one with `value` [*N] may matter to a ray; bool [*N].

        reach: scene units, or the measure of a sampler's intervals. Not differentiable.
        """
        raise TypeError("an opacity defines occupied")

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """Optical depth [*N] from the middle of the interval before to the middle of each interval.

        An estimate from values [*N] alone. Its exclusive sum never counts what an interval itself absorbs. Not
        differentiable in general.
        """
        raise TypeError("an opacity defines estimated_optical_depth")

    def width(self) -> float | None:
        """Distance in scene units over which the opacity rises; None where it has no such scale."""
        return None

    def statistics(self) -> dict[str, float]:
        """Learned scales for the log."""
        return {}
