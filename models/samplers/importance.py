"""NeRF: even samples first, then more where they found something."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.samplers.base import MOST_SAMPLES, Queryable, Sampler, SamplerConfig
from models.samplers.inverse_cdf import sample_pdf
from models.samplers.stratified import even_edges, in_bins
from models.samples import DenseSamples, RaySamples
from models.volume import Volume, VolumeConfig

if TYPE_CHECKING:
    from dataio.cameras import Rays


class ImportanceConfig(SamplerConfig):
    """Even intervals, then finer ones by the weights found in them."""

    type: Literal["importance"] = "importance"
    coarse: int = Field(64, ge=1, le=MOST_SAMPLES, description="even intervals")
    fine: int = Field(128, ge=1, le=MOST_SAMPLES, description="further edges, by weight")
    proposal: VolumeConfig | None = Field(
        None, description="a coarse field of its own that learns from the colors; without one, the medium's own values"
    )

    @model_validator(mode="after")
    def _no_photographs(self) -> ImportanceConfig:
        if self.proposal is not None and self.proposal.appearance.per_image is not None:
            raise ValueError("proposal.appearance.per_image: a proposal knows no photographs; expected null")
        return self

    def build(self) -> Importance:
        return Importance(self)


class Importance(Sampler):
    """coarse + fine intervals per ray, dense. Mildenhall et al., "NeRF" (2020), section 5.2."""

    def __init__(self, config: ImportanceConfig) -> None:
        super().__init__()
        self.coarse, self.fine = config.coarse, config.fine
        self.proposal = Volume(config.proposal) if config.proposal else None

    def update(self, progress: float) -> None:
        if self.proposal is not None:
            self.proposal.update(progress)

    def forward(self, rays: Rays, medium: Queryable) -> RaySamples:
        edges = even_edges(rays.near, rays.far, self.coarse).detach()
        first = in_bins(rays, edges, self.training)
        proposal = self.proposal.render(first) if self.training and self.proposal is not None else None
        with torch.no_grad():
            tau = self._optical_depth(first, medium) if proposal is None else proposal.tau
            weights = first.weight(tau)
            more = sample_pdf(edges, weights, self.fine, random=self.training)
            samples = in_bins(rays, torch.cat([edges, more], 1).sort(1).values, self.training)
        return replace(samples, proposal=proposal)

    def _optical_depth(self, samples: DenseSamples, medium: Queryable) -> Tensor:
        source = medium if self.proposal is None else self.proposal
        return source.estimated_optical_depth(source.value(samples.positions), samples)
