"""Patches of the surface look alike in other photographs, whatever their exposure (Geo-Neus, NeuralWarp)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.bounds.sphere import to_unit_sphere
from models.capabilities import GRADIENT, SDF, Offer
from models.losses.base import DataNeeds, LossConfig, Step, mean_of, surface_hits
from models.model import Model

if TYPE_CHECKING:
    from dataio.cameras import Rays
    from dataio.source_views import SourceViews

NEWTON = 2  # steps along the ray, from the mean distance to the zero
LONGEST = 0.02  # of a step, scene units
CONVERGED = 2e-3  # scene units
GRAZING = 0.2  # cosine of ray and normal
FLAT = 0.2  # of half a patch's diagonal: as far from its plane the surface may be at its corners
CONTRAST = 0.01  # standard deviation of a patch that says anything
BETWEEN = 6  # values on the way to another view, which tell whether it sees the point


class PatchNccLoss(LossConfig):
    """1 - NCC of gray patches in the photograph of a ray and in others that see the surface point, mean of the best.

    The patch lies on the tangent plane at the zero of the sdf along the ray. Its pixels go through the plane by rays
    and by `Cameras.project`, so that every lens will do. Mean over points with texture that enough others see, and over
    all ranks. Differentiable in the sdf at the points and, with `tilt`, in their normals, whose gradient reaches the
    finest tables of a grid hundreds of times as strongly. Fu et al., "Geo-Neus" (2022), section 4.3, without `tilt`;
    Darmon et al., "NeuralWarp" (2022), section 3.2.
    """

    type: Literal["patch_ncc"] = "patch_ncc"
    needs: ClassVar[frozenset[Offer]] = frozenset({SDF, GRADIENT})
    points: int = Field(256, ge=1, le=1 << 24, description="at most this many surface points per step")
    side: int = Field(7, ge=3, le=31, description="of a patch, pixels of its photograph; 11 for 1600 of them a side")
    sources: int = Field(6, ge=1, le=64, description="photographs that are looked into for each point, the nearest")
    best: int = Field(2, ge=1, description="of them count: those where the patch looks most alike")
    tilt: bool = Field(False, description="also learn from it how the surface is tilted")

    @model_validator(mode="after")
    def _enough_sources(self) -> PatchNccLoss:
        if self.best > self.sources:
            raise ValueError(f"best: got {self.best} of {self.sources} sources; expected at most as many")
        return self

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(views=self.sources)

    def __call__(self, step: Step) -> Tensor:
        views = step.views
        if views is None:
            raise TypeError("a loss on other photographs needs them")
        hit, distance, valid = surface_hits(step.rendering, self.points)
        rays = step.rendering.media[0].samples.rays[hit]
        if len(rays) == 0:
            return distance.sum()
        point, normal, sound = on_surface(step.model, rays, distance)
        normal = normal if self.tilt else normal.detach()
        patch, whole = self._patch(views, rays, point, normal)
        source = views.beside(rays.camera, self.sources)
        here, within = views.grays(patch.detach().flatten(0, 1), rays.camera.repeat_interleave(patch.shape[1]))
        here, within = here.view(len(rays), 1, -1), within.view(len(rays), -1).all(1)
        everywhere = patch[:, None].expand(-1, self.sources, -1, -1)
        there, seen = views.grays(everywhere.flatten(0, 2), source.repeat_interleave(patch.shape[1]))
        there, seen = there.view(*source.shape, -1), seen.view(*source.shape, -1).all(2)
        seen = seen & unhidden(step.model, views, point.detach(), source)
        cost = torch.where(seen, 1 - ncc(here, there), torch.inf)
        chosen = cost.topk(self.best, dim=1, largest=False).values
        enough = chosen.isfinite().all(1) & (here.std(-1)[:, 0] > CONTRAST)
        chosen = torch.where(enough[:, None], chosen, 0.0)
        flat = lies_on(step.model, patch.detach(), self.side)
        return mean_of(chosen.mean(1), valid & sound & whole & within & enough & flat)

    def _patch(self, views: SourceViews, rays: Rays, point: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """[P, A, 3] where the pixels around a point's own meet its tangent plane, and whether all do, [P].

        Differentiable in points and normals [P, 3].
        """
        reach = torch.arange(self.side, device=point.device) - self.side // 2
        offset = torch.cartesian_prod(reach, reach).to(point.dtype)
        pixel, _ = views.cameras.project(point.detach(), rays.camera)
        around = views.cameras.rays(rays.camera.repeat_interleave(len(offset)), (pixel[:, None] + offset).flatten(0, 1))
        origin, direction = around.origins.view(len(point), -1, 3), around.directions.view(len(point), -1, 3)
        slope = (direction * normal[:, None]).sum(-1)
        whole = (slope < -GRAZING / 2).all(1)
        along = ((point[:, None] - origin) * normal[:, None]).sum(-1) / slope.clamp_max(-GRAZING / 2)
        return origin + along[..., None] * direction, whole


def on_surface(model: Model, rays: Rays, distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros [P, 3] of the sdf along rays near given distances [P], unit normals [P, 3], and which are sound, [P].

    Points and normals are differentiable in the model's parameters, once: a point moves along its ray by what the sdf
    there changes, over its slope.
    """
    with torch.no_grad():
        for _ in range(NEWTON):
            x = rays.at(distance)
            slope = (model.gradient(x) * rays.directions).sum(-1).clamp_max(-GRAZING)
            distance = distance - (model.foreground.value(x) / slope).clamp(-LONGEST, LONGEST)
    x = rays.at(distance)
    value, gradient = model.foreground.value(x), model.gradient(x)
    normal = torch.nn.functional.normalize(gradient, dim=-1)
    slope = (gradient * rays.directions).sum(-1).detach()
    moved = (value - value.detach()) / slope.clamp_max(-GRAZING)
    facing = (normal * rays.directions).sum(-1) < -GRAZING
    return x - moved[:, None] * rays.directions, normal, (value.detach().abs() < CONVERGED) & facing


@torch.no_grad()
def lies_on(model: Model, patch: Tensor, side: int) -> Tensor:
    """[P] whether the surface is near the corners and the middles of the sides of patches [P, side * side, 3].

    It is not where a patch reaches over a silhouette, onto what lies behind.
    """
    last, middle = side - 1, side // 2
    places = [row * side + column for row in (0, middle, last) for column in (0, middle, last)]
    rim = patch[:, places]
    half = (rim[:, 0] - rim[:, 8]).norm(dim=-1, keepdim=True) / 2
    return (model.foreground.value(rim).abs() < FLAT * half).all(1)


@torch.no_grad()
def unhidden(model: Model, views: SourceViews, points: Tensor, source: Tensor) -> Tensor:
    """[P, S] whether nothing stands between points [P, 3] and views [P, S], as far as the unit sphere reaches."""
    toward = torch.nn.functional.normalize(views.cameras.centers[source] - points[:, None], dim=-1)
    reach = to_unit_sphere(points[:, None], toward)
    share = (torch.arange(BETWEEN, device=points.device) + 1) / (BETWEEN + 1)
    between = points[:, None, None] + (share * reach[..., None])[..., None] * toward[:, :, None]
    return (model.foreground.value(between) > 0).all(-1)


def ncc(a: Tensor, b: Tensor) -> Tensor:
    """[*N] normalized cross-correlation over the last axis of [*N, A], in [-1, 1]. Differentiable in both."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    spread = a.square().mean(-1) * b.square().mean(-1)
    return (a * b).mean(-1) / (spread + 1e-10).sqrt()
