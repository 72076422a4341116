"""What lies behind the sparse points, seen from all sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dataio.shapes.carved import carved_by
from models.bounds.contraction import expanded
from models.inits.base import Distance, InitConfig

if TYPE_CHECKING:
    from dataio.scene import Scene


class PointsInit(InitConfig):
    """What is left when the space before the sparse points is carved away; the sphere where there are too few."""

    type: Literal["points"] = "points"
    from_data: ClassVar[bool] = True

    def distance(self, scene: Scene) -> Distance | None:
        """Of what is left, by the scene's photographs; None where too few points are found in them."""
        return carved_by(scene.cameras, scene.dense_points)

    def beyond(self, scene: Scene) -> Distance | None:
        """Of what is left beyond the unit sphere, before a sphere very far away; None as for `distance`."""
        return carved_by(scene.cameras, scene.dense_points, expanded)
