"""Colors of points of a surface: what the photographs that show them have in common, else those of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.meshes.gains import photograph_gains
from engine.meshes.observed import observed
from engine.meshes.photographs import UNLIKE
from engine.meshes.views import asked_views, field_colors, triangles_of
from models.rendering.visible import ranked, who_sees
from utils.pictures.images import to_uint8

if TYPE_CHECKING:
    import trimesh

    from dataio.scene import Scene
    from engine.run import Run

AT_ONCE = 1 << 16  # points
MOST_VIEWS = 256  # that are asked, evenly chosen
FIELD = 3  # views along which the field is asked


class PointColors:
    """The colors of points on or near a mesh, any number of them in constant memory.

    scene: of the photographs, None to ask the field alone. mesh: scene frame; what may stand before a point. margin:
    how far the points may lie behind it, scene units.
    """

    def __init__(self, run: Run, scene: Scene | None, mesh: trimesh.Trimesh, margin: float) -> None:
        self.run, self.margin = run, margin
        self.triangles = triangles_of(mesh)
        self.photographs = None if scene is None else (scene, photograph_gains(run, scene, mesh, margin))
        self.views = asked_views(run, MOST_VIEWS)
        self.cameras = run.cameras.to("cpu")[torch.from_numpy(self.views)]

    def __call__(self, points: NDArray[np.floating], normals: NDArray[np.floating]) -> NDArray[np.uint8]:
        """[N, 3] of points [N, 3], scene frame, with outward normals [N, 3]."""
        found = [self._part(points[i : i + AT_ONCE], normals[i : i + AT_ONCE]) for i in range(0, len(points), AT_ONCE)]
        return np.concatenate(found) if found else np.zeros((0, 3), np.uint8)

    @torch.no_grad()
    def _part(self, points: NDArray[np.floating], normals: NDArray[np.floating]) -> NDArray[np.uint8]:
        x, along = (torch.from_numpy(np.array(part, np.float32)) for part in (points, normals))
        sights = list(who_sees(x, along, self.triangles, self.cameras, margin=self.margin))
        best = ranked(x, self.cameras, sights, best=FIELD, by_detail=True).best
        own = self._of_field(x, along, best)
        if self.photographs is None:
            return to_uint8(own.numpy())
        scene, gains = self.photographs
        seen = observed(scene, self.cameras, self.views, x, sights).evened(gains)
        seen = seen.among((seen.color - own[seen.point]).abs().amax(-1) < UNLIKE).alike()
        known = seen.per_point(seen.weight)[:, None] > 0
        return to_uint8(torch.where(known, seen.mean(), own).numpy())

    def _of_field(self, x: Tensor, along: Tensor, best: Tensor) -> Tensor:
        """[N, 3] on the CPU."""
        numbers = torch.from_numpy(np.append(self.views, -1))
        given = (part.to(self.run.device) for part in (x, along, numbers[best]))
        return field_colors(self.run, *given).cpu()
