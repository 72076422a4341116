"""VolSDF: a density that is the Laplace CDF of a signed distance."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.capabilities import GRADIENT, SDF, Offer
from models.opacities.base import NEGLIGIBLE, Opacity, OpacityConfig
from models.samples import FieldSample, RaySamples
from utils.config.schedule import Schedule, constant

STEADY = 1e-2  # an sdf that changes by less than this share of beta along an interval counts as constant


class LaplaceConfig(OpacityConfig):
    """VolSDF: a density that is the Laplace CDF of the sdf."""

    type: Literal["laplace"] = "laplace"
    takes: ClassVar[frozenset[Offer]] = frozenset({SDF})
    why: ClassVar[str] = "reads its values as distances to the surface"
    initial_beta: float = Field(0.1, gt=0, description="width of the rise at the start, scene units")
    floor: float = Field(1e-4, gt=0, description="beta = |b| + floor, b learned")
    most_beta: Schedule = Field(
        constant(1e6), description="upper bound on beta over the run: sharpens a short run in time"
    )
    interval: Literal["constant", "linear"] = Field(
        "constant",
        description="the sdf in an interval: its value at the sample, as published; or linear, by its gradient there,"
        " for intervals that are long beside beta",
    )

    @model_validator(mode="after")
    def _above_the_floor(self) -> LaplaceConfig:
        if self.initial_beta < self.floor:
            raise ValueError("`initial_beta` should not be less than `floor`")
        return self

    @property
    def needs(self) -> frozenset[Offer]:
        return frozenset({GRADIENT} if self.interval == "linear" else ())

    def build(self) -> Laplace:
        return Laplace(self)


class Laplace(Opacity):
    """tau = Psi(-f) / beta * length, Psi the CDF of the Laplace distribution of scale beta, f the sdf.

    Yariv et al., "VolSDF" (2021), eqs. 2 and 3 with alpha = 1 / beta, with expm1, so that float32 keeps its digits.
    Where the sdf is linear in the interval, tau is the integral of that density, (A(f1) - A(f0)) / (f1 - f0) * length,
    with f0 and f1 the sdf at its ends and A(f) = min(f, 0) / beta + (1 - exp(-|f| / beta)) / 2.
    """

    surface_level = 0.0
    outside_sign = 1.0
    reads_distance = True
    has_width = True
    most_beta: Tensor

    def __init__(self, config: LaplaceConfig) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(config.initial_beta - config.floor))
        self.register_buffer("most_beta", torch.zeros(()), persistent=False)
        self.config = config
        self.update(0.0)

    def update(self, progress: float) -> None:
        self.most_beta.fill_(self.config.most_beta(progress))

    @property
    def beta(self) -> Tensor:
        """[], width of the rise in scene units, at least the floor unless `most_beta` is less. Differentiable in b."""
        return torch.minimum(self.b.abs() + self.config.floor, self.most_beta)

    def density(self, value: Tensor) -> Tensor:
        """[*N] -> [*N] in (0, 1 / beta), density per scene unit. Differentiable in value and b."""
        beta = self.beta
        return (0.5 + 0.5 * value.sign() * torch.expm1(-value.abs() / beta)) / beta

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        """[*N] >= 0; see `Opacity.optical_depth`. Raises TypeError if linear and without gradient."""
        if self.config.interval == "constant":
            return self.density(sample.value) * samples.length
        if sample.gradient is None:
            raise TypeError("an interval in which the sdf is linear needs a field with a gradient")
        slope = (sample.gradient * samples.directions).sum(-1)
        start = sample.value + slope * (samples.t0 - samples.t)
        change = slope * samples.length
        # What hardly changes has the density of its middle, to the square of STEADY; a quotient would lose its digits.
        steady = change.abs() < STEADY * self.beta
        divisor = torch.where(steady, torch.ones_like(change), change)
        mean = (self._integral(start + divisor) - self._integral(start)) / divisor
        return torch.where(steady, self.density(start + change / 2), mean) * samples.length

    def _integral(self, value: Tensor) -> Tensor:
        """The integral of the density over values up to this one, but for a constant; [*N], ascending."""
        beta = self.beta
        return value.clamp_max(0) / beta - 0.5 * torch.expm1(-value.abs() / beta)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] -> [*N] bool; see `Opacity.occupied`."""
        # Head-on, the optical depth down to f outside is exp(-f / beta) / 2; at depth d inside the transmittance is
        # at most exp(-d / beta).
        return value.abs() < reach - math.log(NEGLIGIBLE) * self.beta.detach()

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] -> [*N] >= 0; see `Opacity.estimated_optical_depth`."""
        return self.density(value) * samples.length

    def width(self) -> float:
        return float(self.beta.detach())

    def statistics(self) -> dict[str, float]:
        return {"beta": self.width()}
