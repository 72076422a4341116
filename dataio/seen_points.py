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


@dataclass(frozen=True)
class SeenPoints:
    """Lines of sight that end on a surface within the unit sphere. point: [T, 3]. toward: [T, 3] unit. Scene frame."""

    point: Tensor
    toward: Tensor

    @staticmethod
    def of(scene: Scene, device: torch.device | str) -> SeenPoints | None:
        """Those of the scene's sparse points; None where they are too few."""
        sparse = scene.sparse_points
        if len(sparse) < ENOUGH:
            return None
        point = torch.from_numpy(sparse.position)[torch.from_numpy(sparse.point)]
        toward = torch.nn.functional.normalize(point - scene.cameras.centers[torch.from_numpy(sparse.view)], dim=-1)
        within = point.norm(dim=-1) < 1
        return SeenPoints(point[within].to(device), toward[within].to(device)) if within.any() else None

    def drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """[N, 3] points and the directions [N, 3] in which a view looked at each, N = `count`, with repetition."""
        chosen = (uniform((count,), self.point.device) * len(self.point)).long().clamp_max(len(self.point) - 1)
        return self.point[chosen], self.toward[chosen]
