"""The relief behind the sparse points, for pictures from one side."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dataio.shapes.relief import relief_of
from models.inits.base import Distance, InitConfig

if TYPE_CHECKING:
    from dataio.scene import Scene


class ReliefInit(InitConfig):
    """What lies behind the sparse points is solid; the sphere for pictures from all around."""

    type: Literal["relief"] = "relief"
    from_data: ClassVar[bool] = True

    def distance(self, scene: Scene) -> Distance | None:
        """The relief's, from the scene's points; None where the pictures are not from one side."""
        return relief_of(scene)
