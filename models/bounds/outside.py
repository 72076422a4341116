"""What lies beyond the unit sphere: a background."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from models.bounds.base import Bounds, BoundsConfig
from models.capabilities import OUTSIDE, Offer
from models.kernels.rays.march import clipped

if TYPE_CHECKING:
    from dataio.cameras import Rays


class OutsideBoundsConfig(BoundsConfig):
    """Beyond the unit sphere of the scene frame; a field there brings its own coordinates (`field.type: outside`)."""

    type: Literal["outside"] = "outside"
    region: ClassVar[Offer] = OUTSIDE

    def build(self) -> OutsideBounds:
        return OutsideBounds()


class OutsideBounds(Bounds):
    """|x| >= 1. A ray's piece starts where it leaves the sphere, or at its closest point where it misses it."""

    def clip(self, rays: Rays) -> Rays:
        """Rays [R] -> their pieces [R] behind the sphere; see `Bounds.clip`."""
        near, far = clipped(rays.origins, rays.directions, rays.near, rays.far, beyond=True)
        return replace(rays, near=near, far=far)

    def contains(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N] bool; see `Bounds.contains`."""
        return x.square().sum(-1) >= 1
