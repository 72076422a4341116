"""Real spherical harmonics of a direction."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.encodings.base import Encoding, EncodingConfig
from models.kernels.networks.color_inputs import MOST_DEGREE, harmonics


class SphericalHarmonicsConfig(EncodingConfig):
    """Real spherical harmonics up to degree 3; for view directions."""

    type: Literal["spherical_harmonics"] = "spherical_harmonics"
    degree: int = Field(3, ge=0, le=MOST_DEGREE)

    def build(self, dimensions: int = 3) -> SphericalHarmonics:
        return SphericalHarmonics(self)


class SphericalHarmonics(Encoding):
    """[*N, 3] unit vectors -> [*N, (degree + 1)^2], orthonormal on the sphere. Differentiable in x, once."""

    def __init__(self, config: SphericalHarmonicsConfig) -> None:
        super().__init__()
        self.degree, self.width = config.degree, (config.degree + 1) ** 2

    def forward(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, width]; see `Encoding`."""
        return harmonics(x.reshape(-1, 3), degree=self.degree).reshape(*x.shape[:-1], self.width)
