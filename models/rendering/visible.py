"""Which cameras see points of a surface: in their picture, from the front, with nothing of a mesh before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.rays.cast import Triangles

if TYPE_CHECKING:
    from dataio.cameras import Cameras

GRAZING = 0.1  # cosine between normal and view below which a point is not looked at
AT_ONCE = 1 << 18  # rays
Sight = tuple[Tensor, Tensor]  # of one camera: indices [N] of the points that it sees, cosines [N] from their front


@dataclass(frozen=True)
class Seen:
    """Of V points: best [V, B] int64, the cameras that see each most from the front, -1 where fewer do; count [V]
    int64, how many do.
    """

    best: Tensor
    count: Tensor

    @property
    def share(self) -> float:
        """Of points that some camera sees."""
        return float((self.count > 0).float().mean()) if len(self.count) else 0.0


def who_sees(
    points: Tensor, normals: Tensor, triangles: Triangles, cameras: Cameras, *, margin: float
) -> Iterator[Sight]:
    """Of each camera in turn the indices [N] of the points that it sees, and the cosines [N] from their front.

    As of `seen_by`.
    """
    for view in range(len(cameras)):
        facing = _facing(points, normals, cameras, view)
        candidates = (facing > GRAZING).nonzero()[:, 0]
        found = candidates[unhidden(triangles, points[candidates], cameras.centers[view], margin)]
        yield found, facing[found]


@torch.no_grad()
def seen_by(
    points: Tensor, normals: Tensor, triangles: Triangles, cameras: Cameras, *, margin: float, best: int = 12
) -> Seen:
    """Who sees each point [V, 3] of a surface with outward normal [V, 3]; triangles: what may stand before it.

    All in the scene frame, on the cameras' device. margin: how far before a point the triangles may be met, scene
    units: about their size where the points are vertices. best: B. Not differentiable.
    """
    sights = who_sees(points, normals, triangles, cameras, margin=margin)
    return ranked(points, cameras, sights, best=best)


@torch.no_grad()
def ranked(
    points: Tensor, cameras: Cameras, sights: Iterable[Sight], *, best: int = 12, by_detail: bool = False
) -> Seen:
    """The best of the cameras that see points [V, 3]; sights: of each camera in turn, by `who_sees`.

    best: B. by_detail: they are those with the most pixels on the surface around, else those most from the front. Not
    differentiable.
    """
    scores = points.new_full((len(points), best), -1.0)
    views = torch.full((len(points), best), -1, device=points.device)
    count = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for view, (found, facing) in enumerate(sights):
        count[found] += 1
        score = facing * (detail(points[found], cameras, view) if by_detail else 1.0)
        both = torch.cat([scores[found], score[:, None]], 1)
        kept = torch.cat([views[found], torch.full((len(found), 1), view, device=views.device)], 1)
        scores[found], order = both.topk(best, dim=1)
        views[found] = kept.gather(1, order)
    return Seen(views, count)


def detail(points: Tensor, cameras: Cameras, view: int) -> Tensor:
    """[N] how many pixels a square of side 1 has that faces the camera at points [N, 3], scene units."""
    focal = cameras.intrinsics[view, :2]
    return focal.prod() / (points - cameras.centers[view]).square().sum(-1).clamp_min(1e-12)


def _facing(points: Tensor, normals: Tensor, cameras: Cameras, view: int) -> Tensor:
    """[V] cosine between normal and direction to the camera, -1 beyond the picture."""
    pixels, depth = cameras.project(points, view)
    inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels < cameras.size[view]).all(-1)
    toward = F.normalize(cameras.centers[view] - points, dim=-1)
    return torch.where(inside, (toward * F.normalize(normals, dim=-1)).sum(-1), -1.0)


def unhidden(triangles: Triangles, points: Tensor, center: Tensor, margin: float) -> Tensor:
    """[N] bool: whether nothing lies farther before points [N, 3] than the margin, as seen from a center [3].

    Not differentiable.
    """
    return torch.cat([_unhidden(triangles, part, center, margin) for part in points.split(AT_ONCE)])


def _unhidden(triangles: Triangles, points: Tensor, center: Tensor, margin: float) -> Tensor:
    way = points - center
    distance = way.norm(dim=-1)
    directions = way / distance[:, None].clamp_min(1e-12)
    origins = center.expand_as(points)
    t, _, _ = triangles.cast(origins, directions, near=torch.zeros_like(distance))
    return t >= distance - margin
