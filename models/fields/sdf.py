"""Signed distance field: an encoding, a geometry network and a color network (NeuS, VolSDF, UNISURF)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field as Key
from torch import Tensor

from models.fields.base import EncodingConfig, Field, FieldConfig
from models.fields.frequency import FrequencyConfig
from models.fields.mlp import Mlp, MlpConfig, geometric_initialization
from models.samples import FieldSample
from utils.config import Choice


class SdfConfig(FieldConfig):
    """An sdf with color, geometry and appearance in two networks, as IDR has them."""

    type: Literal["sdf"] = "sdf"
    encoding: Choice[EncodingConfig] = FrequencyConfig(levels=6)
    view_encoding: Choice[EncodingConfig] = FrequencyConfig(levels=4)
    geometry: MlpConfig = MlpConfig(skip=(4,), activation="softplus", weight_norm=True)
    color: MlpConfig = MlpConfig(layers=4, weight_norm=True)
    features: int = Key(256, ge=0, le=4096, description="handed from the geometry to the color network")
    radius: float = Key(0.5, gt=0, lt=1, description="radius of the sphere that the surface starts as")
    inside_out: bool = Key(False, description="true for rooms: the cameras are inside the surface")
    feature_scale: float = Key(0.0, ge=0, description="initial weights of all inputs but the coordinates, times this")

    def build(self) -> Sdf:
        return Sdf(self)


class Sdf(Field):
    """value: sdf in scene units; color from position, view, gradient and features.

    The gradient comes from the same pass as the value (`with_pullback`). Published networks: Wang et al., "NeuS"
    (2021), section E.1; color network of Yariv et al., "IDR" (2020).
    """

    def __init__(self, config: SdfConfig) -> None:
        super().__init__()
        self.encoding = config.encoding.build()
        self.view_encoding = config.view_encoding.build()
        self.geometry = Mlp(self.encoding.width, 1 + config.features, config.geometry)
        self.color = Mlp(3 + self.view_encoding.width + 3 + config.features, 3, config.color)
        if not self.encoding.keeps_input:
            raise ValueError("the geometric initialization needs an encoding that keeps the coordinates")
        geometric_initialization(
            self.geometry,
            radius=config.radius,
            inside_out=config.inside_out,
            feature_scale=config.feature_scale,
        )

    def update(self, progress: float) -> None:
        self.encoding.update(progress)

    def value(self, x: Tensor) -> Tensor:
        encoded = self.encoding(x)
        output = self.geometry(encoded) if torch.is_grad_enabled() else self.geometry.without_graph(encoded, 1)
        return output[..., 0]

    def gradient(self, x: Tensor) -> Tensor:
        return self._geometry(x)[1]

    def _geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoded, encoding_pullback = self.encoding.with_pullback(x)
        output, pullback = self.geometry.with_pullback(encoded)
        return output, encoding_pullback(pullback(0))

    def forward(self, x: Tensor, directions: Tensor) -> FieldSample:
        output, gradient = self._geometry(x)
        seen = torch.cat([x, self.view_encoding(directions), gradient, output[..., 1:]], -1)
        return FieldSample(output[..., 0], torch.sigmoid(self.color(seen)), gradient)
