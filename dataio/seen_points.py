"""The sparse points as a loss sees them: points, and the directions in which views saw them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dataio.sfm.triangulation import ENOUGH
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.scene import Scene


SURE = 2.0  # pixels: the surface is that near to a sparse point, rarely farther


@dataclass(frozen=True)
class SeenPoints:
    """Lines of sight that end on a surface within the unit sphere. Scene frame.

    point: [T, 3]. toward: [T, 3] unit, from the view to it. doubt: [T], the surface may be as far from the point.
    """

    point: Tensor
    toward: Tensor
    doubt: Tensor

    @staticmethod
    def of(scene: Scene, device: torch.device | str) -> SeenPoints | None:
        """Those of the scene's sparse points; None where they are too few."""
        sparse = scene.sparse_points
        if len(sparse) < ENOUGH:
            return None
        point, view = torch.from_numpy(sparse.position)[torch.from_numpy(sparse.point)], torch.from_numpy(sparse.view)
        line = point - scene.cameras.centers[view]
        distance = line.norm(dim=-1)
        doubt = SURE * distance / scene.cameras.intrinsics[view, :2].mean(-1)
        within = point.norm(dim=-1) < 1
        every = point, line / distance.clamp_min(1e-9)[:, None], doubt
        return SeenPoints(*(part[within].to(device) for part in every)) if within.any() else None

    def drawn(self, count: int) -> SeenPoints:
        """N = `count` of them, with repetition."""
        chosen = (uniform((count,), self.point.device) * len(self.point)).long().clamp_max(len(self.point) - 1)
        return SeenPoints(self.point[chosen], self.toward[chosen], self.doubt[chosen])
