"""Points all over the surfaces that photographs with known poses show: planes are swept through space before each.

Collins, "A space-sweep approach to true multi-image matching" (1996). Patches are alike by normalized
cross-correlation, in the best half of the other views: something may stand before the rest (Kang, Szeliski and Chai,
2001).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dataio.cameras import Cameras
from dataio.files import notice
from dataio.sfm.triangulation import ENOUGH, LEAST_VIEWS, SparsePoints, neighbors
from dataio.views import evenly_chosen

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]

SIZE = 260  # pixels of a picture's larger side, which is looked at
MOST_VIEWS = 64  # evenly chosen
SOURCES = 4  # others of each, of which the best two count: the rest may have something before it
SIDE = 5  # of a patch, pixels
STEP = 1.0  # pixels that the picture of the other views moves from plane to plane, in the median
PLANES = (16, 128)  # fewest and most
FEWEST = 10  # sparse points of a view, which say where to look
REACH = (0.8, 1.3)  # times the nearest and the farthest of them
OUTLIERS = 0.01  # of them, on either side
LIKENESS = 0.8
ELSEWHERE = 0.05  # that the likeness is lower at any other depth
ELSE = 3  # planes from the best one that is elsewhere
CONTRAST = 0.01  # standard deviation of a patch that says anything, of the range of gray
POINTS = 1000  # of a view
MOST_THREADS = 8  # each takes some 100 MB


@dataclass(frozen=True)
class _View:
    """A small gray picture without distortion.

    number: of the camera. gray: [h, w] in [0, 1]. shown: [h, w], 1 where the photograph shows it, and the object where
    there are masks. matrix: [3, 3], from the camera to indices of pixels.
    """

    number: int
    gray: Float32
    shown: UInt8
    matrix: Float64


@dataclass(frozen=True)
class _Depths:
    """Of one view: nearness [h, w], 1 / z depth, 0 where it is not known; how far planes are apart in it; the other
    views that were asked.
    """

    nearness: Float64
    apart: float
    others: list[int]


def densified(
    sparse: SparsePoints, cameras: Cameras, images: Sequence[UInt8], masks: Sequence[UInt8] | None, views: Int64
) -> SparsePoints:
    """Sparse points and the swept ones, as of `swept_points`; alone where they are too few to say where to look."""
    if len(sparse) < ENOUGH:
        return sparse
    swept = swept_points(cameras, images, masks, views, sparse)
    notice(f"{len(swept):,} points more from planes swept before {min(len(views), MOST_VIEWS)} photographs")
    return SparsePoints.joined([sparse, swept])


def swept_points(
    cameras: Cameras, images: Sequence[UInt8], masks: Sequence[UInt8] | None, views: Int64, sparse: SparsePoints
) -> SparsePoints:
    """Points on which the depths of three views agree, at most 1,000 of each view. 0.55 CPU-s per view.

    cameras: all views, on the CPU. images: [H, W, 3] each. masks: [H, W] each, 255 = object, to which points are kept.
    views: [V], those to look at. sparse: points that say between which depths. The same for the same input.
    """
    chosen = views[evenly_chosen(len(views), MOST_VIEWS)]
    seen = {
        int(v): _straightened(cameras, int(v), images[v], None if masks is None else masks[v]) for v in chosen.tolist()
    }
    asked = []
    for view, others in neighbors(cameras, list(seen)).items():
        reach = _reach(cameras, view, sparse)
        if reach is not None and len(others) >= LEAST_VIEWS - 1:
            asked.append((seen[view], [seen[other] for other in others[:SOURCES]], reach))
    with ThreadPoolExecutor(min(MOST_THREADS, torch.get_num_threads())) as threads:
        swept = threads.map(lambda each: _swept(cameras, *each), asked)
        depths = {own.number: found for (own, _, _), found in zip(asked, swept, strict=True)}
    return SparsePoints.joined([_agreed(cameras, seen, depths, view) for view in depths])


def _straightened(cameras: Cameras, view: int, image: UInt8, mask: UInt8 | None) -> _View:
    """The picture that a pinhole of the same focal length would take."""
    gray = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, SIZE / max(gray.shape))
    size = tuple(max(1, round(side * scale)) for side in gray.shape[::-1])
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    ratio = np.array(size) / np.array(gray.shape[::-1])
    fx, fy, cx, cy = cameras.intrinsics[view].double().numpy() * np.tile(ratio, 2)
    matrix = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    points = _lifted(cameras, view, matrix, column.ravel(), row.ravel(), 1.0)
    at, depth = (x.numpy() for x in cameras.project(torch.from_numpy(points).float(), view))
    at = np.nan_to_num(at * ratio - 0.5, nan=-1e4).clip(-1e4, 1e4).astype(np.float32).reshape(*small.shape, 2)
    shown = (depth.reshape(small.shape) > 0) & (at >= 0).all(-1) & (at <= np.array(size) - 1).all(-1)
    if mask is not None:
        kept = cv2.resize(np.asarray(mask), size, interpolation=cv2.INTER_NEAREST)
        shown &= _looked_up(kept, at, cv2.INTER_NEAREST) > 127
    straight = _looked_up(small, at, cv2.INTER_LINEAR).astype(np.float32) / np.float32(255)
    return _View(view, straight, shown.astype(np.uint8), matrix)


def _looked_up(picture: npt.NDArray[Any], at: Float32, how: int) -> UInt8:
    """[h, w] a picture at indices (column, row) of its pixels [h, w, 2]."""
    return np.asarray(cv2.remap(picture, at[..., 0], at[..., 1], how), np.uint8)


def _lifted(
    cameras: Cameras, view: int, matrix: Float64, column: Int64, row: Int64, nearness: Float64 | float
) -> Float64:
    """[N, 3] points, scene frame, that a view has at pixels, [N] each, at 1 / z depths [N]; matrix: as of `_View`."""
    pixels = np.stack([column, row, np.ones_like(row)], -1).astype(np.float64)
    ahead = pixels @ np.linalg.inv(matrix).T / np.reshape(nearness, (-1, 1))
    pose = cameras.camera_to_world[view].double().numpy()
    return np.asarray(ahead @ pose[:, :3].T + pose[:, 3])


def _reach(cameras: Cameras, view: int, sparse: SparsePoints) -> tuple[float, float] | None:
    """The least and the largest z depth that is looked at; None where too few sparse points were seen."""
    seen = torch.from_numpy(sparse.position[sparse.point[sparse.view == view]])
    depth = cameras.project(seen, view)[1].double().numpy()
    depth = depth[depth > 0]
    if len(depth) < FEWEST:
        return None
    near, far = np.quantile(depth, [OUTLIERS, 1 - OUTLIERS])
    return REACH[0] * float(near), REACH[1] * float(far)


def _swept(cameras: Cameras, own: _View, others: list[_View], reach: tuple[float, float]) -> _Depths:
    """The depth at which the patch around each pixel looks most alike in the other views."""
    ways = [_between(cameras, own, other) for other in others]
    near, far = 1 / reach[0], 1 / reach[1]
    steps = float(np.median([_moves(own, way) for way in ways])) * (near - far) / STEP
    planes = np.linspace(near, far, int(np.clip(steps, *PLANES)))
    patch = _Patch.of(own.gray)
    likeness = np.stack([_likeness(patch, others, ways, nearness) for nearness in planes])
    best = likeness.argmax(0)
    top, second = likeness.max(0), _elsewhere(likeness, best)
    known = (own.shown > 0) & (patch.variance > CONTRAST**2) & (top > LIKENESS) & (second < top - ELSEWHERE)
    known &= (best > 0) & (best < len(planes) - 1)
    apart = float(planes[0] - planes[1])
    nearness = np.where(known, planes[best] - _peak(likeness, best) * apart, 0.0)
    return _Depths(nearness, apart, [other.number for other in others])


def _elsewhere(likeness: Float32, best: Int64) -> Float32:
    """[h, w], the largest likeness of planes that are not next to the best one."""
    rest = likeness.copy()
    for step in range(-ELSE, ELSE + 1):
        np.put_along_axis(rest, (best + step).clip(0, len(rest) - 1)[None], -1, 0)
    return np.asarray(rest.max(0))


def _peak(likeness: Float32, best: Int64) -> Float64:
    """[h, w] in [-1, 1] planes from the best one, where a parabola through it and its neighbors has its top."""
    middle = best.clip(1, len(likeness) - 2)
    before, here, after = (np.take_along_axis(likeness, middle[None] + step, 0)[0] for step in (-1, 0, 1))
    return np.asarray((0.5 * (before - after) / np.minimum(before - 2 * here + after, -1e-6)).clip(-1, 1))


def _between(cameras: Cameras, own: _View, other: _View) -> tuple[Float64, Float64]:
    """A [3, 3] and b [3]: a pixel p of one view at z depth 1 / n is the pixel (A + n b [0 0 1]) p of the other."""
    first, second = (cameras.camera_to_world[view.number].double().numpy() for view in (own, other))
    turned = other.matrix @ second[:, :3].T
    back = np.linalg.inv(own.matrix)
    return turned @ first[:, :3] @ back, turned @ (first[:, 3] - second[:, 3])


def _moves(own: _View, way: tuple[Float64, Float64]) -> float:
    """Pixels that the picture of the other view moves at most, per change of nearness, about the middle of this one."""
    height, width = own.gray.shape
    middle = way[0] @ np.array([width / 2, height / 2, 1.0])
    step = way[1][:2] - way[1][2] * middle[:2] / middle[2]
    return float(np.linalg.norm(step / middle[2]))


@dataclass(frozen=True)
class _Patch:
    """Gray [h, w], and mean and variance of the patches around its pixels."""

    gray: Float32
    mean: Float32
    variance: Float32

    @staticmethod
    def of(gray: Float32) -> _Patch:
        mean = _mean(gray)
        return _Patch(gray, mean, np.maximum(_mean(gray * gray) - mean * mean, 0))


def _mean(picture: Float32) -> Float32:
    """Of the patch around each pixel."""
    return np.asarray(cv2.boxFilter(picture, -1, (SIDE, SIDE)), np.float32)


def _likeness(patch: _Patch, others: list[_View], ways: list[tuple[Float64, Float64]], nearness: float) -> Float32:
    """[h, w] in [-1, 1], the mean of the best two views if a plane at this nearness were what all see."""
    size = patch.gray.shape[::-1]
    first = second = np.full(patch.gray.shape, -1, np.float32)
    for other, (turned, moved) in zip(others, ways, strict=True):
        homography = turned + nearness * np.outer(moved, [0, 0, 1])
        if (_corners(size) @ homography[2]).min() <= 0:  # part of the plane is behind it
            continue
        there = _Patch.of(_warped(other.gray, homography, size, cv2.INTER_LINEAR))
        covariance = _mean(patch.gray * there.gray) - patch.mean * there.mean
        alike = covariance / np.sqrt(patch.variance * there.variance + 1e-10)
        alike[_warped(other.shown, homography, size, cv2.INTER_NEAREST) == 0] = -1
        second = np.maximum(second, np.minimum(first, alike))
        first = np.maximum(first, alike)
    return np.asarray((first + second) / 2)


def _warped(picture: npt.NDArray[Any], homography: Float64, size: tuple[int, ...], how: int) -> npt.NDArray[Any]:
    """[h, w] a view's picture as the plane shows it to the one that is swept; 0 beyond its edges."""
    return np.asarray(cv2.warpPerspective(picture, homography, size, flags=how | cv2.WARP_INVERSE_MAP))


