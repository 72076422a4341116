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

from models.capabilities import Bounds, misfits_of_matter, misfits_of_medium, refuse
from models.capacity import Rooms
from models.fields.base import FieldConfig
from models.kernels.rays.sphere import clipped
from models.opacities.opacity import OpacityConfig
from models.samplers.base import SamplerConfig
from models.samples import FieldSample, RaySamples, picked, places
from utils.config.parts import Choice, StrictModel

if TYPE_CHECKING:
    from dataio.cameras import Rays

# A medium is not evaluated behind less light than this: it could not change an 8-bit color.
VISIBLE = 1e-3


class MatterConfig(StrictModel):
    """What fills a stretch of a ray."""

    field: Choice[FieldConfig]
    opacity: Choice[OpacityConfig]

    @model_validator(mode="after")
    def _matter_fits(self) -> Self:
        refuse(misfits_of_matter(self.field, self.opacity))
        return self


class MediumConfig(MatterConfig):
    """A stretch of every ray, what fills it, and where to look."""

    bounds: Bounds
    sampler: Choice[SamplerConfig]

    @model_validator(mode="after")
    def _medium_fits(self) -> Self:
        refuse(misfits_of_medium(self.bounds, self.field, self.sampler))
        return self


class Matter(nn.Module):
    """A field and an opacity: what can be asked about points, and how samples along rays look."""

    def __init__(self, config: MatterConfig) -> None:
        super().__init__()
        self.field = config.field.build()
        self.opacity = config.opacity.build()

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N] field value."""
        return self.field.value(x)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] field values -> bool [*N]: may points within `reach` (one or [*N], scene units) matter to a ray?"""
        return self.opacity.occupied(value, reach)

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        """Optical depth [*N] from the sample before to each sample, estimated from field values [*N]."""
        return self.opacity.probe(value, samples)

    @property
    def has_width(self) -> bool:
        """Whether `width` says something, which is known without waiting for a GPU."""
        return self.opacity.has_width

    def width(self) -> float | None:
        """Distance in scene units over which the opacity rises at the surface."""
        return self.opacity.width()

    def surface_value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N], zero on the surface, positive outside; scene units for an sdf."""
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


class Medium(Matter):
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
class MediumRendering:
    """A medium along rays: samples [*N], what the field says there, optical depth tau [*N].

    proposal: the coarse rendering by which the samples were placed, where that is to be trained on the colors too.
    outward: 1 where the field's gradient points out of the object, -1 where it points in.
    """

    samples: RaySamples
    field: FieldSample
    tau: Tensor
    proposal: MediumRendering | None = None
    outward: float = 1.0

    def weight(self) -> Tensor:
        """[*N] share of a ray's light that ends in each interval, for light that enters the medium in full."""
        return self.samples.weight(self.tau)

    def seen(self) -> tuple[Tensor, Tensor]:
        """[R, 7] per ray: color, mean distance and normal, each times the weight; no normal without a gradient. And the
        share of light that is left behind the medium, [R].
        """
        gradient = self.field.gradient
        if gradient is not None:
            gradient = gradient.detach() if self.outward > 0 else -gradient.detach()
        return self.samples.composite(self.tau, self.field.color, gradient)


@dataclass(frozen=True)
class Rendering:
    """What R rays see.

    color: [R, 3] in [0, 1]. opacity: [R] share of light that ends in the first medium. depth: [R] mean ray distance
    (scene units) of the light that ends anywhere, 0 where none does. normal: [R, 3] weighted mean of unit gradients
    in the first medium, scene frame, not normalized. media: per medium its samples, for the losses; a medium behind
    others holds only the rays that reach it. proposed: [R, 3] the color by the media's proposals, None without any.
    cut: [] bool, whether something is missing that had no room (`models.capacity`); None: nothing is.
    """

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    media: list[MediumRendering]
    proposed: Tensor | None = None
    cut: Tensor | None = None


def render_rays(
    rays: Rays,
    media: Sequence[Callable[[Rays], MediumRendering]],
    background: Tensor,
    rooms: Rooms | None = None,
) -> Rendering:
    """Compose media from near to far over a background color [3].

    rooms: a stage for the rays that reach each medium but the first; None: as many as do.
    Differentiable in everything the fields and opacities own.
    """
    fine, coarse, opacity = Light.full(rays), None, rays.origins.new_zeros(len(rays))
    parts: list[MediumRendering] = []
    stages = None if rooms is None else rooms.enter()
    for medium in media:
        left = fine.left if coarse is None else torch.maximum(fine.left, coarse.left)
        reached = None
        if parts:
            lit = left.detach() > VISIBLE
            reached = places(lit, None) if stages is None else stages.places(lit)
        part = medium(rays if reached is None else rays[reached.clamp_max(len(rays) - 1)])
        if part.proposal is not None or coarse is not None:
            coarse = (coarse or fine).through(part.proposal or part, reached)
        fine = fine.through(part, reached)
        opacity = opacity if parts else 1 - fine.left
        parts.append(part)
    ended = opacity if len(parts) == 1 else 1 - fine.left
    depth = torch.where(ended > VISIBLE, fine.seen[:, 3] / ended.clamp_min(VISIBLE), torch.zeros_like(ended))
    proposed = None if coarse is None else coarse.color(background)
    cuts = [part.samples.cut() for part in parts] + [None if stages is None else stages.leave()]
    short = [cut for cut in cuts if cut is not None]
    cut = torch.stack(short).any() if short else None
    return Rendering(fine.color(background), opacity, depth, fine.seen[:, 4:].detach(), parts, proposed, cut)


@dataclass(frozen=True)
class Light:
    """Of R rays: `seen` [R, 7], the sum of what was seen so far, and `left` [R], the share of light that goes on."""

    seen: Tensor
    left: Tensor

    @staticmethod
    def full(rays: Rays) -> Light:
        """At the start of rays."""
        return Light(rays.origins.new_zeros(len(rays), 7), rays.origins.new_ones(len(rays)))

    def through(self, part: MediumRendering, reached: Tensor | None) -> Light:
        """Behind a medium that the rays `reached` [K] go through; None: the first one, which all light enters.

        What fills up a room (`models.samples.places`) goes to one row more than there are rays, which is dropped.
        """
        seen, left = part.seen()
        if reached is None:
            return Light(seen, left)
        ahead, rays = picked(self.left, reached), len(self.left)
        seen = F.pad(self.seen, (0, 0, 0, 1)).index_add(0, reached, ahead[:, None] * seen)
        return Light(seen[:rays], F.pad(self.left, (0, 1)).index_copy(0, reached, ahead * left)[:rays])

    def color(self, background: Tensor) -> Tensor:
        """[R, 3] before a background color [3]."""
        return self.seen[:, :3] + self.left[:, None] * background


def clip(rays: Rays, bounds: str) -> Rays:
    """The part of each ray inside ("sphere") or beyond ("outside") the unit sphere; see `kernels.rays.sphere`."""
    near, far = clipped(rays.origins, rays.directions, rays.near, rays.far, beyond=bounds == "outside")
    return replace(rays, near=near, far=far)
