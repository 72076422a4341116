"""Real spherical harmonics of a direction."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.fields.base import Encoding, EncodingConfig


class SphericalHarmonicsConfig(EncodingConfig):
    """Real spherical harmonics up to degree 3; for view directions."""

    type: Literal["spherical_harmonics"] = "spherical_harmonics"
    degree: int = Field(3, ge=0, le=3)

    def build(self, dimensions: int = 3) -> SphericalHarmonics:
        return SphericalHarmonics(self)


class SphericalHarmonics(Encoding):
    """[*N, 3] unit vectors -> [*N, (degree + 1)^2], orthonormal on the sphere. Differentiable in x to any order."""

    def __init__(self, config: SphericalHarmonicsConfig) -> None:
        super().__init__()
        self.width = (config.degree + 1) ** 2

    def forward(self, x: Tensor) -> Tensor:
        x, y, z = x.unbind(-1)
        terms = [torch.full_like(x, 0.28209479177387814)]
        if self.width > 1:
            terms += [0.4886025119029199 * axis for axis in (y, z, x)]
        if self.width > 4:
            terms += [1.0925484305920792 * x * y, 1.0925484305920792 * y * z]
            terms += [0.31539156525252005 * (3 * z * z - 1)]
            terms += [1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y)]
        if self.width > 9:
            terms += [0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z]
            terms += [0.4570457994644658 * y * (5 * z * z - 1), 0.3731763325901154 * z * (5 * z * z - 3)]
            terms += [0.4570457994644658 * x * (5 * z * z - 1), 1.445305721320277 * z * (x * x - y * y)]
            terms += [0.5900435899266435 * x * (x * x - 3 * y * y)]
        return torch.stack(terms, -1)