def _corners(size: tuple[int, ...]) -> Float64:
    """[4, 3] indices of the pixels in the corners."""
    return np.array([[column, row, 1.0] for column in (0, size[0] - 1) for row in (0, size[1] - 1)])


def _agreed(cameras: Cameras, seen: dict[int, _View], depths: dict[int, _Depths], view: int) -> SparsePoints:
    """The points of a view at whose depth others see something too."""
    mine = depths[view]
    rows, columns = np.nonzero(mine.nearness)
    points = _lifted(cameras, view, seen[view].matrix, columns, rows, mine.nearness[rows, columns])
    others = [other for other in mine.others if other in depths]
    same = np.stack(
        [np.ones(len(points), bool), *(_sees(cameras, seen[other], depths[other], points) for other in others)], 1
    )
    kept = np.flatnonzero(same.sum(1) >= LEAST_VIEWS)
    kept = np.random.default_rng(view).permutation(kept)[:POINTS]
    point, slot = np.nonzero(same[kept])
    return SparsePoints(points[kept].astype(np.float32), point, np.array([view, *others])[slot])


def _sees(cameras: Cameras, view: _View, depths: _Depths, points: Float64) -> Bool:
    """[N] whether a view's depth next to where it sees points [N, 3] is theirs, to the distance of its planes."""
    pose = cameras.camera_to_world[view.number].double().numpy()
    local = (points - pose[:, 3]) @ pose[:, :3]
    ahead = local[:, 2] > 0
    at = local @ view.matrix.T
    column, row = np.round(at[:, :2] / np.where(ahead, at[:, 2], 1.0)[:, None]).clip(-2, 1e6).astype(np.int64).T
    height, width = depths.nearness.shape
    within = ahead & (column >= 0) & (row >= 0) & (column < width) & (row < height)
    nearness = depths.nearness[row.clip(0, height - 1), column.clip(0, width - 1)]
    return np.asarray(within & (nearness > 0) & (np.abs(nearness - 1 / np.where(ahead, local[:, 2], 1)) < depths.apart))
