"""NeuS: uniform samples, then rounds of up-sampling at fixed, doubling sharpness."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.capabilities import SDF, Offer
from models.samplers.base import MOST_SAMPLES, Queryable, Sampler, SamplerConfig
from models.samplers.inverse_cdf import sample_pdf
from models.samples import DenseSamples
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays


class NeusSamplerConfig(SamplerConfig):
    """Hierarchical sampling for an sdf as NeuS publishes it."""

    type: Literal["neus"] = "neus"
    needs: ClassVar[frozenset[Offer]] = frozenset({SDF})
    uniform: int = Field(64, ge=2, le=MOST_SAMPLES)
    rounds: int = Field(4, ge=0, le=10)
    per_round: int = Field(16, ge=1, le=MOST_SAMPLES)
    first_s: float = Field(64.0, gt=0, description="sharpness of the first round, doubled every round")

    def build(self) -> NeusSampler:
        return NeusSampler(self)


class NeusSampler(Sampler):
    """uniform + rounds * per_round edges per ray, dense.

    Wang et al., "NeuS" (2021), section 3.3 and supplement; slopes as in its code: the smaller of this and the
    previous section's, within [-1000, 0].
    """

    def __init__(self, config: NeusSamplerConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        count = self.config.uniform
        far = torch.maximum(rays.far, rays.near)
        span = (far - rays.near)[:, None]
        t = torch.linspace(0, 1, count, device=span.device)[None] * span + rays.near[:, None]
        if self.training:
            t = t + (uniform(span.shape, span.device) - 0.5) * span / count
            t = t.clamp_min(0)
        values = medium.value(rays.at(t)) if self.config.rounds else t
        for i in range(self.config.rounds):
            new = self._sharpen(t, values, self.config.first_s * 2**i)
            t, order = torch.cat([t, new], 1).sort(1)
            if i + 1 < self.config.rounds:  # the last round's values are nobody's input
                values = torch.cat([values, medium.value(rays.at(new))], 1).gather(1, order)
        return DenseSamples.from_edges(rays, torch.cat([t, t[:, -1:] + span / count], 1))

    def _sharpen(self, t: Tensor, values: Tensor, s: float) -> Tensor:
        """per_round new distances [R, P] by the inverse CDF of the NeuS weights at sharpness s."""
        lengths = t[:, 1:] - t[:, :-1]
        middle = (values[:, 1:] + values[:, :-1]) / 2
        slope = (values[:, 1:] - values[:, :-1]) / (lengths + 1e-5)
        before = torch.nn.functional.pad(slope, (1, 0))[:, :-1]
        slope = torch.minimum(slope, before).clamp(-1e3, 0)
        log = torch.nn.functional.logsigmoid
        tau = log(s * (middle - slope * lengths / 2)) - log(s * (middle + slope * lengths / 2))
        tau = tau.clamp_min(0)
        through = torch.exp(-torch.nn.functional.pad(tau, (1, 0))[:, :-1].cumsum(1))
        return sample_pdf(t, through * -torch.expm1(-tau), self.config.per_round)
