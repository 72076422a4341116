"""The one renderer: media along a ray, near to far, composed by optical depth.

    T_i = exp(-sum_{j<i} tau_j)    w_i = T_i (1 - exp(-tau_i))    color = sum_i w_i c_i + T_end * background

NeRF, NeRF++, NeuS, VolSDF and UNISURF differ in how a value becomes tau and in where they sample; nothing here asks
which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fields.base import FieldConfig
from models.opacity import OpacityConfig
from models.samplers.base import SamplerConfig
from models.samples import FieldSample, RaySamples
from utils.config import Choice, StrictModel

if TYPE_CHECKING:
    from dataio.cameras import Rays

# A medium is not evaluated behind less light than this: it could not change an 8-bit color.
VISIBLE = 1e-3


class MediumConfig(StrictModel):
    """A stretch of every ray, and what fills it."""

    bounds: Literal["sphere", "outside"]
    sampler: Choice[SamplerConfig]
    field: Choice[FieldConfig]
    opacity: Choice[OpacityConfig]


class Medium(nn.Module):
    """Bounds, sampler, field and opacity: the foreground, the background."""

    def __init__(self, config: MediumConfig) -> None:
        super().__init__()
        self.bounds = config.bounds
        self.sampler = config.sampler.build()
        self.field = config.field.build()
        self.opacity = config.opacity.build()

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N] field value."""
        return self.field.value(x)

    def occupied(self, value: Tensor, reach: float) -> Tensor:
        """[*N] field values -> bool [*N]: may points within `reach` (scene units) matter to a ray?"""
        return self.opacity.occupied(value, reach)

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        """Optical depth [*N] from the sample before to each sample, estimated from field values [*N]."""
        return self.opacity.probe(value, samples)

    def width(self) -> float | None:
        """Distance in scene units over which the opacity rises at the surface."""
        return self.opacity.width()

    def surface_value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N], zero on the surface, positive outside; scene units for an sdf."""
        return (self.value(x) - self.opacity.surface_level) * self.opacity.outside_sign

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
        for part in (self.sampler, self.field, self.opacity):
            part.update(progress)

    def forward(self, rays: Rays) -> MediumRendering:
        samples = self.sampler(clip(rays, self.bounds), self)
        field = self.field(samples.positions, samples.directions)
        tau = self.opacity.optical_depth(field, samples)
        return MediumRendering(samples, field, tau)


@dataclass(frozen=True)
class MediumRendering:
    """A medium along rays: samples [*N], what the field says there, optical depth tau [*N]."""

    samples: RaySamples
    field: FieldSample
    tau: Tensor

    def weight(self) -> Tensor:
        """[*N] share of a ray's light that ends in each interval, for light that enters the medium in full."""
        return torch.exp(-self.samples.exclusive_sum(self.tau)) * -torch.expm1(-self.tau)

    def seen(self) -> Tensor:
        """[R, 7] per ray: color, mean distance and normal, each times the weight; no normal without a gradient."""
        weight, gradient = self.weight()[..., None], self.field.gradient
        normal = torch.zeros_like(self.field.color) if gradient is None else F.normalize(gradient.detach(), dim=-1)
        return self.samples.total(
            torch.cat([self.field.color * weight, self.samples.t[..., None] * weight, normal * weight.detach()], -1)
        )


@dataclass(frozen=True)
class Rendering:
    """What R rays see.

    color: [R, 3] in [0, 1]. opacity: [R] share of light that ends in the first medium. depth: [R] mean ray distance
    (scene units) of the light that ends anywhere, 0 where none does. normal: [R, 3] weighted mean of unit gradients
    in the first medium, scene frame, not normalized. media: per medium its samples, for the losses; a medium behind
    others holds only the rays that reach it.
    """

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    media: list[MediumRendering]


def render_rays(rays: Rays, media: Sequence[Callable[[Rays], MediumRendering]], background: Tensor) -> Rendering:
    """Compose media from near to far over a background color [3].

    Differentiable in everything the fields and opacities own.
    """
    seen, light = rays.origins.new_zeros(len(rays), 7), [rays.origins.new_ones(len(rays))]
    parts: list[MediumRendering] = []
    for medium in media:
        reached = (light[-1].detach() > VISIBLE).nonzero()[:, 0]
        part = medium(rays[reached])
        ahead = light[-1][reached]
        seen = seen.index_add(0, reached, ahead[:, None] * part.seen())
        light.append(light[-1].index_copy(0, reached, ahead * torch.exp(-part.samples.total(part.tau))))
        parts.append(part)
    ended = 1 - light[-1]
    depth = torch.where(ended > VISIBLE, seen[:, 3] / ended.clamp_min(VISIBLE), torch.zeros_like(ended))
    color = seen[:, :3] + light[-1][:, None] * background
    return Rendering(color, opacity=1 - light[1], depth=depth, normal=seen[:, 4:].detach(), media=parts)


def clip(rays: Rays, bounds: str) -> Rays:
    """Near and far of the part of each ray inside ("sphere") or beyond ("outside") the unit sphere.

    Inside, a ray that misses the sphere becomes empty (far = near). Beyond, the medium starts where the ray leaves
    the sphere, or at its closest point to the center where it misses.
    """
    middle = -(rays.origins * rays.directions).sum(-1)
    height = (rays.origins + middle[:, None] * rays.directions).square().sum(-1)
    half = (1 - height).clamp_min(0).sqrt()
    if bounds == "sphere":
        near = torch.maximum(rays.near, middle - half)
        return replace(rays, near=near, far=torch.maximum(torch.minimum(rays.far, middle + half), near))
    return replace(rays, near=torch.maximum(rays.near, middle + half))
