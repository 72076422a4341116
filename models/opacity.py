"""How a field value becomes optical depth: the one thing besides sampling in which the methods differ.

Every opacity returns tau >= 0 per interval; the renderer needs nothing else. Signs: an sdf is positive outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.capabilities import Capability, ValueKind
from models.samples import FieldSample, RaySamples
from utils.config import Part
from utils.schedule import Schedule, constant

# A ray may lose this share of its light in what an occupancy grid leaves out on one side of a surface.
NEGLIGIBLE = 5e-3


class OpacityConfig(Part):
    """Turns field values into optical depth.

    takes: the kinds of value that make sense to it. why: said where another is given. offers: see models/capabilities.
    """

    takes: ClassVar[frozenset[ValueKind]]
    why: ClassVar[str] = ""
    needs_gradient: ClassVar[bool] = False
    offers: ClassVar[frozenset[Capability]] = frozenset()

    def misfit(self, kind: ValueKind) -> str:
        """Why values of this kind make no sense here, in words; empty where they do."""
        return "" if kind in self.takes else self.why

    def build(self) -> Opacity:
        raise TypeError("an opacity config says how it is built")


class Opacity(nn.Module):
    """FieldSample on an interval -> tau. Owns its learned scale (s, beta) and says where the surface is."""

    surface_level: float  # the field value of the surface
    outside_sign: float  # +1 where larger values are outside (sdf), -1 where larger values are inside (density)

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        """tau [*N] >= 0, differentiable in value, gradient and the learned scale."""
        raise TypeError("an opacity defines optical_depth")

    def occupied(self, value: Tensor, reach: float) -> Tensor:
        """Whether points within `reach` (scene units) of one with `value` [*N] may matter to a ray; bool [*N]."""
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
    needs_gradient: ClassVar[bool] = True
    initial_s: float = Field(math.exp(3.0), gt=0, description="s = exp(10 v), v = 0.3 at the start")
    least_s: Schedule = Field(constant(1e-6), description="lower bound on s over the run: sharpens a short run in time")
    anneal: Schedule = Field(
        constant(1.0), description="0: half the slope as if the ray met every surface; 1: the true cosine"
    )

    def build(self) -> Logistic:
        return Logistic(self)


class Logistic(Opacity):
    """tau = relu(log sigmoid(s f0) - log sigmoid(s f1)), f0, f1 = f + cos * (t0 - t), f + cos * (t1 - t).

    f is the sdf at t (the middle of the interval in the paper), cos <= 0 its (annealed) slope along the ray.
    Algebraically 1 - exp(-tau) is the alpha of Wang et al., "NeuS" (2021), eq. 13, without the paper code's 1e-5.
    """

    surface_level = 0.0
    outside_sign = 1.0

    def __init__(self, config: LogisticConfig) -> None:
        super().__init__()
        self.log_s = nn.Parameter(torch.tensor(math.log(config.initial_s) / 10))
        self.config = config
        self.update(0.0)

    def update(self, progress: float) -> None:
        self.anneal, self.least_s = self.config.anneal(progress), self.config.least_s(progress)

    @property
    def s(self) -> Tensor:
        """Inverse width of the logistic, 1 / scene units; clipped to 1e-6 .. 1e6 as published, or to `least_s`."""
        return torch.exp(self.log_s * 10).clamp(self.least_s, 1e6)

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        if sample.gradient is None:
            raise TypeError("the logistic opacity needs a field with a gradient (an sdf)")
        cosine = (sample.gradient * samples.directions).sum(-1)
        slope = -F.relu(-cosine)
        if self.anneal < 1:
            slope = -(F.relu(0.5 - 0.5 * cosine) * (1 - self.anneal)) + slope * self.anneal
        before = sample.value + slope * (samples.t0 - samples.t)
        after = sample.value + slope * (samples.t1 - samples.t)
        s = self.s
        return F.relu(F.logsigmoid(s * before) - F.logsigmoid(s * after))

    def occupied(self, value: Tensor, reach: float) -> Tensor:
        # Outside, -log sigmoid(s f) ~ exp(-s f) of light is lost; inside, log sigmoid(s f) ~ s f is all that is left.
        return value.abs() < reach - math.log(NEGLIGIBLE) * self.width()

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        light = F.logsigmoid(self.s * value)
        return F.relu(samples.preceding(light) - light)

    def width(self) -> float:
        return 1.0 / float(self.s.detach())

    def statistics(self) -> dict[str, float]:
        return {"s": float(self.s.detach())}


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

    surface_level = 10.0
    outside_sign = -1.0

    def __init__(self, config: DensityConfig) -> None:
        super().__init__()
        self.activation = config.activation

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

    def occupied(self, value: Tensor, reach: float) -> Tensor:
        return self.density(value) * reach > NEGLIGIBLE

    def probe(self, value: Tensor, samples: RaySamples) -> Tensor:
        return self.density(value) * samples.length
