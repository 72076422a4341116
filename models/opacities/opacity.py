"""How a field value becomes optical depth: the one thing besides sampling in which the methods differ.

Every opacity returns tau >= 0 per interval; the renderer needs nothing else. Signs: an sdf is positive outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.capabilities import ValueKind
from models.kernels.rays import logistic
from models.samples import FieldSample, RaySamples
from utils.config.parts import Part
from utils.config.schedule import Schedule, constant

# A ray may lose this share of its light in what an occupancy grid leaves out on one side of a surface.
NEGLIGIBLE = 5e-3
# A density has no surface of its own; for meshes it lies where the density per scene unit is this.
SURFACE_DENSITY = 10.0
STEADY = 1e-2  # an sdf that changes by less than this share of beta along an interval counts as constant


class OpacityConfig(Part):
    """Turns field values into optical depth.

    takes: the kinds of value that make sense to it. why: said where another is given.
    """

    takes: ClassVar[frozenset[ValueKind]] = frozenset({"sdf", "density", "logit"})
    why: ClassVar[str] = ""

    @property
    def needs_gradient(self) -> bool:
        """Whether it asks how the value changes along the ray."""
        return False

    def misfit(self, kind: ValueKind) -> str:
        """Why values of this kind make no sense here, in words; empty where they do."""
        return "" if kind in self.takes else self.why

    def build(self) -> Opacity:
        raise TypeError("an opacity config says how it is built")


class Opacity(nn.Module):
    """FieldSample on an interval -> tau. Owns its learned scale (s, beta) and says where the surface is."""

    surface_level: float  # the field value of the surface
    outside_sign: float  # +1 where larger values are outside (sdf), -1 where larger values are inside (density)
    reads_distance: bool = False  # whether the values are distances to the surface, so that a ray may step by them
    has_width: bool = False  # whether it rises over a known distance there, `width`, for which a GPU is waited for

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        """tau [*N] >= 0, differentiable in value, gradient and the learned scale."""
        raise TypeError("an opacity defines optical_depth")

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """Whether points within `reach` (one or [*N]) of one with `value` [*N] may matter to a ray; bool [*N].

        reach: scene units, or what a sampler measures intervals in.
        """
        raise TypeError("an opacity defines occupied")

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        """Optical depth [*N] that is spent by the middle of each interval and was not by the one before.

        An estimate from values [*N] alone. Its exclusive sum never counts what an interval itself absorbs.
        """
        raise TypeError("an opacity defines probe")

    def width(self) -> float | None:
        """Distance in scene units over which the opacity rises; None where it has no such scale."""
        return None

    def statistics(self) -> dict[str, float]:
        """Learned scales for the log."""
        return {}


class LogisticConfig(OpacityConfig):
    """NeuS: the logistic CDF of the sdf."""

    type: Literal["logistic"] = "logistic"
    takes: ClassVar[frozenset[ValueKind]] = frozenset({"sdf"})
    why: ClassVar[str] = "reads its values as distances to the surface"
    initial_s: float = Field(math.exp(3.0), gt=0, description="s = exp(10 v), v = 0.3 at the start")
    least_s: Schedule = Field(constant(1e-6), description="lower bound on s over the run: sharpens a short run in time")
    anneal: Schedule = Field(
        constant(1.0), description="0: half the slope as if the ray met every surface; 1: the true cosine"
    )

    @property
    def needs_gradient(self) -> bool:
        return True

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
        """Inverse width of the logistic, 1 / scene units; clipped to 1e-6 .. 1e6 as published, or to `least_s`."""
        return torch.exp(self.log_s * 10).clamp(self.least_s, self.most_s)

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        if sample.gradient is None:
            raise TypeError("the logistic opacity needs a field with a gradient (an sdf)")
        intervals = samples.t0, samples.t, samples.t1
        return logistic.optical_depth(sample.value, sample.gradient, samples.directions, intervals, self.s, self.anneal)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        # Outside, -log sigmoid(s f) ~ exp(-s f) of light is lost; inside, log sigmoid(s f) ~ s f is all that is left.
        return value.abs() < reach - math.log(NEGLIGIBLE) / self.s.detach()

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        return logistic.spent(samples.preceding(value), value, self.s.detach())

    def width(self) -> float:
        return 1.0 / float(self.s.detach())

    def statistics(self) -> dict[str, float]:
        return {"s": float(self.s.detach())}


class LaplaceConfig(OpacityConfig):
    """VolSDF: a density that is the Laplace CDF of the sdf."""

    type: Literal["laplace"] = "laplace"
    takes: ClassVar[frozenset[ValueKind]] = frozenset({"sdf"})
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
    def needs_gradient(self) -> bool:
        return self.interval == "linear"

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
        """Width of the rise, scene units."""
        return torch.minimum(self.b.abs() + self.config.floor, self.most_beta)

    def density(self, value: Tensor) -> Tensor:
        """Density per scene unit, [*N] in (0, 1 / beta)."""
        beta = self.beta
        return (0.5 + 0.5 * value.sign() * torch.expm1(-value.abs() / beta)) / beta

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
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
        # Head-on, exp(-f / beta) / 2 of the light is lost outside; at depth d inside, exp(-d / beta) of it is left.
        return value.abs() < reach - math.log(NEGLIGIBLE) * self.beta.detach()

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        return self.density(value) * samples.length

    def width(self) -> float:
        return float(self.beta.detach())

    def statistics(self) -> dict[str, float]:
        return {"beta": self.width()}


class OccupancyConfig(OpacityConfig):
    """UNISURF: each sample is occupied, or not, by the probability of a logit."""

    type: Literal["occupancy"] = "occupancy"
    scale: float = Field(
        -10.0,
        description="logit per unit of value: -10 for a field that is positive outside, as published; 1 for logits",
    )
    sharpen: Schedule = Field(
        constant(1.0),
        description="multiplies the scale over the run; what is seen lies about 2 / scale in front of the value 0",
    )

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("should not be 0")
        return scale

    def misfit(self, kind: ValueKind) -> str:
        expected = "positive" if kind != "sdf" else "negative"
        if (self.scale > 0) == (kind != "sdf"):
            return ""
        return f"with scale: {self.scale:g} would make empty space opaque; expected a {expected} scale"

    def build(self) -> Occupancy:
        return Occupancy(self)


class Occupancy(Opacity):
    """tau = softplus(logit), logit = scale * value: 1 - exp(-tau) is the occupancy sigmoid(logit).

    Oechsle et al., "UNISURF" (2021), eq. 6. A sample's share does not depend on the length of its interval, but for
    an empty interval, which has none.
    """

    surface_level = 0.0
    scale: Tensor

    def __init__(self, config: OccupancyConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("scale", torch.zeros(()), persistent=False)
        self.outside_sign = -math.copysign(1.0, config.scale)
        # A distance says over what length the logit rises; the slope of other values is not known.
        self.has_width = self.outside_sign > 0
        self.update(0.0)

    def update(self, progress: float) -> None:
        self.scale.fill_(self.config.scale * self.config.sharpen(progress))

    def width(self) -> float | None:
        return 1 / abs(float(self.scale)) if self.has_width else None

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        return self.probe(sample.value, samples)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        # As if the field rose by one per scene unit. All of the inside counts: what hides it may have few samples.
        return F.softplus(self.scale * value + self.scale.abs() * reach) > NEGLIGIBLE

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        tau = F.softplus(self.scale * value)
        return torch.where(samples.length > 0, tau, torch.zeros_like(tau))


class DensityConfig(OpacityConfig):
    """NeRF, NeRF++: density times length."""

    type: Literal["density"] = "density"
    takes: ClassVar[frozenset[ValueKind]] = frozenset({"density", "logit"})
    why: ClassVar[str] = "would make empty space opaque and objects transparent: a density is larger inside"
    activation: Literal["relu", "softplus", "abs", "exp", "leaky_relu", "rrelu"] = Field(
        "softplus", description="exp is cut at exp(15); leaky_relu and rrelu are cut at 0 from below"
    )

    def build(self) -> Density:
        return Density(self)


class Density(Opacity):
    """tau = act(value) * length. Mildenhall et al., "NeRF" (2020), eq. 3; abs: Zhang et al., "NeRF++" (2020)."""

    outside_sign = -1.0

    def __init__(self, config: DensityConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.surface_level = math.log(SURFACE_DENSITY) if config.activation == "exp" else SURFACE_DENSITY

    def density(self, value: Tensor) -> Tensor:
        """Density per scene unit, [*N] >= 0."""
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": F.relu,
            "softplus": F.softplus,
            "abs": torch.abs,
            "exp": lambda x: torch.exp(x.clamp(max=15)),
            "leaky_relu": lambda x: F.leaky_relu(x).clamp_min(0),
            "rrelu": lambda x: F.rrelu(x, training=self.training).clamp_min(0),
        }
        return functions[self.activation](value)

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        return self.density(sample.value) * samples.length

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        return self.density(value) * reach > NEGLIGIBLE

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        return self.density(value) * samples.length
