"""Even intervals from near to far, one sample at random in each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.samplers.base import MOST_SAMPLES, Queryable, Sampler, SamplerConfig
from models.samples import DenseSamples
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays


class StratifiedConfig(SamplerConfig):
    """Even intervals; while training, a sample at random in each."""

    type: Literal["stratified"] = "stratified"
    samples: int = Field(64, ge=1, le=MOST_SAMPLES)

    def build(self) -> Stratified:
        return Stratified(self)


class Stratified(Sampler):
    """Dense samples, one in each of `samples` equal intervals. Mildenhall et al., "NeRF" (2020), eq. 2."""

    def __init__(self, config: StratifiedConfig) -> None:
        super().__init__()
        self.samples = config.samples

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        return in_bins(rays, even_edges(rays.near, rays.far, self.samples), self.training)


def even_edges(near: Tensor, far: Tensor, count: int) -> Tensor:
    """near, far: [R] -> [R, S+1], S = `count`, from near to far, which are met exactly; far < near counts as near.

    Scene units. Differentiable in near and far.
    """
    share = torch.linspace(0, 1, count + 1, device=near.device, dtype=near.dtype)
    return torch.lerp(near[:, None], torch.maximum(near, far)[:, None], share)


def in_bins(rays: Rays, edges: Tensor, training: bool) -> DenseSamples:
    """edges: [R, S+1] ascending, scene units -> the S intervals, each sampled in the middle.

    training: at random in the interval instead. Differentiable in edges.
    """
    samples = DenseSamples.from_edges(rays, edges)
    if not training:
        return samples
    return replace(samples, t=torch.lerp(samples.t0, samples.t1, uniform(samples.t0.shape, samples.t0.device)))
