"""Where the region of interest is: the sphere that becomes the unit sphere of the scene frame.

With masks the sphere holds the visual hull; with sparse points it holds most points near the place that the
cameras look at, or, where all look one way, most points that two of them saw; otherwise it is a share of the median
camera distance around that place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dataio.cameras import Cameras

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

HULL_MARGIN = 1.1
HULL_GRID = 48
# A point is carved away when more than this share of the views says so: one bad mask in thirty does no harm.
HULL_BAD_VIEWS = 0.03
# Without masks and points the sphere's radius is this share of the median camera distance, so that cameras
# on a circle around an object stand outside the sphere and the object with its surroundings is inside.
LOOK_SHARE = 0.6
# Cameras look one way when the mean of their unit axes is longer than this; the sphere of such pictures holds at least
# this share of the points that two of them saw, or it is laid around these points, but for a share of strays.
ONE_WAY, LEAST_HELD, STRAYS = 0.8, 0.9, 0.05
# A room's sphere holds all cameras and all but this share of the points that they measured.
ROOM_STRAYS = 0.005
ROOM_MARGIN = 1.1
ROOM_POINTS = 20_000


def similarity(center: npt.ArrayLike, radius: float) -> Float64:
    """[4, 4] world_from_scene that puts the unit sphere at `center` [3] with `radius`, in world units."""
    matrix = np.diag([radius, radius, radius, 1.0])
    matrix[:3, 3] = center
    return matrix


def inverse(matrix: Float64) -> Float64:
    """Inverse of a similarity [4, 4]."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def moved(camera_to_world: Float64, to_new: Float64) -> Float64:
    """Poses [C, 4, 4] in another frame: the similarity `to_new` maps this frame's points there."""
    scale = np.cbrt(np.linalg.det(to_new[:3, :3]))
    with np.errstate(invalid="ignore"):  # a broken pose stays broken, and is named later
        poses = to_new @ camera_to_world
    poses[:, :3, :3] /= scale
    return np.asarray(poses)


def look_at_point(centers: Float64, forward: Float64) -> Float64:
    """The point [3] nearest to all optical axes, little moved by single stray cameras.

    centers: [C, 3]. forward: [C, 3] unit. Iteratively reweighted least squares: weights 1/distance make it the
    geometric median of the lines. For parallel axes: the point one camera spread before the mean camera.
    """
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    weight = np.ones(len(centers))
    point = centers.mean(axis=0)
    for _ in range(20):
        system = (weight[:, None, None] * across).sum(axis=0)
        if np.linalg.cond(system) > 1e6:
            spread = np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()
            return np.asarray(centers.mean(axis=0) + (spread or 1.0) * forward.mean(axis=0))
        point = np.linalg.solve(system, np.einsum("c,cij,cj->i", weight, across, centers))
        distance = np.linalg.norm(np.einsum("cij,cj->ci", across, point - centers), axis=1)
        weight = 1 / np.maximum(distance, 1e-6 + 0.1 * np.median(distance))
    return np.asarray(point)


def bounding_sphere(points: Float64) -> tuple[Float64, float]:
    """Center [3] and radius of nearly the smallest ball around points [N, 3] (Badoiu and Clarkson, 2003)."""
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    best, best_radius = center, np.inf
    for step in range(200):
        distance = np.linalg.norm(points - center, axis=1)
        far = int(distance.argmax())
        if distance[far] < best_radius:
            best, best_radius = center, float(distance[far])
        center = center + (points[far] - center) / (step + 2)
    return best, best_radius


def visual_hull(
    cameras: Cameras, masks: Sequence[UInt8], around: npt.ArrayLike
) -> tuple[Float64, float] | None:
    """Grid points that no mask rules out, conservatively: a cell stays if any part of it may be inside.

    cameras: world frame. masks: one [H, W] uint8 per camera. around: [3] world point near the object.
    Returns ([N, 3] centers of the cells that stay, half their diagonal), or None when nothing stays.
    """
    distance = np.linalg.norm(cameras.centers.numpy() - np.asarray(around), axis=1)
    outside = [_pixels_to_mask(mask) for mask in masks]
    low, high = np.asarray(around) - np.median(distance), np.asarray(around) + np.median(distance)
    kept, reach = np.zeros((0, 3)), 0.0
    for _ in range(2):  # the second grid covers what the first one left
        cell = (high - low) / HULL_GRID
        reach = float(np.linalg.norm(cell)) / 2
        steps = [low[axis] + (np.arange(HULL_GRID) + 0.5) * cell[axis] for axis in range(3)]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
        kept = _carve(grid, reach, cameras, outside)
        if len(kept) == 0:
            return None
        low, high = kept.min(axis=0) - cell, kept.max(axis=0) + cell
    return kept, reach


