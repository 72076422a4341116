"""Which cameras see the vertices of a mesh: in their picture, from the front, with nothing of the mesh before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.rays.cast import Triangles

if TYPE_CHECKING:
    from dataio.cameras import Cameras

GRAZING = 0.1  # cosine between normal and view below which a vertex is not looked at
AT_ONCE = 1 << 18  # rays


@dataclass(frozen=True)
class Seen:
    """Of V vertices: best [V, B] int64, the cameras that see each most from the front, -1 where fewer do; count [V]
    int64, how many do.
    """

    best: Tensor
    count: Tensor

    @property
    def share(self) -> float:
        """Of vertices that some camera sees."""
        return float((self.count > 0).float().mean()) if len(self.count) else 0.0


@torch.no_grad()
def seen_by(
    vertices: Tensor, normals: Tensor, faces: Tensor, cameras: Cameras, *, margin: float, best: int = 12
) -> Seen:
    """Who sees each vertex [V, 3] with outward normal [V, 3] of a mesh with faces [F, 3] int32.

    All in the scene frame, on the cameras' device. margin: how far before a vertex its own surface may be met, scene
    units: about the size of the triangles. best: B. Not differentiable.
    """
    triangles = Triangles(vertices, faces)
    scores = vertices.new_full((len(vertices), best), -1.0)
    views = torch.full((len(vertices), best), -1, device=vertices.device)
    count = torch.zeros(len(vertices), dtype=torch.int64, device=vertices.device)
    for view in range(len(cameras)):
        facing = _facing(vertices, normals, cameras, view)
        candidates = (facing > GRAZING).nonzero()[:, 0]
        center, parts = cameras.centers[view], candidates.split(AT_ONCE)
        found = candidates[torch.cat([_unhidden(triangles, vertices[part], center, margin) for part in parts])]
        count[found] += 1
        both = torch.cat([scores[found], facing[found, None]], 1)
        kept = torch.cat([views[found], torch.full((len(found), 1), view, device=views.device)], 1)
        scores[found], order = both.topk(best, dim=1)
        views[found] = kept.gather(1, order)
    return Seen(views, count)


def _facing(vertices: Tensor, normals: Tensor, cameras: Cameras, view: int) -> Tensor:
    """[V] cosine between normal and direction to the camera, -1 beyond the picture."""
    pixels, depth = cameras.project(vertices, view)
    inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels < cameras.size[view]).all(-1)
    toward = F.normalize(cameras.centers[view] - vertices, dim=-1)
    return torch.where(inside, (toward * F.normalize(normals, dim=-1)).sum(-1), -1.0)


def _unhidden(triangles: Triangles, points: Tensor, center: Tensor, margin: float) -> Tensor:
    """[N] bool: whether a ray from the camera's center reaches points [N, 3] before anything else."""
    way = points - center
    distance = way.norm(dim=-1)
    directions = way / distance[:, None].clamp_min(1e-12)
    origins = center.expand_as(points)
    t, _, _ = triangles.cast(origins, directions, near=torch.zeros_like(distance))
    return t >= distance - margin
