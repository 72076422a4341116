"""Beyond the sphere: samples even in 1/r."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

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
    """Intervals even in 1/r, or by weight, from the start of the medium to its end, or to `reach` radii."""

    type: Literal["inverse_radius"] = "inverse_radius"
    foresees: ClassVar[bool] = True
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

    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        return self.placed(rays, medium, self.drawn(rays))

    def drawn(self, rays: Rays) -> Tensor:
        """[R, D]; see `Sampler.drawn`."""
        coarse, count = self.config.coarse, self.config.samples
        return self._drawn(rays, coarse - 1 + max(count - EVEN, 1) if coarse else count - 1)

    @torch.no_grad()
    def placed(self, rays: Rays, medium: Queryable, drawn: Tensor) -> DenseSamples:
        """See `Sampler.placed`."""
        coarse = self.config.coarse
        if not coarse:
            return self._samples(rays, _even(drawn))
        even = _even(drawn[:, : coarse - 1])
        first = self._samples(rays, even)
        weights = first.weight(medium.estimated_optical_depth(medium.value(first.positions), first))
        within = drawn[:, coarse - 1 :]
        chosen = sample_pdf(even, weights, within.shape[1], within=within)
        whole = _even(even.new_full((len(rays), EVEN - 1), 0.5))
        return self._samples(rays, torch.cat([whole, chosen], 1).sort(1).values)

    def _drawn(self, rays: Rays, count: int) -> Tensor:
        """[R, count] random numbers in [0, 1) in training, otherwise 0.5."""
        shape = (len(rays), count)
        return uniform(shape, rays.near.device) if self.training else torch.full(shape, 0.5, device=rays.near.device)

    def _samples(self, rays: Rays, share: Tensor) -> DenseSamples:
        """Intervals between edges [R, S + 1], shares of the way in 1/r from the medium's start to `reach` or its end.

        On a ray that still comes nearer to the center, that way is 1/r up to its closest point, and back from there.
        """
        nearest = -(rays.origins * rays.directions).sum(-1, keepdim=True)
        height = (rays.origins + nearest * rays.directions).norm(dim=-1, keepdim=True)
        begins, ends = rays.near[:, None] - nearest, rays.far[:, None] - nearest
        first = 1 / torch.hypot(begins, height)
        last = torch.where(ends.isfinite(), 1 / torch.hypot(ends, height), 1 / self.config.reach)
        comes = begins < 0
        turn = torch.where(comes, torch.where(ends < 0, last, 1 / height), first)
        coming, going = turn - first, torch.where(ends < 0, 0.0, turn - last)
        way = share * (coming + going)

        def at(way: Tensor) -> Tensor:
            gone = (way - coming) / going.clamp_min(1e-12)
            ahead = comes & (way <= coming)
            inverse = torch.where(ahead, first + way, (1 - gone) * turn + gone * last)
            return nearest + torch.where(ahead, -1.0, 1.0) * (inverse**-2 - height**2).clamp_min(0).sqrt()

        dense = DenseSamples.from_edges(rays, at(way))
        length = dense.length if self.config.measure == "metric" else way[:, 1:] - way[:, :-1]
        return DenseSamples(rays, dense.t0, dense.t1, at((way[:, :-1] + way[:, 1:]) / 2), length)


def _even(random: Tensor) -> Tensor:
    """[R, S + 1] edges of even intervals of [0, 1], the inner ones moved by numbers [R, S - 1] in [0, 1): 0.5, not."""
    count = random.shape[1] + 1
    edges = torch.arange(count + 1, device=random.device).expand(len(random), -1) / count
    return edges + torch.nn.functional.pad((random - 0.5) / count, (1, 1))
