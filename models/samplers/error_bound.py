"""VolSDF: as many samples as keep the error of the opacity below a bound, then those that matter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.capabilities import SDF, Offer
from models.samplers.base import MOST_SAMPLES, Queryable, Sampler, SamplerConfig
from models.samplers.inverse_cdf import sample_pdf
from models.samplers.stratified import even_edges
from models.samples import DenseSamples
from utils.random_stream import permutation

if TYPE_CHECKING:
    from dataio.cameras import Rays


class ErrorBoundConfig(SamplerConfig):
    """Samples along an sdf with a bounded error of the opacity, as VolSDF publishes it."""

    type: Literal["error_bound"] = "error_bound"
    needs: ClassVar[frozenset[Offer]] = frozenset({SDF})
    uniform: int = Field(128, ge=2, le=MOST_SAMPLES)
    rounds: int = Field(5, ge=0, le=10, description="at most")
    per_round: int = Field(128, ge=1, le=MOST_SAMPLES)
    error: float = Field(0.1, gt=0, description="of the opacity at any point of a ray; no more rounds below it")
    bisections: int = Field(10, ge=1, le=50)
    samples: int = Field(64, ge=1, le=MOST_SAMPLES, description="by their weight")
    extra: int = Field(
        32, ge=0, le=MOST_SAMPLES, description="from all that were looked at, for losses away from the surface"
    )
    width: float = Field(0.05, gt=0, description="beta for opacities that have no width of their own")

    def build(self) -> ErrorBound:
        return ErrorBound(self)


class ErrorBound(Sampler):
    """samples + extra + 2 edges per ray, dense: near, far and what lies between.

    Yariv et al., "VolSDF" (2021), section 3.4 and algorithm 1. A ray leaves the rounds when its own bound holds.
    """

    def __init__(self, config: ErrorBoundConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        config = self.config
        near, far = rays.near[:, None], torch.maximum(rays.far, rays.near)[:, None]
        inner = near.new_empty(len(rays), config.samples + min(config.extra, config.uniform + 1))
        least = medium.width() or config.width
        t, going = even_edges(rays.near, rays.far, config.uniform), torch.arange(len(rays), device=near.device)
        sdf = medium.surface_value(rays.at(t))
        beta = (t.diff(dim=1).square().sum(1, keepdim=True) / (4 * math.log1p(config.error))).sqrt().clamp_min(least)
        for i in range(config.rounds + 1):
            beta = self._smallest_beta(t, sdf, least, beta)
            done = (beta[:, 0] <= least) | (i == config.rounds)
            inner[going[done]] = self._chosen(t[done], sdf[done], beta[done])
            t, sdf, beta, going = t[~done], sdf[~done], beta[~done], going[~done]
            if len(going) == 0:
                break
            new = sample_pdf(t, error_bound(t, sdf, beta), config.per_round)
            t, order = torch.cat([t, new], 1).sort(1)
            sdf = torch.cat([sdf, medium.surface_value(rays[going].at(new))], 1).gather(1, order)
        return DenseSamples.from_edges(rays, torch.cat([near, inner, far], 1).sort(1).values)

    def _smallest_beta(self, t: Tensor, sdf: Tensor, least: float, feasible: Tensor) -> Tensor:
        """[R, 1]: the smallest beta from `least` to `feasible` [R, 1] for which the bound holds, by bisection."""
        low, high = torch.full_like(feasible, least), feasible
        high = torch.where(self._holds(t, sdf, low), low, high)
        for _ in range(self.config.bisections):
            middle = (low + high) / 2
            holds = self._holds(t, sdf, middle)
            low, high = torch.where(holds, low, middle), torch.where(holds, middle, high)
        return high

    def _holds(self, t: Tensor, sdf: Tensor, beta: Tensor) -> Tensor:
        return error_bound(t, sdf, beta).amax(1, keepdim=True) <= self.config.error

    def _chosen(self, t: Tensor, sdf: Tensor, beta: Tensor) -> Tensor:
        """[R, samples + extra] distances: by weight, and a share of all."""
        tau = _density(sdf[:, :-1], beta) * t.diff(dim=1)
        weights = torch.exp(-_before(tau)) * -torch.expm1(-tau)
        important = sample_pdf(t, weights, self.config.samples, random=self.training)
        count = min(self.config.extra, self.config.uniform + 1)
        if self.training:
            some = permutation(t.shape[1], t.device)[:count]
        else:
            some = torch.linspace(0, t.shape[1] - 1, count, device=t.device).long()
        return torch.cat([important, t[:, some]], 1)


def error_bound(t: Tensor, sdf: Tensor, beta: Tensor) -> Tensor:
    """Bound on the error of the opacity anywhere in each interval, by the left sum; [R, S], cut at 1e6.

    t, sdf: [R, S+1], distances along a unit direction and the sdf there (exact or short of it); beta: [R, 1],
    all in scene units. Yariv et al., "VolSDF" (2021), eqs. 12 to 15.
    """
    delta = t.diff(dim=1)
    within = delta.square() / (4 * beta.square()) * torch.exp(-_least_distance(delta, sdf.abs(), sdf) / beta)
    grown = torch.expm1(within.cumsum(1).clamp_max(math.log(1e6)))
    return grown * torch.exp(-_before(_density(sdf[:, :-1], beta) * delta))


def _least_distance(delta: Tensor, distance: Tensor, sdf: Tensor) -> Tensor:
    """[R, S]: how near to the surface an interval may come: both ends' empty balls leave a triangle's height."""
    a, b = distance[:, :-1], distance[:, 1:]
    obtuse = (a.square() - b.square()).abs() >= delta.square()
    height = ((a + b).square() - delta.square()).clamp_min(0) * (delta.square() - (a - b).square()).clamp_min(0)
    height = height.sqrt() / (2 * delta).clamp_min(1e-12)
    nearest = torch.where(obtuse, torch.minimum(a, b), height)
    return torch.where(sdf[:, :-1] * sdf[:, 1:] <= 0, torch.zeros_like(nearest), nearest)


def _density(sdf: Tensor, beta: Tensor) -> Tensor:
    return (0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() / beta)) / beta


def _before(x: Tensor) -> Tensor:
    return torch.nn.functional.pad(x, (1, 0))[:, :-1].cumsum(1)
