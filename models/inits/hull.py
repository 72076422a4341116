"""The hull of the masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dataio.shapes.hull import hull_of
from models.inits.base import Distance, InitConfig

if TYPE_CHECKING:
    from dataio.scene import Scene


class HullInit(InitConfig):
    """What no mask excludes; the sphere where there are no masks. Laurentini (1994)."""

    type: Literal["hull"] = "hull"
    from_data: ClassVar[bool] = True

    def distance(self, scene: Scene) -> Distance | None:
        """The hull's, from the scene's masks; None without any."""
        return hull_of(scene)
