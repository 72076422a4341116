"""A network of position, view, normal and features (NeRF, IDR, NeuS, VolSDF, UNISURF)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.appearance.base import Appearance, AppearanceConfig
from models.capabilities import GRADIENT, Offer
from models.encodings.base import EncodingConfig
from models.encodings.frequency import FrequencyConfig
from models.kernels.networks.color_inputs import joined, mirrored
from models.networks.mlp import Mlp, MlpConfig
from models.samples import Points
from utils.config.parts import Choice
from utils.config.schedule import Schedule, constant

Input = Literal["position", "view", "normal"]
ORDER: tuple[Input, ...] = ("position", "view", "normal")


class MlpAppearanceConfig(AppearanceConfig):
    """A color network on the features and what is named beside them."""

    type: Literal["mlp"] = "mlp"
    any_features: ClassVar[bool] = True
    encoding: Choice[EncodingConfig] = Field(FrequencyConfig(levels=4), description="of the view")
    network: MlpConfig = MlpConfig(layers=2, width=64)
    inputs: tuple[Input, ...] | None = Field(
        None, description="beside the features; null: view, and for fields with a gradient position and normal too"
    )
    view: Literal["direction", "reflection"] = Field(
        "direction", description="what the network gets of the view: the ray, or the ray mirrored at the surface"
    )
    view_weight: Schedule = Field(
        constant(1.0), description="factor of the encoded view: from 0, what few views see is not explained by the view"
    )
    activation: Literal["sigmoid", "tanh"] = Field("sigmoid", description="of the color; tanh is shifted to [0, 1]")

    @property
    def needs(self) -> frozenset[Offer]:
        normal = self.view == "reflection" or "normal" in (self.inputs or ())
        return frozenset({GRADIENT} if normal else ())

    def build(self, features: int, *, gradient: bool) -> MlpAppearance:
        wanted = self.inputs if self.inputs is not None else ORDER if gradient else ("view",)
        return MlpAppearance(self, features, tuple(name for name in ORDER if name in wanted))


class MlpAppearance(Appearance):
    """Mildenhall et al., "NeRF" (2020), section A; with position and normal Yariv et al., "IDR" (2020), eq. 5."""

    view_weight: Tensor

    def __init__(self, config: MlpAppearanceConfig, features: int, inputs: tuple[Input, ...]) -> None:
        super().__init__()
        self.config, self.inputs = config, inputs
        self.encoding = config.encoding.build()
        widths = {"position": 3, "view": self.encoding.width, "normal": 3}
        self.network = Mlp(sum(widths[name] for name in inputs) + features, config.channels, config.network)
        self.register_buffer("view_weight", torch.ones(()), persistent=False)
        self.weighted = config.view_weight != constant(1.0)
        self.update(0.0)

    def update(self, progress: float) -> None:
        self.encoding.update(progress)
        self.view_weight.fill_(self.config.view_weight(progress))

    def forward(self, at: Points, features: Tensor, normal: Tensor | None) -> Tensor:
        """[*N, 3] in [0, 1]; see `Appearance.forward`. Raises TypeError where a normal is missing."""
        parts = {"view": self._view(at, normal), "position": at.x, "normal": normal}
        found = [part for name in self.inputs if (part := parts[name]) is not None]
        if len(found) < len(self.inputs):
            raise TypeError("an appearance of the normal needs a field with a gradient")
        return to_color(self.network(joined(features, found)), self.config.activation)

    def _view(self, at: Points, normal: Tensor | None) -> Tensor | None:
        if "view" not in self.inputs:
            return None
        directions = at.directions
        if self.config.view == "reflection" and normal is not None:
            # What gloss shows of things far away is a function of this direction, whatever the surface's shape. As one
            # of the view's own it pulls the surface inward. Verbin et al., "Ref-NeRF" (2022), section 3.1.
            directions = mirrored(directions, normal)
        view = self.encoding(directions)
        return self.view_weight * view if self.weighted else view


def to_color(raw: Tensor, activation: str) -> Tensor:
    """[*N] -> [*N] in (0, 1): the sigmoid, or (tanh + 1) / 2, which is the sigmoid of 2 x. Differentiable in raw."""
    return torch.sigmoid(raw if activation == "sigmoid" else 2 * raw)
