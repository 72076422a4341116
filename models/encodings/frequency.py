"""Sines and cosines of growing frequency (positional encoding)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.encodings.base import Encoding, EncodingConfig


class FrequencyConfig(EncodingConfig):
    """x, sin(2^k x), cos(2^k x) for k = 0 ... levels - 1; no factor pi, as in all the published codes."""

    type: Literal["frequency"] = "frequency"
    any_dimensions: ClassVar[bool] = True
    levels: int = Field(6, ge=0, le=20)

    def build(self, dimensions: int = 3) -> Frequency:
        return Frequency(self, dimensions)


class Frequency(Encoding):
    """[*N, D] -> [*N, D (1 + 2 levels)]: the input, then per level all sines, then all cosines.

    Mildenhall et al., "NeRF" (2020), eq. 4. Differentiable in x to any order.
    """

    keeps_input = True

    def __init__(self, config: FrequencyConfig, dimensions: int = 3) -> None:
        super().__init__()
        self.levels, self.dimensions = config.levels, dimensions
        self.width = dimensions * (1 + 2 * config.levels)

    def _waves(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale = 2.0 ** torch.arange(self.levels, device=x.device, dtype=x.dtype)
        angle = x[..., None, :] * scale[:, None]
        return torch.sin(angle), torch.cos(angle), scale

    def forward(self, x: Tensor) -> Tensor:
        """[*N, D] -> [*N, width]; see `Encoding`."""
        sin, cos, _ = self._waves(x)
        return torch.cat([x, torch.stack([sin, cos], -2).flatten(-3)], -1)

    def with_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """[*N, D] -> [*N, width] and the vjp [*N, width] -> [*N, D]; see `Encoding.with_vjp`."""
        sin, cos, scale = self._waves(x)
        features = torch.cat([x, torch.stack([sin, cos], -2).flatten(-3)], -1)

        def vjp(weight: Tensor) -> Tensor:
            of_waves = weight[..., self.dimensions :].unflatten(-1, (self.levels, 2, self.dimensions))
            slope = of_waves[..., 0, :] * cos - of_waves[..., 1, :] * sin
            return weight[..., : self.dimensions] + (slope * scale[:, None]).sum(-2)

        return features, vjp
