"""Radiance fields: a density network, and a color network that takes the direction (NeRF)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field as Key
from torch import Tensor

from models.capabilities import ValueKind
from models.encodings.base import Encoding, EncodingConfig
from models.encodings.frequency import FrequencyConfig
from models.fields.base import Field, FieldConfig
from models.kernels.networks.color_inputs import joined
from models.networks.activations import ColorActivationName, to_color
from models.networks.mlp import Mlp, MlpConfig
from models.samples import FieldSample
from utils.config.parts import Choice


class RadianceConfig(FieldConfig):
    """Networks and encodings of a radiance field; the keys that all of them share."""

    value_kind: ClassVar[ValueKind] = "density"

    encoding: Choice[EncodingConfig] = FrequencyConfig(levels=10)
    view_encoding: Choice[EncodingConfig] = FrequencyConfig(levels=4)
    density: MlpConfig = MlpConfig(skip=(5,))
    color: MlpConfig = MlpConfig(layers=1, width=128)
    color_activation: ColorActivationName = "sigmoid"
    features: int = Key(256, ge=1, le=4096, description="handed from the density to the color network")
    initial_value: float = Key(0.0, description="added to the density network's output; lower starts emptier")


class RadianceFieldConfig(RadianceConfig):
    """A radiance field inside the unit sphere."""

    type: Literal["radiance"] = "radiance"

    def build(self) -> Radiance:
        return Radiance(self, self.encoding.build())


class Radiance(Field):
    """value: raw density; color from view and features.

    The density network's last layer has no activation: its first output is the raw density, the others are the
    features, the "bottleneck" of Mildenhall et al., "NeRF" (2020), section A.
    """

    def __init__(self, config: RadianceConfig, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding
        self.view_encoding = config.view_encoding.build()
        self.density = Mlp(self.encoding.width, 1 + config.features, config.density)
        self.color = Mlp(self.view_encoding.width + config.features, 3, config.color)
        self.color_activation, self.initial_value = config.color_activation, config.initial_value

    def update(self, progress: float) -> None:
        self.encoding.update(progress)

    def low_precision_networks(self) -> list[Mlp]:
        return [self.density, self.color]

    def coordinates(self, x: Tensor) -> Tensor:
        """[*N, 3] points in the scene frame -> [*N, D], the encoding's input. Differentiable in x."""
        return x

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Field.value`."""
        return self.density(self.encoding(self.coordinates(x)))[..., 0] + self.initial_value

    def forward(self, x: Tensor, directions: Tensor) -> FieldSample:
        """[*N, 3], [*N, 3] -> value and color at `*N`; see `Field.forward`."""
        output = self.density(self.encoding(self.coordinates(x)))
        value, seen = joined(output, [self.view_encoding(directions)])
        return FieldSample(value + self.initial_value, to_color(self.color(seen), self.color_activation))
