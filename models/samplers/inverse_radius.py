"""Beyond the sphere: samples even in 1/r."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.capabilities import OUTSIDE, Offer
from models.samplers.base import MOST_SAMPLES, Queryable, Sampler, SamplerConfig
from models.samplers.inverse_cdf import sample_pdf
from models.samples import DenseSamples
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays

EVEN = 2  # intervals over the whole length that remain where samples go by weight


class InverseRadiusConfig(SamplerConfig):
    """Intervals even in 1/r, or by weight, from the start of the medium to `reach` radii."""

    type: Literal["inverse_radius"] = "inverse_radius"
    samples: int = Field(32, ge=1, le=MOST_SAMPLES)
    coarse: int = Field(
        0, ge=0, le=MOST_SAMPLES, description="even intervals whose weights say where the samples go; 0: they are even"
    )
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
    """Dense samples whose edges are even in 1/r along each ray. Zhang et al., "NeRF++" (2020), section 4.

    With `coarse` they are drawn by the weights of even intervals, all but two (Mildenhall et al., "NeRF" (2020),
    section 5.2).
    """

    def __init__(self, config: InverseRadiusConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        coarse, count = self.config.coarse, self.config.samples
        if not coarse:
            return self._samples(rays, _even(self._drawn(rays, count - 1)))
        drawn = max(count - EVEN, 1)
        random = self._drawn(rays, coarse - 1 + drawn)  # at once: rays that fill up a capacity change no other's
        even = _even(random[:, : coarse - 1])
        first = self._samples(rays, even)
        weights = first.weight(medium.estimated_optical_depth(medium.value(first.positions), first))
        chosen = sample_pdf(even, weights, drawn, within=random[:, coarse - 1 :])
        whole = _even(even.new_full((len(rays), EVEN - 1), 0.5))
        return self._samples(rays, torch.cat([whole, chosen], 1).sort(1).values)

    def _drawn(self, rays: Rays, count: int) -> Tensor:
        """[R, count] random numbers in [0, 1) in training, otherwise 0.5."""
        shape = (len(rays), count)
        return uniform(shape, rays.near.device) if self.training else torch.full(shape, 0.5, device=rays.near.device)

    def _samples(self, rays: Rays, share: Tensor) -> DenseSamples:
        """Intervals between edges [R, S + 1], shares of the way in 1/r from the medium's start to `reach`."""
        nearest = -(rays.origins * rays.directions).sum(-1, keepdim=True)
        height = (rays.origins + nearest * rays.directions).norm(dim=-1, keepdim=True)
        along = (rays.near[:, None] - nearest).clamp_min(0)
        first = torch.hypot(along, height)
        inverse = (1 - share) / first + share / self.config.reach
        t = nearest + (inverse**-2 - height**2).clamp_min(0).sqrt()
        dense = DenseSamples.from_edges(rays, t)
        middle = (inverse[:, :-1] + inverse[:, 1:]) / 2
        at = nearest + (middle**-2 - height**2).clamp_min(0).sqrt()
        length = dense.length if self.config.measure == "metric" else inverse[:, :-1] - inverse[:, 1:]
        return DenseSamples(rays, dense.t0, dense.t1, at, length)


def _even(random: Tensor) -> Tensor:
    """[R, S + 1] edges of even intervals of [0, 1], the inner ones moved by numbers [R, S - 1] in [0, 1): 0.5, not."""
    count = random.shape[1] + 1
    edges = torch.arange(count + 1, device=random.device).expand(len(random), -1) / count
    return edges + torch.nn.functional.pad((random - 0.5) / count, (1, 1))
