"""What lies beyond the unit sphere: a background."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
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
    from_camera: bool = Field(
        False,
        description="whether rays are looked at from the camera on, as for ground before the sphere, and not from where"
        " they leave the sphere, or are closest to its center, as published",
    )

    @property
    def in_two(self) -> bool:
        return self.from_camera

    def build(self) -> OutsideBounds:
        return OutsideBounds(from_camera=self.from_camera)


class OutsideBounds(Bounds):
    """|x| >= 1. A ray's piece starts where it leaves the sphere, or at its closest point where it misses it."""

    def __init__(self, *, from_camera: bool = False) -> None:
        super().__init__()
        self.from_camera = from_camera

    def clip(self, rays: Rays) -> Rays:
        """Rays [R] -> their pieces [R] behind the sphere; see `Bounds.clip`."""
        near, far = clipped(rays.origins, rays.directions, rays.near, rays.far, beyond=True)
        return replace(rays, near=near, far=far)

    def before(self, rays: Rays) -> Rays:
        """Rays [R] -> their pieces [R] before the sphere, or before their closest point where they miss it.

        Empty for a camera within the sphere, or one that looks away. Differentiable as `Bounds.clip`.
        """
        entry, left = clipped(rays.origins, rays.directions, rays.near, rays.far)
        misses = left <= entry
        closest, _ = clipped(rays.origins, rays.directions, rays.near, rays.far, beyond=True)
        return replace(rays, far=torch.where(misses, closest, entry))

    def contains(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N] bool; see `Bounds.contains`."""
        return x.square().sum(-1) >= 1

