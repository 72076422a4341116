"""NeuS: the logistic CDF of a signed distance."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.capabilities import GRADIENT, SDF, Offer
from models.kernels.rays import logistic
from models.opacities.base import NEGLIGIBLE, Opacity, OpacityConfig
from models.samples import FieldSample, RaySamples
from utils.config.schedule import Schedule, constant


class LogisticConfig(OpacityConfig):
    """NeuS: the logistic CDF of the sdf."""

    type: Literal["logistic"] = "logistic"
    takes: ClassVar[frozenset[Offer]] = frozenset({SDF})
    why: ClassVar[str] = "reads its values as distances to the surface"
    initial_s: float = Field(math.exp(3.0), gt=0, description="s = exp(10 v), v = 0.3 at the start")
    least_s: Schedule = Field(constant(1e-6), description="lower bound on s over the run: sharpens a short run in time")
    anneal: Schedule = Field(
        constant(1.0), description="0: half the slope as if the ray met every surface; 1: the true cosine"
    )

    @property
    def needs(self) -> frozenset[Offer]:
        return frozenset({GRADIENT})

    def build(self) -> Logistic:
        return Logistic(self)


class Logistic(Opacity):
    """tau = relu(log sigmoid(s f0) - log sigmoid(s f1)), f0, f1 = f + cos * (t0 - t), f + cos * (t1 - t).

    f is the sdf at t (the middle of the interval in the paper), cos <= 0 its (annealed) slope along the ray.
    Algebraically 1 - exp(-tau) is the alpha of Wang et al., "NeuS" (2021), eq. 13, without the paper code's 1e-5.
    """

    surface_level = 0.0
    outside_sign = 1.0
    reads_distance = True
    has_width = True
    anneal: Tensor
    least_s: Tensor
    most_s: Tensor

    def __init__(self, config: LogisticConfig) -> None:
        super().__init__()
        self.log_s = nn.Parameter(torch.tensor(math.log(config.initial_s) / 10))
        self.register_buffer("anneal", torch.ones(()), persistent=False)
        self.register_buffer("least_s", torch.zeros(()), persistent=False)
        self.register_buffer("most_s", torch.tensor(1e6), persistent=False)  # clamp wants both bounds alike
        self.config = config
        self.update(0.0)

    def update(self, progress: float) -> None:
        self.anneal.fill_(self.config.anneal(progress))
        self.least_s.fill_(self.config.least_s(progress))

    @property
    def s(self) -> Tensor:
        """[], inverse width of the logistic, 1 / scene units; clipped to 1e-6 .. 1e6 as published, or to `least_s`.

        Differentiable in log_s.
        """
        return torch.exp(self.log_s * 10).clamp(self.least_s, self.most_s)

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        """[*N] >= 0; see `Opacity.optical_depth`. Raises TypeError without a gradient."""
        if sample.gradient is None:
            raise TypeError("the logistic opacity needs a field with a gradient (an sdf)")
        intervals = samples.t0, samples.t, samples.t1
        return logistic.optical_depth(sample.value, sample.gradient, samples.directions, intervals, self.s, self.anneal)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] -> [*N] bool; see `Opacity.occupied`."""
        # Outside, the optical depth down to f is -log sigmoid(s f) ~ exp(-s f); inside, the log of the transmittance is
        # log sigmoid(s f) ~ s f.
        return value.abs() < reach - math.log(NEGLIGIBLE) / self.s.detach()

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] -> [*N] >= 0; see `Opacity.estimated_optical_depth`."""
        return logistic.estimated_optical_depth(samples.preceding(value), value, self.s.detach())

    def width(self) -> float:
        return 1.0 / float(self.s.detach())

    def statistics(self) -> dict[str, float]:
        return {"s": float(self.s.detach())}
