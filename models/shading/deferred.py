"""Deferred shading: what depends on the direction is computed once per ray, not per sample."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.encodings.base import EncodingConfig
from models.encodings.frequency import FrequencyConfig
from models.networks.mlp import Mlp, MlpConfig
from models.shading.base import Shading, ShadingConfig
from utils.config.parts import Choice


class DeferredConfig(ShadingConfig):
    """A diffuse color and features are composited; a small network adds what changes with the direction."""

    type: Literal["deferred"] = "deferred"
    features: int = Field(4, ge=1, le=64, description="composited beside the diffuse color")
    view_encoding: Choice[EncodingConfig] = FrequencyConfig(levels=4)
    network: MlpConfig = MlpConfig(layers=2, width=16)

    @property
    def channels(self) -> int:
        return 3 + self.features

    def build(self) -> Deferred:
        return Deferred(self)


class Deferred(Shading):
    """color = diffuse + sigmoid(network(encoded direction, diffuse, features)), with sums = (diffuse, features).

    Hedman et al., "Baking Neural Radiance Fields for Real-Time View Synthesis" (SNeRG, 2021), the deferred NeRF
    architecture. As in the published code the network also sees the diffuse color, that is to say with the background
    behind it, which the features lack; and the sum is not cut at 1. Different here: weights are drawn as torch does,
    not by Glorot's formula.
    """

    def __init__(self, config: DeferredConfig) -> None:
        super().__init__()
        self.view_encoding = config.view_encoding.build()
        self.network = Mlp(self.view_encoding.width + config.channels, 3, config.network)

    def update(self, progress: float) -> None:
        self.view_encoding.update(progress)

    def forward(self, sums: Tensor, directions: Tensor) -> Tensor:
        """[R, 3 + features], [R, 3] -> [R, 3] in [0, 2]; see `Shading.forward`."""
        return sums[:, :3] + torch.sigmoid(self.network(torch.cat([self.view_encoding(directions), sums], -1)))
