"""Surfaces as sets of points, as the field's protocols compare them: sampled, thinned, nearest to one another."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
AT_ONCE = 1 << 16  # points whose neighbors are in memory together


def lattice_points(mesh: trimesh.Trimesh, spacing: float) -> Floats:
    """[N, 3] points about `spacing` apart on a mesh: the middles of a lattice of cells over each of its triangles.

    The lattice lies along two sides of the triangle. A triangle that is smaller than a cell may have no point. Source:
    the mesh mode of DTUeval-python, which stands for the official evaluation of points.
    """
    corners = np.asarray(mesh.triangles, np.float64)
    corner, first, second = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    long, wide = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    twice_area = np.linalg.norm(np.cross(first, second), axis=1)
    solid = twice_area > 0
    step = spacing * np.sqrt(long[solid] * wide[solid] / twice_area[solid])
    counts = np.floor(np.column_stack([long[solid], wide[solid]]) / step[:, None]).astype(np.int64)
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)
    order = np.argsort(kind.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(kind.ravel(), minlength=len(kinds)))
    found = [np.zeros((0, 3))]
    for (rows, columns), members in zip(kinds, np.split(order, ends[:-1]), strict=True):
        share = _shares(int(rows), int(columns))
        if len(share):
            chosen = np.flatnonzero(solid)[members]
            sides = np.stack([first[chosen], second[chosen]], axis=1)
            found.append((corner[chosen, None] + share @ sides).reshape(-1, 3))
    return np.concatenate(found)


def _shares(rows: int, columns: int) -> Floats:
    """[K, 2] middles of the cells that lie within a triangle, as shares of its two sides; none for no cells."""
    if rows == 0 or columns == 0:
        return np.zeros((0, 2))
    across, along = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    share = np.column_stack([across.ravel() / rows, along.ravel() / columns])
    return share[share.sum(axis=1) < 1]


def thinned(points: Floats, distance: float, *, seed: int = 0) -> Floats:
    """[M, 3] of the points [N, 3], no two of them within `distance`: taken in a random order, each clears its own."""
    points = points[np.random.default_rng(seed).permutation(len(points))]
    tree = cKDTree(points)
    alive = np.ones(len(points), dtype=bool)
    for start in range(0, len(points), AT_ONCE):
        own = start + np.flatnonzero(alive[start : start + AT_ONCE])
        for index, near in zip(own, tree.query_ball_point(points[own], distance), strict=True):
            if alive[index]:
                alive[near] = False
                alive[index] = True
    return np.asarray(points[alive])


def voxel_means(points: Floats, size: float) -> Floats:
    """[M, 3] the means of the points [N, 3] in each voxel of this size, as Open3D thins them.

    The lattice begins half a voxel below the least coordinates.
    """
    if len(points) == 0:
        return points
    _, voxel = np.unique(np.floor((points - points.min(0)) / size + 0.5), axis=0, return_inverse=True)
    count = np.bincount(voxel.ravel())
    sums = [np.bincount(voxel.ravel(), weights=column) for column in points.T]
    return np.asarray(np.column_stack(sums) / count[:, None])


def nearest_distances(points: Floats, others: Floats) -> Floats:
    """[N] the distance of each of the points [N, 3] to the nearest of the others [M, 3], M at least 1."""
    return np.asarray(cKDTree(others).query(points)[0], np.float64)


def precision_and_recall(accuracy: Floats, completeness: Floats, threshold: float) -> dict[str, float]:
    """Shares below the threshold of distances [N] from a surface and [M] to it, and their harmonic mean."""
    precision, recall = float((accuracy < threshold).mean()), float((completeness < threshold).mean())
    f_score = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"precision": precision, "recall": recall, "f_score": f_score}

