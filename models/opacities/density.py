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
    scale: float = Field(
        1.0, gt=0, description="density per scene unit of an activated value of 1; with 1 / voxel, tau counts voxels"
    )

    def build(self) -> Density:
        return Density(self)


class Density(Opacity):
    """tau = scale act(value) length. Mildenhall et al., "NeRF" (2020), eq. 3; abs: Zhang et al., "NeRF++" (2020)."""

    outside_sign = -1.0

    def __init__(self, config: DensityConfig) -> None:
        super().__init__()
        self.activation, self.scale = config.activation, config.scale
        self.surface_level = _raw(config.activation, SURFACE_DENSITY / config.scale)

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
        density = functions[self.activation](value)
        return density if self.scale == 1 else density * self.scale

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        """[*N] >= 0; see `Opacity.optical_depth`."""
        return self.density(sample.value) * samples.length

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] -> [*N] bool; see `Opacity.occupied`."""
        return self.density(value) * reach > NEGLIGIBLE

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] -> [*N] >= 0; see `Opacity.estimated_optical_depth`."""
        return self.density(value) * samples.length


def _raw(activation: str, density: float) -> float:
    """The least value that the activation turns into `density` > 0."""
    if activation == "exp":
        return math.log(density)
    # Of a softplus the linear part is as near as a level that is chosen has to be, where there is one.
    return math.log(math.expm1(density)) if activation == "softplus" and density < 5 else density
