"""What sparse points leave of space when all that lies before them is carved away: a surface's shape at first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from dataio.cameras import Cameras
from dataio.sfm.triangulation import ENOUGH, SparsePoints
from utils.meshing.cells import cell_centers

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

CELLS = 96  # per side of the cube around the unit sphere
MAP = 256  # pixels of the larger side of a map of depths
FEWEST = 10  # points in a view that says anything
LONGEST = 0.2  # side of a triangle between points, of the picture's larger side
STEEP = 1.2  # ratio of the depths of a triangle's corners: more reaches over an edge, to what lies behind
CONTRADICTED = 0.3  # share of the views that must see through a cell, of those that say anything of it
BEHIND = 0.1  # scene units: a view says the less of a cell the farther that lies behind what it sees
SMOOTH = 1.0  # cells
SHELL, SKY = 0.5, 0.985  # of the contracted ball: where the unit sphere is, and the sphere that ends every ray


class Carved:
    """Points -> signed distance to what is left, positive outside.

    In each view the depth between its points is interpolated over the triangles of a Delaunay triangulation; what lies
    before it is seen through. A cell is free if enough of the views that say anything of it see through it, or if no
    view says anything; a view says the less of it the deeper it lies behind what the view sees.
    """

    def __init__(
        self, cameras: Cameras, points: SparsePoints, expand: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """cameras: all views, scene frame, on the CPU. points: in the same frame.

        expand: [N, 3] points of the contracted ball -> scene frame, for what lies beyond the unit sphere.
        """
        grid = cell_centers(CELLS)
        size = grid.norm(dim=-1).numpy()
        cells, near = grid, np.full(len(grid), BEHIND)
        if expand is not None:
            cells = expand(grid)
            near *= cells.norm(dim=-1).clamp_min(1).square().numpy()  # cells grow as the square of the distance
        said, free = np.zeros(len(cells)), np.zeros(len(cells))
        for view in (int(v) for v in np.unique(points.view)):
            seen = torch.from_numpy(points.position[points.point[points.view == view]])
            nearness = _nearness(cameras, view, seen)
            if nearness is not None:
                behind = _behind(cameras, view, nearness, cells)
                said += np.exp(-behind.clip(0) / near)
                free += behind < 0
        solid = (said > 0) & (free <= CONTRADICTED * said)
        looked_at = size < 1 if expand is None else (size > SHELL) & (size < SKY)
        self.share = float(solid[looked_at].mean())
        if expand is not None:
            solid |= size > SKY
        self._distance = torch.from_numpy(_signed_distance(solid.reshape(CELLS, CELLS, CELLS)))[None, None]

    def __call__(self, points: Tensor) -> Tensor:
        """[N, 3] scene frame, or in the contracted ball -> [N], in the units there; not differentiable."""
        place = points.flip(-1)[None, None, None].float()  # grid_sample wants the last axis first
        return grid_sample(self._distance, place, padding_mode="border", align_corners=False)[0, 0, 0, 0]


def _nearness(cameras: Cameras, view: int, points: Tensor) -> Float64 | None:
    """[h, w] 1 / z depth over the picture, linear between points [P, 3]; 0 where none are near; None for too few."""
    from scipy.spatial import Delaunay, QhullError

    pixels, depth = (x.double().numpy() for x in cameras.project(points, view))
    pixels, depth = pixels[depth > 0], depth[depth > 0]
    if len(pixels) < FEWEST:
        return None
    try:
        mesh = Delaunay(pixels)
    except QhullError:  # all on one line
        return None
    size = cameras.size[view].numpy()
    width, height = np.maximum(1, np.round(size * min(1.0, MAP / size.max()))).astype(int)
    column, row = np.meshgrid((np.arange(width) + 0.5) / width * size[0], (np.arange(height) + 0.5) / height * size[1])
    place = np.stack([column, row], -1).reshape(-1, 2)
    corners = pixels[mesh.simplices]
    side = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(1)
    corner_depth = depth[mesh.simplices]
    one_surface = (side < LONGEST * size.max()) & (corner_depth.max(1) < STEEP * corner_depth.min(1))
    triangle = mesh.find_simplex(place)
    known = np.flatnonzero((triangle >= 0) & one_surface[triangle])
    triangle = triangle[known]
    two = np.einsum("nij,nj->ni", mesh.transform[triangle, :2], place[known] - mesh.transform[triangle, 2])
    share = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
    found = np.zeros(len(place))
    found[known] = (share / corner_depth[triangle]).sum(1)
    return found.reshape(height, width)


def _behind(cameras: Cameras, view: int, nearness: Float64, cells: Tensor) -> Float64:
    """[N] how far cells [N, 3] lie behind what a view sees, in z depth; inf where it says nothing of them."""
    pixels, depth = (x.double().numpy() for x in cameras.project(cells, view))
    ratio = np.array(nearness.shape[::-1]) / cameras.size[view].numpy()
    column, row = np.floor(np.nan_to_num(pixels, nan=-1.0).clip(-1e6, 1e6) * ratio).astype(np.int64).T
    inside = (depth > 0) & (column >= 0) & (row >= 0) & (column < nearness.shape[1]) & (row < nearness.shape[0])
    near = np.zeros(len(cells))
    near[inside] = nearness[row[inside], column[inside]]
    with np.errstate(divide="ignore"):
        return np.where(near > 0, depth - 1 / near, np.inf)


def _signed_distance(solid: Bool) -> npt.NDArray[np.float32]:
    """[N, N, N] scene units, negative in solid cells; smoothed, since cells have corners."""
    from scipy import ndimage

    outside, inside = (ndimage.distance_transform_edt(part) - 0.5 for part in (~solid, solid))
    cells = ndimage.gaussian_filter(np.where(solid, -inside, outside), SMOOTH)
    return np.asarray(cells * (2 / CELLS), dtype=np.float32)


def carved_by(
    cameras: Cameras, points: SparsePoints, expand: Callable[[Tensor], Tensor] | None = None
) -> Carved | None:
    """The shape; None where the points are too few, or leave nothing of what is looked at, or everything.

    That is the unit ball, or with `expand`, as of `Carved`, what lies beyond it, before a sphere very far away.
    """
    if len(points) < ENOUGH:
        return None
    found = Carved(cameras, points, expand)
    return found if 0.0 < found.share < 1.0 else None
