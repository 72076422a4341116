"""The ground, for pictures from the air."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from dataio.shapes.relief import ground_of
from models.inits.base import Ball, Distance, InitConfig
from models.networks.mlp import Mlp, level_initialization

if TYPE_CHECKING:
    from dataio.scene import Scene


class GroundInit(InitConfig):
    """What lies below the sparse points is solid, or below z = 0 of the scene without any."""

    type: Literal["ground"] = "ground"
    from_data: ClassVar[bool] = True

    def closed_form(self, network: Mlp, ball: Ball) -> None:
        level_initialization(network, feature_scale=ball.feature_scale)

    def plain(self, ball: Ball) -> Distance:
        return _height

    def distance(self, scene: Scene) -> Distance | None:
        """The ground's, from the scene's points; None without any."""
        return ground_of(scene)


def _height(x: Tensor) -> Tensor:
    return x[:, 2]
