"""The unit sphere: what a scene is looked at for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from models.bounds.base import Bounds, BoundsConfig
from models.kernels.rays.march import clipped

if TYPE_CHECKING:
    from dataio.cameras import Rays


class SphereConfig(BoundsConfig):
    """Inside the unit sphere of the scene frame."""

    type: Literal["sphere"] = "sphere"
    meets_outside: ClassVar[bool] = True

    def build(self) -> Sphere:
        return Sphere()


class Sphere(Bounds):
    """|x| <= 1."""

    def clip(self, rays: Rays) -> Rays:
        """Rays [R] -> their pieces [R] inside the sphere; see `Bounds.clip`."""
        near, far = clipped(rays.origins, rays.directions, rays.near, rays.far)
        return replace(rays, near=near, far=far)

    def contains(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N] bool; see `Bounds.contains`."""
        return x.square().sum(-1) <= 1


def to_unit_sphere(points: Tensor, directions: Tensor) -> Tensor:
    """[*N] distance from points [*N, 3] in the unit ball along unit directions [*N, 3] to the sphere.

    Differentiable in both, but at the sphere.
    """
    along = (points * directions).sum(-1)
    return (along.square() + 1 - points.square().sum(-1)).clamp_min(0).sqrt() - along
