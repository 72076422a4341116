"""The relief between sparse points as a signed distance: where a surface that is seen from one side would begin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from dataio.scene import Scene

Floats = npt.NDArray[np.floating]

CELLS = 128  # of the map of heights over [-1, 1]^2
FAR = 0.05  # scene units
NEIGHBORS, MOST_SPREADS = 12, 4  # a point of which is off by more than FAR and so many median deviations is a stray
FEWEST = 100  # points; with fewer there is no map
ONE_SIDE = 0.7  # length of the mean of the cameras' directions from which on they look from one side
UP = (0.0, 0.0, 1.0)


class Relief:
    """Points -> signed distance to a height field along a direction, positive above.

    Near the relief the height over it, times the cosine of its slope: exact over a plane. The steep wall of a house
    makes that small far above the house too, so no point counts as nearer than its height less FAR.
    """

    def __init__(self, points: Floats, toward: Floats) -> None:
        """points: [P, 3] scene frame; heights are linear between them, and those of the nearest beyond them.

        toward: [3], unit, the direction in which heights grow: from the surface to those who see it.
        """
        from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

        turn = _axes(toward)
        self._turn = torch.from_numpy(turn.astype(np.float32))
        points = points @ turn.T
        points = _thinned(_without_strays(points[(np.abs(points) < 1).all(axis=1)].astype(np.float64)))
        axis = (np.arange(CELLS) + 0.5) * (2 / CELLS) - 1
        x, y = np.meshgrid(axis, axis, indexing="xy")  # rows are y, as grid_sample has it
        heights = LinearNDInterpolator(points[:, :2], points[:, 2])(x, y)
        beyond = np.isnan(heights)
        heights[beyond] = NearestNDInterpolator(points[:, :2], points[:, 2])(x[beyond], y[beyond])
        slopes = np.gradient(heights, axis, axis)
        cosine = 1 / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
        self._map = torch.from_numpy(np.stack([heights, cosine])[None].astype(np.float32))

    def __call__(self, points: Tensor) -> Tensor:
        """[N, 3] scene frame -> [N], scene units; not differentiable."""
        points = points @ self._turn.T
        found = grid_sample(self._map, points[None, None, :, :2], padding_mode="border", align_corners=False)
        height, cosine = found[0, :, 0]
        above = points[:, 2] - height
        return above.sign() * torch.maximum(above.abs() * cosine, above.abs() - FAR)


def _without_strays(points: Floats) -> Floats:
    """The points [P, 3] whose height is not far from the middle height of their neighbors, as these spread."""
    from scipy.spatial import cKDTree

    _, near = cKDTree(points[:, :2]).query(points[:, :2], k=min(NEIGHBORS, len(points)))
    off = points[near, 2] - np.median(points[near, 2], axis=1, keepdims=True)
    spread = np.median(np.abs(off), axis=1)
    return points[np.abs(off[:, 0]) <= np.maximum(FAR, MOST_SPREADS * spread)]  # the nearest is the point itself


def _thinned(points: Floats) -> Floats:
    """One point per cell of the map: that of middle height, so that no tree top decides where there are several."""
    cell = ((points[:, :2] + 1) * (CELLS / 2)).astype(np.int64)
    number = cell[:, 1] * CELLS + cell[:, 0]
    order = np.lexsort((points[:, 2], number))
    _, first, count = np.unique(number[order], return_index=True, return_counts=True)
    return np.asarray(points[order[first + count // 2]])


def _axes(toward: Floats) -> Floats:
    """[3, 3] rotation whose rows are two directions across, x and y where `toward` is z, and `toward`."""
    across = np.cross((0.0, 1.0, 0.0) if abs(toward[1]) < 0.9 else (0.0, 0.0, 1.0), toward)
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(toward, across), toward])


def ground_of(scene: Scene) -> Relief | None:
    """The ground between the sparse points of a scene with z up; None where it has too few."""
    return _relief(scene, np.array(UP))


def relief_of(scene: Scene) -> Relief | None:
    """What the cameras see between the sparse points, as heights towards them.

    None where there are too few points, or where the cameras look from all sides.
    """
    toward = one_side(scene)
    return None if toward is None else _relief(scene, toward)


def one_side(scene: Scene) -> Floats | None:
    """[3] the direction back to the cameras, where they look from one side and sparse points say at what."""
    back = -scene.cameras.camera_to_world[:, :, 2].double().mean(dim=0).numpy()
    length = np.linalg.norm(back)
    return back / length if length > ONE_SIDE and _enough(scene.points) else None


def _relief(scene: Scene, toward: Floats) -> Relief | None:
    return Relief(scene.points, toward) if scene.points is not None and _enough(scene.points) else None


def _enough(points: Floats | None) -> bool:
    return points is not None and int(np.count_nonzero(np.linalg.norm(points, axis=1) < 1)) >= FEWEST
