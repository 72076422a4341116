"""Patches of the surface look alike in other photographs, whatever their exposure (Geo-Neus, NeuralWarp)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from models.bounds.sphere import to_unit_sphere
from models.capabilities import GRADIENT, SDF, Offer
from models.kernels.pixels.ncc import Photographs, plane_ncc
from models.losses.base import DataNeeds, LossConfig, Step, first_indices, mean_of, surface_hits
from models.model import Model
from models.samples import FieldSample, Points

if TYPE_CHECKING:
    from dataio.cameras import Rays
    from dataio.source_views import SourceViews

NEWTON = 2  # steps along the ray, from the mean distance to the zero
LONGEST = 0.02  # of a step, scene units
CONVERGED = 2e-3  # scene units
GRAZING = 0.2  # cosine of ray and normal
CONTRAST = 0.01  # standard deviation of a patch that says anything
BETWEEN = 6  # values on the way to another view, which tell whether it sees the point


class PatchNccLoss(LossConfig):
    """1 - NCC of gray patches in the photograph of a ray and in others that see the surface point, mean of the best.

    The patch lies on the tangent plane at the zero of the sdf along the ray, through which its pixels go to the other
    photographs; a bent lens is a pinhole camera over the size of a patch. Mean over points with texture that enough
    others see, and over all ranks. Differentiable in the sdf at the points and, with `tilt`, in their normals, whose
    gradient reaches the finest tables of a grid hundreds of times as strongly. Fu et al., "Geo-Neus" (2022), section
    4.3, without `tilt`; Darmon et al., "NeuralWarp" (2022), section 3.2.
    """

    type: Literal["patch_ncc"] = "patch_ncc"
    needs: ClassVar[frozenset[Offer]] = frozenset({SDF, GRADIENT})
    points: int = Field(128, ge=1, le=1 << 24, description="at most this many surface points per step")
    side: int = Field(7, ge=3, le=31, description="of a patch, pixels of its photograph, odd; 11 for 1600 a side")
    sources: int = Field(6, ge=1, le=64, description="photographs that are looked into for each point, the nearest")
    best: int = Field(2, ge=1, description="of them count: those where the patch looks most alike")
    cap: float = Field(2.0, gt=0, le=2, description="of a patch's 1 - NCC counts no more than this; 2: all")
    flatness: float = Field(
        0.5, gt=0, description="as far from its plane the surface may be at a patch's rim, in halves of its diagonal"
    )
    tilt: bool = Field(False, description="also learn from it how the surface is tilted")

    @model_validator(mode="after")
    def _enough_sources(self) -> PatchNccLoss:
        if self.best > self.sources:
            raise ValueError(f"best: got {self.best} of {self.sources} sources; expected at most as many")
        return self

    @field_validator("side")
    @classmethod
    def _has_a_middle(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError(f"got {side}; expected an odd number, so that a pixel is in the middle")
        return side

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
        distance, sound = on_patches(step.model, views, rays, distance, side=self.side, flatness=self.flatness)
        kept, valid = first_indices(valid & sound, self.points)
        rays, distance = rays[kept], distance[kept]
        cost, counts = self._costs(step.model, views, rays, distance)
        return mean_of(cost, valid & counts)

    def _costs(self, model: Model, views: SourceViews, rays: Rays, distance: Tensor) -> tuple[Tensor, Tensor]:
        """[P] mean cost of the best views of the surface at distances [P] along rays, and where it counts, [P]."""
        normal, shift = surface_at(model, rays, distance)
        point, source = rays.at(distance), views.beside(rays.camera, self.sources)
        photographs = views_of(views, point, torch.cat([rays.camera[:, None], source], 1))
        normal = normal if self.tilt else normal.detach()
        alike, seen, deviation = plane_ncc(normal, shift, photographs, side=self.side)
        seen = seen & unhidden(model, views, point, source)
        cost = torch.where(seen, 1 - alike, torch.inf).topk(self.best, dim=1, largest=False).values
        counts = cost.isfinite().all(1) & (deviation > CONTRAST)
        return torch.where(counts[:, None], cost.clamp_max(self.cap), 0.0).mean(1), counts


def views_of(views: SourceViews, points: Tensor, view: Tensor) -> Photographs:
    """The photographs [P, K] int64 as they see points [P, 3]; see `Photographs`."""
    local = views.cameras.near_points(points.repeat_interleave(view.shape[1], 0), view.flatten())
    return Photographs(views.gray, views.layout, view, local.view(*view.shape, -1))


@torch.no_grad()
def on_patches(
    model: Model, views: SourceViews, rays: Rays, distance: Tensor, *, side: int, flatness: float
) -> tuple[Tensor, Tensor]:
    """Distances [P] along rays, near given ones [P], where the sdf is zero, and whether a patch fits the surface, [P].

    side: of a patch, in pixels. flatness: how far from its plane the surface may be, as a share of half its diagonal.
    """
    for _ in range(NEWTON):
        found = field_at(model, rays, distance)
        distance = distance - (found.value / along(found, rays).clamp_max(-GRAZING)).clamp(-LONGEST, LONGEST)
    normal = normal_of(found)
    facing = (normal * rays.directions).sum(-1) < -GRAZING
    rim = rim_of(views, rays, (rays.at(distance), normal), side // 2)
    value = model.foreground.value(rim)
    return distance, (value[:, 4].abs() < CONVERGED) & facing & lies_on(value, rim, flatness)


def surface_at(model: Model, rays: Rays, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals [P, 3] where the sdf is zero, at distances [P] along rays, and how it moves along them, [P].

    The latter is 0, and differentiable: a point moves along its ray by what the sdf there changes, over its slope. Both
    are in the model's parameters, once.
    """
    found = field_at(model, rays, distance)
    normal = normal_of(found)
    moved = (found.value.detach() - found.value) / along(found, rays).detach().clamp_max(-GRAZING)
    return normal, moved * (normal * rays.directions).sum(-1).detach()