def _pixels_to_mask(mask: UInt8) -> Float32:
    return np.asarray(cv2.distanceTransform((mask < 128).astype(np.uint8), cv2.DIST_L2, 5), dtype=np.float32)


def _carve(grid: Float64, reach: float, cameras: Cameras, outside: Sequence[Float32]) -> Float64:
    # An empty mask says nothing of the object, and would carve everything away; a full one cannot carve.
    views = [view for view, distance in enumerate(outside) if distance.min() == 0 < distance.max()]
    if not views:
        return grid[:0]
    allowed = int(HULL_BAD_VIEWS * len(views))
    points = torch.from_numpy(grid).float()
    against = np.zeros(len(grid), dtype=np.int32)
    seen = np.zeros(len(grid), dtype=np.int32)
    for view in views:
        pixels, depth = cameras.project(points, view)
        in_frame, to_mask = _look_up(outside[view], pixels.numpy(), depth.numpy())
        # A cell's half diagonal in pixels; one more pixel for rounding.
        focal = float(cameras.intrinsics[view, :2].max())
        slack = reach * focal / np.maximum(depth.numpy() - reach, 1e-6) + 1
        seen += in_frame
        against += in_frame & (to_mask > slack)
        alive = against <= allowed
        points, against, seen = points[torch.from_numpy(alive)], against[alive], seen[alive]
    return points.numpy().astype(np.float64)[seen * 2 >= len(views)]


def _look_up(image: Float32, pixels: Float32, depth: Float32) -> tuple[npt.NDArray[np.bool_], Float32]:
    height, width = image.shape
    finite = np.nan_to_num(pixels, nan=-1.0).clip(-1, max(height, width))
    column, row = np.floor(finite).astype(np.int64).T
    in_frame = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return in_frame, image[row.clip(0, height - 1), column.clip(0, width - 1)]


def region(
    cameras: Cameras,
    masks: Sequence[UInt8] | None,
    points: Float64 | None,
    *,
    center: npt.ArrayLike | None = None,
) -> tuple[Float64, float]:
    """Center [3] and radius of the region of interest, in world units.

    cameras: the training cameras, world frame. masks: one [H, W] per camera. points: [P, 3] sparse, world.
    center: keeps the center there and finds the radius only.
    """
    around = look_at_point(cameras.centers.double().numpy(), cameras.forward.double().numpy())
    around = around if center is None else np.asarray(center, dtype=np.float64)
    if center is None and not _looked_at(cameras, around):
        around = _before(cameras)
    reach = float(np.median(np.linalg.norm(cameras.centers.double().numpy() - around, axis=1)))
    if masks is not None:
        hull = visual_hull(cameras, masks, around)
        if hull is not None:
            return _hull_sphere(*hull, center=center)
    if points is not None and len(points) >= 20:
        middle, radius = _point_sphere(points, around, reach, center=center)
        seen = points[seen_twice(cameras, points)] if center is None and _one_way(cameras) else points[:0]
        held = np.linalg.norm(seen - middle, axis=1) < radius
        if len(seen) >= 20 and (held.mean() < LEAST_HELD or not _looked_at(cameras, middle)):
            # Pictures that look one way do not say how far what they look at is; the points do.
            return _around(seen)
        return middle, radius
    return around, LOOK_SHARE * reach if reach > 0 else 1.0


def _one_way(cameras: Cameras) -> bool:
    """Whether all look in about the same direction, as from the air or before a wall."""
    return bool(np.linalg.norm(cameras.forward.double().numpy().mean(axis=0)) > ONE_WAY)


def _looked_at(cameras: Cameras, point: Float64) -> bool:
    """Whether a point [3] lies before most cameras."""
    ahead = ((point - cameras.centers.double().numpy()) * cameras.forward.double().numpy()).sum(axis=1)
    return bool((ahead > 0).mean() > 0.5)


def _before(cameras: Cameras) -> Float64:
    """[3] a point one spread of the cameras before their middle."""
    centers, forward = cameras.centers.double().numpy(), cameras.forward.double().numpy().mean(axis=0)
    middle = centers.mean(axis=0)
    spread = np.linalg.norm(centers - middle, axis=1).max() or 1.0
    return np.asarray(middle + spread * forward / max(float(np.linalg.norm(forward)), 1e-9))


