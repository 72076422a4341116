"""The features themselves."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.appearance.base import Appearance, AppearanceConfig
from models.samples import Points
from utils.errors import InputError


class DirectConfig(AppearanceConfig):
    """Each feature is a channel of the color: of grids that store colors, and of what is shaded after compositing."""

    type: Literal["direct"] = "direct"
    count: int = Field(3, ge=1, le=32, description="channels: as many as the field has features; 3 are a color")
    activation: Literal["sigmoid", "none"] = "sigmoid"

    @property
    def channels(self) -> int:
        return self.count

    def build(self, features: int, *, gradient: bool) -> Direct:
        if features != self.count:
            raise InputError(
                f"appearance.type: direct of {self.count} channels needs as many features; field.features is {features}"
            )
        return Direct(self)


class Direct(Appearance):
    """color = activation(features); it does not depend on the view."""

    def __init__(self, config: DirectConfig) -> None:
        super().__init__()
        self.bounded = config.activation == "sigmoid"

    def forward(self, at: Points, features: Tensor, normal: Tensor | None) -> Tensor:
        """[*N, C]; see `Appearance.forward`."""
        return torch.sigmoid(features) if self.bounded else features.contiguous()