def field_at(model: Model, rays: Rays, distance: Tensor) -> FieldSample:
    """The field where rays have come to distances [P]. Differentiable in the model's parameters, once."""
    return model.foreground.field(Points(rays.at(distance), rays.directions))


def along(found: FieldSample, rays: Rays) -> Tensor:
    """[P] the slope of a field along rays. Differentiable in its gradient."""
    assert found.gradient is not None
    return (found.gradient * rays.directions).sum(-1)


def normal_of(found: FieldSample) -> Tensor:
    """[P, 3] unit vectors along a field's gradient. Differentiable in it."""
    assert found.gradient is not None
    return torch.nn.functional.normalize(found.gradient, dim=-1)


def rim_of(views: SourceViews, rays: Rays, plane: tuple[Tensor, Tensor], reach: int) -> Tensor:
    """[P, 9, 3] where pixels at a patch's corners, at the middles of its sides and, fifth, its own meet a plane.

    plane: points [P, 3] and normals [P, 3]. reach: pixels from the middle to a side.
    """
    step = torch.arange(-reach, reach + 1, reach, device=rays.origins.device)
    offset = torch.cartesian_prod(step, step).to(rays.origins.dtype)
    point, normal = plane
    pixel, _ = views.cameras.project(point, rays.camera)
    around = views.cameras.rays(rays.camera.repeat_interleave(len(offset)), (pixel[:, None] + offset).flatten(0, 1))
    origin, direction = around.origins.view(len(point), -1, 3), around.directions.view(len(point), -1, 3)
    slope = (direction * normal[:, None]).sum(-1).clamp_max(-GRAZING / 2)
    return origin + (((point[:, None] - origin) * normal[:, None]).sum(-1) / slope)[..., None] * direction


def lies_on(value: Tensor, rim: Tensor, flatness: float) -> Tensor:
    """[P] whether the surface is near patches' rims [P, 9, 3], by its values there [P, 9]: within a share,
    `flatness`, of half their diagonal.

    It is not where a patch reaches over a silhouette, onto what lies behind.
    """
    half = (rim[:, 0] - rim[:, 8]).norm(dim=-1, keepdim=True) / 2
    return (value.abs() < flatness * half).all(1)


@torch.no_grad()
def unhidden(model: Model, views: SourceViews, points: Tensor, source: Tensor) -> Tensor:
    """[P, S] whether nothing stands between points [P, 3] and views [P, S], as far as the unit sphere reaches."""
    toward = torch.nn.functional.normalize(views.cameras.centers[source] - points[:, None], dim=-1)
    reach = to_unit_sphere(points[:, None], toward)
    share = (torch.arange(BETWEEN, device=points.device) + 1) / (BETWEEN + 1)
    between = points[:, None, None] + (share * reach[..., None])[..., None] * toward[:, :, None]
    return (model.foreground.value(between) > 0).all(-1)