def seen_twice(cameras: Cameras, points: Float64) -> npt.NDArray[np.bool_]:
    """Which points [P, 3] lie in the pictures of two cameras or more, or in that of the only one; [P]."""
    times, place = np.zeros(len(points), dtype=np.int64), torch.from_numpy(points).float()
    for view in range(len(cameras)):
        pixels, depth = cameras.project(place, view)
        inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels < cameras.size[view]).all(-1)
        times += inside.numpy()
    return np.asarray(times >= min(2, len(cameras)))


def _around(points: Float64) -> tuple[Float64, float]:
    """The sphere that holds nineteen of twenty points [P, 3], about the middle of their box without the strays."""
    low, high = np.quantile(points, [STRAYS / 2, 1 - STRAYS / 2], axis=0)
    middle = (low + high) / 2
    return middle, HULL_MARGIN * float(np.quantile(np.linalg.norm(points - middle, axis=1), 1 - STRAYS))


def room_region(cameras: Cameras, points: Float64, *, center: npt.ArrayLike | None = None) -> tuple[Float64, float]:
    """Center [3] and radius of the sphere around a room that was seen from within, in world units.

    cameras: the training cameras, world frame. points: [P, 3] on its surfaces, P > 0. center: keeps the center there.
    """
    centers = cameras.centers.double().numpy()
    middle, _ = bounding_sphere(points) if center is None else (np.asarray(center, dtype=np.float64), 0.0)
    distance = np.linalg.norm(points - middle, axis=1)
    kept = np.concatenate([points[distance <= np.quantile(distance, 1 - ROOM_STRAYS)], centers])
    if center is None:
        middle, radius = bounding_sphere(kept)
    else:
        radius = float(np.linalg.norm(kept - middle, axis=1).max())
    return middle, ROOM_MARGIN * radius


def depth_points(cameras: Cameras, depths: Iterable[Float32]) -> Float64:
    """[P, 3] some of the points that z depths [H, W], one per camera, are of; 0 = unknown."""
    share = max(1, ROOM_POINTS // max(len(cameras.size), 1))
    found = []
    for view, depth in enumerate(depths):
        known = np.flatnonzero(depth)
        row, column = np.divmod(known[:: max(1, len(known) // share)], depth.shape[1])
        pixels = torch.from_numpy(np.stack([column, row], axis=-1) + 0.5).float()
        rays = cameras.rays(torch.full((len(pixels),), view), pixels)
        along = torch.from_numpy(depth[row, column]) / (rays.directions @ cameras.forward[view])
        found.append(rays.at(along).double().numpy())
    return np.concatenate(found) if found else np.zeros((0, 3))


def _hull_sphere(cells: Float64, reach: float, *, center: npt.ArrayLike | None) -> tuple[Float64, float]:
    if center is None:
        middle, radius = bounding_sphere(cells)
    else:
        middle = np.asarray(center, dtype=np.float64)
        radius = float(np.linalg.norm(cells - middle, axis=1).max())
    return middle, HULL_MARGIN * radius


def _point_sphere(
    points: Float64, around: Float64, reach: float, *, center: npt.ArrayLike | None
) -> tuple[Float64, float]:
    near = points[np.linalg.norm(points - around, axis=1) < reach]
    if len(near) < 20:
        return around, LOOK_SHARE * reach
    middle = np.median(near, axis=0) if center is None else around
    # Nineteen points of twenty: matches far off the object are common.
    return middle, HULL_MARGIN * float(np.quantile(np.linalg.norm(near - middle, axis=1), 0.95))


def up_direction(camera_to_world: Float64, preferred: npt.ArrayLike | None) -> Float64:
    """The world's up [3]: the mean of the cameras' up vectors, snapped to an axis that is near.

    camera_to_world: [C, 3, 4] or [C, 4, 4], OpenCV axes. preferred: [3], the axis that the format promises; it is taken
    unless the cameras disagree by more than 45 degrees. Else the nearest axis within 20 degrees is taken.
    """
    mean = -camera_to_world[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(mean)
    if length < 1e-3:
        return np.asarray(preferred if preferred is not None else [0.0, 0.0, 1.0], dtype=np.float64)
    mean = mean / length
    if preferred is not None and mean @ np.asarray(preferred) > np.cos(np.pi / 4):
        return np.asarray(preferred, dtype=np.float64)
    axis = int(np.abs(mean).argmax())
    if abs(mean[axis]) > np.cos(np.pi / 9):
        return np.asarray(np.sign(mean[axis]) * np.eye(3)[axis])
    return np.asarray(mean)
