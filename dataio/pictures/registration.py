"""Depth that another camera took, as the color camera would have seen it.

RGB-D sensors have two cameras, side by side, of different focal lengths and sizes. Each depth image is warped
once, when it is loaded; from there on, depth and color belong to the same pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Pixels = tuple[Float64, Float64]  # column and row, in units of pixels, whole numbers at the centers

# Neighbors whose depths differ by more than this share are on two surfaces: there is nothing between them.
EDGE = 0.05


@dataclass(frozen=True)
class DepthCamera:
    """A pinhole camera for depth beside each color camera.

    intrinsics: [4] fx fy cx cy in its own pixels, centers at +0.5. size: width, height. color_from_depth: [4, 4] rigid,
    from its frame to the color camera's; OpenCV axes, world units.
    """

    intrinsics: Float64
    size: tuple[int, int]
    color_from_depth: Float64

    @property
    def stands_apart(self) -> bool:
        """Whether it sees other things than the color camera: not so if it is in the same place."""
        return not np.allclose(self.color_from_depth, np.eye(4), atol=1e-6)


def registered(depth: Float32, camera: DepthCamera, intrinsics: Float64, size: tuple[int, int]) -> Float32:
    """The z depth [H, W] that the color camera sees, 0 = unknown.

    depth: [h, w] z depth of the depth camera, world units, 0 = unknown. intrinsics: [4] fx fy cx cy of the color
    camera. size: its width, height. Between depth pixels depth is interpolated along surfaces, and taken from the
    nearest pixel across edges. What another surface hides from the color camera is left out.
    """
    column, row = np.meshgrid(np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64))
    if not camera.stands_apart:  # a pixel's place in the depth image does not depend on its depth
        at = _project(_lift((column, row), np.ones_like(column), intrinsics), camera.intrinsics)
        return _looked_up(depth, at).astype(np.float32)
    seen = _splat(depth, camera, intrinsics, size)
    depth_from_color = np.asarray(np.linalg.inv(camera.color_from_depth), dtype=np.float64)
    for _ in range(3):  # the place in the depth image follows from the depth: a few rounds settle it
        there = _moved(_lift((column, row), seen, intrinsics), depth_from_color)
        at = _project(there, camera.intrinsics)
        found = _looked_up(depth, at)
        back = _moved(_lift(at, found, camera.intrinsics), camera.color_from_depth)[..., 2]
        same = (seen > 0) & (found > 0) & (np.abs(back - seen) < EDGE * seen)
        seen = np.where(same, back, 0.0)
    return seen.astype(np.float32)


def _lift(at: Pixels, depth: Float64, intrinsics: Float64) -> Float64:
    """Points [*N, 3] at z depths [*N]."""
    fx, fy, cx, cy = intrinsics
    x, y = (at[0] + 0.5 - cx) / fx, (at[1] + 0.5 - cy) / fy
    return np.stack([x * depth, y * depth, depth], axis=-1)


def _project(points: Float64, intrinsics: Float64) -> Pixels:
    fx, fy, cx, cy = intrinsics
    z = np.where(points[..., 2] > 0, points[..., 2], np.inf)
    column = np.where(np.isfinite(z), fx * points[..., 0] / z + cx - 0.5, -10.0)
    return column, np.asarray(fy * points[..., 1] / z + cy - 0.5)


def _moved(points: Float64, matrix: Float64) -> Float64:
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _looked_up(depth: Float32, at: Pixels) -> Float64:
    """Depth at places between pixels: bilinear where the four neighbors are of one surface, else the nearest."""
    height, width = depth.shape
    column, row = (np.clip(x, -2.0, limit + 1.0) for x, limit in zip(at, (width, height), strict=True))
    inside = (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)
    left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    right, low = (left + 1).clip(0, width - 1), (top + 1).clip(0, height - 1)
    across, down = column - left, row - top
    left, top = left.clip(0, width - 1), top.clip(0, height - 1)
    corners = np.stack([depth[top, left], depth[top, right], depth[low, left], depth[low, right]]).astype(np.float64)
    shares = np.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
    nearest = np.take_along_axis(corners, shares.argmax(axis=0)[None], axis=0)[0]
    one_surface = (corners.min(axis=0) > 0) & (np.ptp(corners, axis=0) < EDGE * nearest)
    return np.where(inside, np.where(one_surface, (corners * shares).sum(axis=0), nearest), 0.0)


def _splat(depth: Float32, camera: DepthCamera, intrinsics: Float64, size: tuple[int, int]) -> Float64:
    """The nearest depth that falls into each color pixel, each depth pixel cut up finely enough to leave no holes."""
    fine = 1 + int(np.ceil(max(intrinsics[:2] / camera.intrinsics[:2])))
    height, width = depth.shape
    row, column = np.nonzero(depth)
    z = depth[row, column].astype(np.float64)
    buffer = np.full(size[0] * size[1], np.inf)
    for k in range(fine * fine):
        shift = (np.array(divmod(k, fine)) + 0.5) / fine - 0.5
        points = _moved(_lift((column + shift[1], row + shift[0]), z, camera.intrinsics), camera.color_from_depth)
        to = [
            np.rint(x).astype(np.int64) for x in np.nan_to_num(_project(points, intrinsics), nan=-1.0).clip(-1, 2**30)
        ]
        hit = (to[0] >= 0) & (to[0] < size[0]) & (to[1] >= 0) & (to[1] < size[1]) & (points[:, 2] > 0)
        np.minimum.at(buffer, to[1][hit] * size[0] + to[0][hit], points[hit, 2])
    return np.where(np.isfinite(buffer), buffer, 0.0).reshape(size[::-1])
