"""NeRF, NeRF++: density times length."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.capabilities import DENSITY, LOGIT, Offer
from models.opacities.base import NEGLIGIBLE, Opacity, OpacityConfig
from models.samples import FieldSample, RaySamples

# A density has no surface of its own; for meshes it lies where the density per scene unit is this.
SURFACE_DENSITY = 10.0


class DensityConfig(OpacityConfig):
    """NeRF, NeRF++: density times length."""

    type: Literal["density"] = "density"
    takes: ClassVar[frozenset[Offer]] = frozenset({DENSITY, LOGIT})
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
        """[*N] -> [*N] >= 0, density per scene unit. Differentiable in value."""
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
        """[*N] >= 0; see `Opacity.optical_depth`."""
        return self.density(sample.value) * samples.length

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] -> [*N] bool; see `Opacity.occupied`."""
        return self.density(value) * reach > NEGLIGIBLE

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] -> [*N] >= 0; see `Opacity.estimated_optical_depth`."""
        return self.density(value) * samples.length
