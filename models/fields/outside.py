"""Fields beyond the unit sphere, on the inverted sphere of NeRF++."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field as Key
from torch import Tensor

from models.fields.base import EncodingConfig, Field, FieldConfig
from models.fields.frequency import FrequencyConfig
from models.fields.mlp import Mlp, MlpConfig
from models.samples import FieldSample
from utils.config import Choice


class OutsideConfig(FieldConfig):
    """A radiance field on (x/r, 1/r) or, for encodings of three dimensions, on the contracted ball."""

    type: Literal["outside"] = "outside"
    encoding: Choice[EncodingConfig] = FrequencyConfig(levels=10)
    view_encoding: Choice[EncodingConfig] = FrequencyConfig(levels=4)
    density: MlpConfig = MlpConfig(skip=(5,))
    color: MlpConfig = MlpConfig(layers=1, width=128)
    features: int = Key(256, ge=1, le=4096)
    initial_value: float = Key(0.0, description="added to the density network's output; lower starts emptier")

    def build(self) -> Outside:
        return Outside(self)


class Outside(Field):
    """value: raw density. Points inside the unit sphere are moved onto it.

    An encoding that takes four dimensions gets (x/r, 1/r), as in Zhang et al., "NeRF++" (2020), section 4. A grid
    covers three dimensions only: it gets (1 - 1/(2r)) x/r, the outside of the sphere brought into the shell between
    radius 1/2 and 1 (Barron et al., "Mip-NeRF 360" (2022), eq. 10, halved).
    """

    def __init__(self, config: OutsideConfig) -> None:
        super().__init__()
        self.inverted = config.encoding.any_dimensions
        self.encoding = config.encoding.build(dimensions=4 if self.inverted else 3)
        self.view_encoding = config.view_encoding.build()
        self.density = Mlp(self.encoding.width, 1 + config.features, config.density)
        self.color = Mlp(self.view_encoding.width + config.features, 3, config.color)
        self.initial_value = config.initial_value

    def update(self, progress: float) -> None:
        self.encoding.update(progress)

    def _output(self, x: Tensor) -> Tensor:
        on_sphere = torch.nn.functional.normalize(x, dim=-1)
        inverse = 1 / x.norm(dim=-1, keepdim=True).clamp_min(1.0)
        if self.inverted:
            return self.density(self.encoding(torch.cat([on_sphere, inverse], -1)))
        return self.density(self.encoding((1 - 0.5 * inverse) * on_sphere))

    def value(self, x: Tensor) -> Tensor:
        return self._output(x)[..., 0] + self.initial_value

    def forward(self, x: Tensor, directions: Tensor) -> FieldSample:
        output = self._output(x)
        seen = torch.cat([self.view_encoding(directions), output[..., 1:]], -1)
        return FieldSample(output[..., 0] + self.initial_value, torch.sigmoid(self.color(seen)))
