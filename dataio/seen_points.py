"""The sparse points as a loss sees them: points, and the directions in which views saw them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dataio.cameras import Rays
from dataio.sfm.triangulation import ENOUGH
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.scene import Scene


SURE = 2.0  # pixels: the surface is that near to a sparse point, rarely farther


@dataclass(frozen=True)
class SeenPoints:
    """Lines of sight that end on a surface, those that end within the unit sphere first. Scene frame.

    point: [T, 3]. toward: [T, 3] unit, from the view to it. distance: [T], between both. doubt: [T], the surface may be
    as far from the point. within: how many end within the unit sphere.
    """

    point: Tensor
    toward: Tensor
    distance: Tensor
    doubt: Tensor
    within: int

    def __len__(self) -> int:
        return len(self.point)

    @staticmethod
    def of(scene: Scene, device: torch.device | str) -> SeenPoints | None:
        """Those of the scene's dense points; None where they are too few."""
        sparse = scene.dense_points
        if len(sparse) < ENOUGH:
            return None
        point, view = torch.from_numpy(sparse.position)[torch.from_numpy(sparse.point)], torch.from_numpy(sparse.view)
        line = point - scene.cameras.centers[view]
        distance = line.norm(dim=-1).clamp_min(1e-9)
        doubt = SURE * distance / scene.cameras.intrinsics[view, :2].mean(-1)
        inside = point.norm(dim=-1) < 1
        order = torch.argsort(~inside, stable=True)
        point, toward, distance, doubt = (
            part[order].to(device) for part in (point, line / distance[:, None], distance, doubt)
        )
        return SeenPoints(point, toward, distance, doubt, int(inside.sum()))

    def drawn(self, count: int) -> SeenPoints:
        """N = `count` of those that end within the unit sphere, with repetition; there is one at least."""
        return self._drawn(count, 0, self.within, within=count)

    def drawn_beyond(self, count: int) -> SeenPoints:
        """N = `count` of those that end beyond the unit sphere, with repetition; there is one at least."""
        return self._drawn(count, self.within, len(self), within=0)

    def _drawn(self, count: int, first: int, end: int, *, within: int) -> SeenPoints:
        chosen = first + (uniform((count,), self.point.device) * (end - first)).long().clamp_max(end - first - 1)
        return SeenPoints(self.point[chosen], self.toward[chosen], self.distance[chosen], self.doubt[chosen], within)

    def rays(self) -> Rays:
        """From the views through the points [T]."""
        nowhere = torch.full((len(self),), -1, device=self.point.device)
        near = torch.zeros_like(self.distance)
        origin = self.point - self.distance[:, None] * self.toward
        return Rays(origin, self.toward, near, torch.full_like(near, torch.inf), nowhere)
