"""The one renderer: media along a ray, near to far, composed by optical depth.

    T_i = exp(-sum_{j<i} tau_j)    w_i = T_i (1 - exp(-tau_i))    color = sum_i w_i c_i + T_end * background

NeRF, NeRF++, NeuS, VolSDF and UNISURF differ in how a value becomes tau and in where they sample; nothing here asks
which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.capabilities import Bounds, misfits_of_medium, misfits_of_volume, refuse
from models.capacity import Capacity
from models.fields.base import FieldConfig
from models.kernels.rays.march import clipped
from models.opacities.base import OpacityConfig
from models.samplers.base import SamplerConfig
from models.samples import MediumRendering, RaySamples, compact_indices, gather_padded
from utils.config.parts import Choice, StrictModel

if TYPE_CHECKING:
    from dataio.cameras import Rays

# A medium is not evaluated behind less transmittance than this: it could not change an 8-bit color.
VISIBLE = 1e-3


class VolumeConfig(StrictModel):
    """A field and an opacity."""

    field: Choice[FieldConfig]
    opacity: Choice[OpacityConfig]

    @model_validator(mode="after")
    def _volume_fits(self) -> Self:
        refuse(misfits_of_volume(self.field, self.opacity))
        return self


class MediumConfig(VolumeConfig):
    """Bounds on every ray, a sampler, and the volume within: field and opacity."""

    bounds: Bounds
    sampler: Choice[SamplerConfig]

    @model_validator(mode="after")
    def _medium_fits(self) -> Self:
        refuse(misfits_of_medium(self.bounds, self.field, self.sampler))
        return self


class Volume(nn.Module):
    """A field and an opacity: values at points, and renderings of samples along rays."""

    def __init__(self, config: VolumeConfig) -> None:
        super().__init__()
        self.field = config.field.build()
        self.opacity = config.opacity.build()

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N] field value. Differentiable in x and the parameters, once."""
        return self.field.value(x)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] field values -> [*N] bool: whether points within `reach` may matter to a ray; see `Opacity.occupied`."""
        return self.opacity.occupied(value, reach)

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] from field values [*N]; see `Opacity.estimated_optical_depth`."""
        return self.opacity.estimated_optical_depth(value, samples)

    @property
    def has_width(self) -> bool:
        """Whether `width` is known; does not synchronize with a GPU, as reading it does."""
        return self.opacity.has_width

    def width(self) -> float | None:
        """Distance in scene units over which the opacity rises at the surface; None where it has no such scale."""
        return self.opacity.width()

    def surface_value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N], zero on the surface, positive outside; scene units for an sdf.

        Differentiable in x and the parameters, once.
        """
        return (self.value(x) - self.opacity.surface_level) * self.opacity.outside_sign

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
        self.field.update(progress)
        self.opacity.update(progress)

    def render(self, samples: RaySamples, proposal: MediumRendering | None = None) -> MediumRendering:
        """Evaluate field and opacity at samples."""
        field = self.field(samples.positions, samples.directions)
        tau = self.opacity.optical_depth(field, samples)
        return MediumRendering(samples, field, tau, proposal, outward=self.opacity.outside_sign)


class Medium(Volume):
    """Bounds, sampler, field and opacity: the foreground, the background."""

    def __init__(self, config: MediumConfig) -> None:
        super().__init__(config)
        self.bounds = config.bounds
        self.sampler = config.sampler.build()

    def update(self, progress: float) -> None:
        super().update(progress)
        self.sampler.update(progress)

    def forward(self, rays: Rays) -> MediumRendering:
        return self.render(*self.sampler.propose(clip(rays, self.bounds), self))


@dataclass(frozen=True)
class Rendering:
    """R rays, rendered.

    color: [R, 3] in [0, 1]. opacity: [R] of the first medium, 1 - transmittance. depth: [R] mean ray distance
    (scene units) by the weights of all media, 0 where there are none. normal: [R, 3] weighted mean of unit gradients
    in the first medium, scene frame, not normalized. media: per medium its samples, for the losses; a medium behind
    others holds only the rays that reach it. proposed: [R, 3] the color by the media's proposals, None without any.
    overflowed: [] bool, whether samples or rays are missing that exceeded a capacity (`models.capacity`); None: there
    is none.
    """

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    media: list[MediumRendering]
    proposed: Tensor | None = None
    overflowed: Tensor | None = None


def render_rays(
    rays: Rays,
    media: Sequence[Callable[[Rays], MediumRendering]],
    background: Tensor,
    capacity: Capacity | None = None,
) -> Rendering:
    """Compose media from near to far over a background color [3].

    capacity: a stage for the rays that reach each medium but the first; None: as many as do.
    Differentiable in the parameters of fields and opacities, and in origins and directions of the rays at fixed
    distances of the samples, once. Colors are, transmittances and depths too, normals are not.
    """
    fine, coarse, opacity = Accumulated.start(rays), None, rays.origins.new_zeros(len(rays))
    parts: list[MediumRendering] = []
    stages = None if capacity is None else capacity.stages()
    for medium in media:
        transmittance = fine.transmittance
        if coarse is not None:
            transmittance = torch.maximum(transmittance, coarse.transmittance)
        reached = None
        if parts:
            visible = transmittance.detach() > VISIBLE
            reached = compact_indices(visible, None) if stages is None else stages.compact_indices(visible)
        part = medium(rays if reached is None else rays[reached.clamp_max(len(rays) - 1)])
        if part.proposal is not None or coarse is not None:
            coarse = (coarse or fine).through(part.proposal or part, reached)
        fine = fine.through(part, reached)
        opacity = opacity if parts else 1 - fine.transmittance
        parts.append(part)
    total = opacity if len(parts) == 1 else 1 - fine.transmittance
    depth = torch.where(total > VISIBLE, fine.sums[:, 3] / total.clamp_min(VISIBLE), torch.zeros_like(total))
    proposed = None if coarse is None else coarse.color(background)
    overflows = [part.samples.overflow() for part in parts] + [None if stages is None else stages.overflow()]
    known = [overflow for overflow in overflows if overflow is not None]
    overflowed = torch.stack(known).any() if known else None
    return Rendering(fine.color(background), opacity, depth, fine.sums[:, 4:].detach(), parts, proposed, overflowed)


@dataclass(frozen=True)
class Accumulated:
    """What R rays have accumulated so far.

    sums: [R, 7] color, ray distance and normal, each times the weight of its sample. transmittance: [R] in [0, 1], of
    all intervals so far.
    """

    sums: Tensor
    transmittance: Tensor

    @staticmethod
    def start(rays: Rays) -> Accumulated:
        """In front of the first medium: sums [R, 7] of zero, transmittance [R] of one."""
        return Accumulated(rays.origins.new_zeros(len(rays), 7), rays.origins.new_ones(len(rays)))

    def through(self, part: MediumRendering, reached: Tensor | None) -> Accumulated:
        """Behind a medium that the rays `reached` [K] go through; None: the first one, which all rays reach.

        The padding of `reached` (`models.samples.compact_indices`) goes to one row more than there are rays, which is
        dropped. Differentiable in what both have accumulated.
        """
        sums, transmittance = part.accumulate()
        if reached is None:
            return Accumulated(sums, transmittance)
        ahead, rays = gather_padded(self.transmittance, reached), len(self.transmittance)
        sums = F.pad(self.sums, (0, 0, 0, 1)).index_add(0, reached, ahead[:, None] * sums)
        behind = F.pad(self.transmittance, (0, 1)).index_copy(0, reached, ahead * transmittance)
        return Accumulated(sums[:rays], behind[:rays])

    def color(self, background: Tensor) -> Tensor:
        """[R, 3] in front of a background color [3]. Differentiable in both."""
        return self.sums[:, :3] + self.transmittance[:, None] * background


def clip(rays: Rays, bounds: str) -> Rays:
    """The part of each ray inside ("sphere") or beyond ("outside") the unit sphere; see `rays.march.clipped`."""
    near, far = clipped(rays.origins, rays.directions, rays.near, rays.far, beyond=bounds == "outside")
    return replace(rays, near=near, far=far)
