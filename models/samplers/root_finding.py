"""UNISURF: look for the surface, then sample around it, ever closer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.capabilities import SURFACE, Offer
from models.samplers.base import MOST_SAMPLES, Queryable, Sampler, SamplerConfig
from models.samplers.stratified import even_edges, in_bins
from models.samples import DenseSamples
from utils.config.schedule import ExponentialSchedule, Schedule

if TYPE_CHECKING:
    from dataio.cameras import Rays


class RootFindingConfig(SamplerConfig):
    """Samples around the first surface, in an interval that shrinks during the run."""

    type: Literal["root_finding"] = "root_finding"
    needs: ClassVar[frozenset[Offer]] = frozenset({SURFACE})
    march: int = Field(256, ge=2, le=MOST_SAMPLES, description="even points at which a change of sign is looked for")
    secant_steps: int = Field(8, ge=0, le=64)
    samples: int = Field(64, ge=1, le=MOST_SAMPLES, description="in the interval")
    free: int = Field(32, ge=0, le=MOST_SAMPLES, description="between near and the interval")
    interval: Schedule = Field(
        ExponentialSchedule(start=2.0, end=2.0 * math.exp(-1.5e-5 * 450_000)),
        description="half of its length, scene units",
    )
    floor: float = Field(0.1, gt=0, description="the interval's half never shrinks below this")

    def build(self) -> RootFinding:
        return RootFinding(self)


class RootFinding(Sampler):
    """free + samples intervals per ray, dense: [near, d - D], [d - D, d + D], d the surface, 2 D the interval.

    Rays without a surface get the same number, even from near to far. Oechsle et al., "UNISURF" (2021), eqs. 8, 9.
    """

    interval: Tensor

    def __init__(self, config: RootFindingConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("interval", torch.zeros(()), persistent=False)
        self.update(0.0)

    def update(self, progress: float) -> None:
        self.interval.fill_(max(self.config.interval(progress), self.config.floor))

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        free, count = self.config.free, self.config.samples
        far = torch.maximum(rays.near, rays.far)
        surface = first_surface(rays, medium, self.config.march, self.config.secant_steps)
        low = torch.maximum(rays.near, surface - self.interval)
        high = torch.minimum(far, surface + self.interval)
        around = torch.cat([even_edges(rays.near, low, free)[:, :-1], even_edges(low, high, count)], 1)
        whole = even_edges(rays.near, far, free + count)
        return in_bins(rays, torch.where(surface.isfinite()[:, None], around, whole), self.training)


def first_surface(rays: Rays, medium: Queryable, march: int, secant_steps: int) -> Tensor:
    """[R] scene units, where each ray first goes from outside to inside; infinite where it does not.

    What is thinner than (far - near) / (march - 1) may be missed. A ray that starts inside has to come out first. Not
    meant to be differentiated.
    """
    t = even_edges(rays.near, rays.far, march - 1)
    value = medium.surface_value(rays.at(t))
    enters = (value[:, :-1] > 0) & (value[:, 1:] <= 0)
    found = enters.any(1)
    first = enters.int().argmax(1, keepdim=True)
    low, high, above, below = (x.gather(1, at)[:, 0] for x in (t, value) for at in (first, first + 1))
    # All rays take the few steps: to choose those that need them would synchronize the host with a GPU.
    above, below = torch.where(found, above, 1.0), torch.where(found, below, -1.0)
    surface = secant(rays, medium, low, high, above, below, steps=secant_steps)
    return torch.where(found, surface, torch.inf)


def secant(
    rays: Rays, medium: Queryable, low: Tensor, high: Tensor, above: Tensor, below: Tensor, *, steps: int
) -> Tensor:
    """[R] scene units between low and high [R], where the value is zero, by the secant within a shrinking bracket.

    above, below: [R] the values at low and high, > 0 and <= 0. After a step that moves the same end twice, the other
    end's value counts half (the Illinois rule): without it a curved profile is approached from one side only.
    """
    side = torch.zeros_like(low)
    t = low + (high - low) * above / (above - below)
    for _ in range(steps):
        value = medium.surface_value(rays.at(t))
        outside = value > 0
        low, above_now = torch.where(outside, t, low), torch.where(outside, value, above)
        high, below_now = torch.where(outside, high, t), torch.where(outside, below, value)
        above = torch.where(~outside & (side < 0), above_now / 2, above_now)
        below = torch.where(outside & (side > 0), below_now / 2, below_now)
        side = torch.where(outside, 1.0, -1.0)
        t = low + (high - low) * above / (above - below).clamp_min(1e-30)
    return t
