"""Radiance fields: an encoding and a density network (NeRF)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field as Key
from torch import Tensor

from models.capabilities import DENSITY, EVERYWHERE, INSIDE, Offer
from models.encodings.base import Encoding, EncodingConfig
from models.encodings.frequency import FrequencyConfig
from models.fields.base import Field, FieldConfig
from models.kernels.networks.color_inputs import split
from models.networks.mlp import Mlp, MlpConfig
from models.samples import FieldSample, Points
from utils.config.parts import Choice


class RadianceConfig(FieldConfig):
    """Encoding and network of a radiance field; the keys that all of them share."""

    value_kind: ClassVar[Offer] = DENSITY

    encoding: Choice[EncodingConfig] = FrequencyConfig(levels=10)
    density: MlpConfig = MlpConfig(skip=(5,))
    features: int = Key(256, ge=1, le=4096, description="handed from the density network to the appearance")
    initial_value: float = Key(0.0, description="added to the density network's output; lower starts emptier")


class RadianceFieldConfig(RadianceConfig):
    """A radiance field inside the unit sphere, or in all of space, contracted."""

    type: Literal["radiance"] = "radiance"
    covers: ClassVar[frozenset[Offer]] = frozenset({INSIDE, EVERYWHERE})

    def build(self) -> Radiance:
        return Radiance(self, self.encoding.build())


class Radiance(Field):
    """value: raw density.

    The density network's last layer has no activation: its first output is the raw density, the others are the
    features, the "bottleneck" of Mildenhall et al., "NeRF" (2020), section A.
    """

    def __init__(self, config: RadianceConfig, encoding: Encoding) -> None:
        super().__init__()
        self.encoding, self.features, self.initial_value = encoding, config.features, config.initial_value
        self.density = Mlp(self.encoding.width, 1 + config.features, config.density)

    def update(self, progress: float) -> None:
        self.encoding.update(progress)

    def low_precision_networks(self) -> list[Mlp]:
        return [self.density]

    def coordinates(self, x: Tensor) -> Tensor:
        """[*N, 3] points in the scene frame -> [*N, D], the encoding's input. Differentiable in x."""
        return x

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Field.value`."""
        return self.density(self.encoding(self.coordinates(x)))[..., 0] + self.initial_value

    def forward(self, at: Points) -> FieldSample:
        """Value and features [*N, F] at points `*N`; see `Field.forward`."""
        value, features = split(self.density(self.encoding(self.coordinates(at.x))))
        return FieldSample(value + self.initial_value, features)
