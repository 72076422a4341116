"""Beyond the sphere: samples even in 1/r."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from models.capabilities import OUTSIDE, Offer
from models.samplers.base import MOST_SAMPLES, Queryable, Sampler, SamplerConfig
from models.samples import DenseSamples
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays


class InverseRadiusConfig(SamplerConfig):
    """Intervals even in 1/r, from the start of the medium to `reach` radii."""

    type: Literal["inverse_radius"] = "inverse_radius"
    samples: int = Field(32, ge=1, le=MOST_SAMPLES)
    reach: float = Field(1000.0, gt=1, description="radius at which the last interval ends, in scene units")
    measure: Literal["metric", "inverse_radius"] = Field(
        "inverse_radius", description="what multiplies a density: t, as in NeuS, or 1/r, as in NeRF++"
    )

    @property
    def covers(self) -> frozenset[Offer]:
        return frozenset({OUTSIDE})

    def build(self) -> InverseRadius:
        return InverseRadius(self)


class InverseRadius(Sampler):
    """Dense samples whose edges are even in 1/r along each ray. Zhang et al., "NeRF++" (2020), section 4."""

    def __init__(self, config: InverseRadiusConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        nearest = -(rays.origins * rays.directions).sum(-1, keepdim=True)
        height = (rays.origins + nearest * rays.directions).norm(dim=-1, keepdim=True)
        along = (rays.near[:, None] - nearest).clamp_min(0)
        first = torch.hypot(along, height)
        count = self.config.samples
        share = torch.arange(count + 1, device=first.device).expand(len(first), -1) / count
        if self.training:
            jitter = (uniform((len(first), count - 1), first.device) - 0.5) / count
            share = share + torch.nn.functional.pad(jitter, (1, 1))
        inverse = (1 - share) / first + share / self.config.reach
        t = nearest + (inverse**-2 - height**2).clamp_min(0).sqrt()
        dense = DenseSamples.from_edges(rays, t)
        middle = (inverse[:, :-1] + inverse[:, 1:]) / 2
        at = nearest + (middle**-2 - height**2).clamp_min(0).sqrt()
        length = dense.length if self.config.measure == "metric" else inverse[:, :-1] - inverse[:, 1:]
        return DenseSamples(rays, dense.t0, dense.t1, at, length)
