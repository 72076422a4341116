"""The composited color as it is."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.shading.base import Shading, ShadingConfig


class IdentityConfig(ShadingConfig):
    """Colors are composited: a sample's color is what it adds to a ray's."""

    type: Literal["identity"] = "identity"

    def build(self) -> Identity:
        return Identity()


class Identity(Shading):
    """[R, 3] sums are the color."""

    def forward(self, sums: Tensor, directions: Tensor) -> Tensor:
        """[R, 3], [R, 3] -> [R, 3], the sums themselves; see `Shading.forward`."""
        return sums
