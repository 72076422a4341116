"""Camera paths for videos, from nothing but the poses of the photographs.

Poses are camera-to-world matrices with OpenCV axes (x right, y down, z forward), [C, 3, 4] or [C, 4, 4], in
any frame and unit; paths come back as [F, 3, 4] in the same. Every path is a closed loop: the last frame
leads into the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

Floats = NDArray[np.float64]
WIDEST_GAP = np.radians(120.0)  # of directions without a camera, for an orbit to be worth it
FASTEST = 0.08  # per frame of an interpolated path, in the units of `_steps`: about two degrees in an orbit
APART = 0.35  # least distance between the keys of an interpolated path, in the same units
STEEPEST = np.radians(75.0)  # elevation of an orbit; above the pole the view would spin
FINE = 50  # places between two keys of a spline at which its way is measured


@dataclass(frozen=True)
class Layout:
    """How cameras stand: around an object, before it on an arc, or inside a place, looking out."""

    kind: Literal["orbit", "arc", "inside"]
    focus: Floats  # [3], the point that the optical axes pass nearest to
    up: Floats  # [3], unit


def camera_layout(poses: ArrayLike, up: ArrayLike | None = None) -> Layout:
    """Decide from the poses alone how the cameras stand.

    poses: [C, 3, 4] or [C, 4, 4], camera-to-world, OpenCV axes. up: [3], any length; default: the mean of the
    pictures' own up. "orbit": most look at the focus, and around the up axis no gap is wider than 120 degrees;
    "arc": most look at the focus from one side; else "inside". Raises ValueError like `as_poses`.
    """
    pose = as_poses(poses)
    upward = _unit(_mean_up(pose) if up is None else np.asarray(up, np.float64))
    focus = focus_point(pose)
    away = pose[:, :, 3] - focus
    direction = away / np.linalg.norm(away, axis=1, keepdims=True).clip(1e-12)
    inward = -(direction * pose[:, :, 2]).sum(1)
    if np.mean(inward > 0.7) < 0.7:
        return Layout("inside", focus, upward)
    right, level = _level_axes(upward)
    azimuth = np.sort(np.arctan2(direction @ level, direction @ right))
    gap = np.diff(azimuth, append=azimuth[0] + 2.0 * np.pi).max()
    from_mean = np.arccos(np.clip(direction @ _unit(direction.mean(0)), -1.0, 1.0))
    around = gap <= WIDEST_GAP and np.median(from_mean) > np.radians(30.0)
    return Layout("orbit" if around else "arc", focus, upward)


def spiral_path(poses: ArrayLike, frames: int, *, up: ArrayLike | None = None) -> Floats:
    """A closed tour that suits how the cameras stand, [F, 3, 4], F = `frames`.

    Around an object: one orbit at the cameras' median elevation and distance, rising and sinking gently. On
    an arc: two turns of a spiral that stays within the spread of the cameras' directions and distances.
    Inside a place: there and back along the photographs. poses, up: as in `camera_layout`. Raises ValueError for
    fewer than one frame or two poses.
    """
    pose = as_poses(poses)
    if frames < 1 or len(pose) < 2:
        raise ValueError(f"at least 1 frame and 2 poses expected, got {frames} and {len(pose)}")
    layout = camera_layout(pose, up)
    if layout.kind == "inside":
        return interpolated_path(pose, frames)
    return _orbit(pose, layout, frames) if layout.kind == "orbit" else _arc(pose, layout, frames)


def interpolated_path(poses: ArrayLike, frames: int) -> Floats:
    """There and back through the photographs' own places, smoothly, [F, 3, 4], F = `frames`.

    The poses are taken in the given order, or from neighbor to neighbor where that is the shorter way, and
    thinned to what so many frames can show without haste. Cameras that look at one point stay at their
    distance from it on the way. Positions follow a cubic spline and orientations a rotation spline. poses: as in
    `camera_layout`. Raises ValueError like `spiral_path`.
    """
    pose = as_poses(poses)
    if frames < 1 or len(pose) < 2:
        raise ValueError(f"at least 1 frame and 2 poses expected, got {frames} and {len(pose)}")
    keys = _thinned(pose[_tour(pose)], FASTEST * frames)
    keys = keys[np.concatenate([[True], _steps(keys) > 1e-6])]
    if len(keys) == 1:
        return np.repeat(keys, frames, axis=0)
    share = 0.5 * (1.0 - np.cos(2.0 * np.pi * np.arange(frames) / frames))  # there and back, without a jerk
    return _spline(keys, share)


@dataclass(frozen=True)
class Around:
    """Places around a point: azimuth about the up axis, elevation above the level plane, both radians, and distance."""

    center: Floats  # [3]
    up: Floats  # [3], unit

    def angles(self, places: Floats) -> tuple[Floats, Floats, Floats]:
        """Azimuth, elevation and distance [F] of places [F, 3]."""
        right, level = _level_axes(self.up)
        away = places - self.center
        distance = np.linalg.norm(away, axis=1)
        elevation = np.arcsin(np.clip(away @ self.up / distance.clip(1e-12), -1.0, 1.0))
        return np.arctan2(away @ level, away @ right), elevation, distance

    def looking(self, azimuth: Floats, elevation: ArrayLike, distance: ArrayLike) -> Floats:
        """Cameras [F, 3, 4] that look at the center, upright, from azimuth [F], elevation and distance, [F] or one."""
        right, level = _level_axes(self.up)
        flat = np.cos(azimuth)[:, None] * right + np.sin(azimuth)[:, None] * level
        rise = np.broadcast_to(np.asarray(elevation, np.float64), azimuth.shape)[:, None]
        direction = np.cos(rise) * flat + np.sin(rise) * self.up
        far = np.broadcast_to(np.asarray(distance, np.float64), azimuth.shape)[:, None]
        return look_at(self.center + far * direction, self.center, self.up)


def focus_point(poses: ArrayLike) -> Floats:
    """The point nearest to the optical axes, [3]; axes that miss it far count less.

    Where the axes are nearly parallel the distance is unknown: then a point before the cameras, three times
    as far as they are spread. poses: as in `camera_layout`.
    """
    pose = as_poses(poses)
    center, forward = pose[:, :, 3], pose[:, :, 2]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]  # removes what lies along the axis
    middle = np.median(center, axis=0)
    weight = np.ones(len(pose))
    point = middle
    for _ in range(10):
        weighed = weight[:, None, None] * across
        values, vectors = np.linalg.eigh(weighed.sum(0))
        if values[0] < 1e-3 * values[-1]:
            spread = np.sqrt(((center - middle) ** 2).sum(1).mean())
            return middle + 3.0 * max(spread, 1e-6) * _unit(forward.mean(0))
        target = (weighed @ (center - middle)[:, :, None]).sum(0)[:, 0]
        point = middle + vectors @ ((vectors.T @ target) / values)
        miss = np.linalg.norm((across @ (point - center)[:, :, None])[:, :, 0], axis=1)
        weight = 1.0 / np.maximum(miss, max(float(np.median(miss)), 1e-9))
    return point


def look_at(centers: ArrayLike, target: ArrayLike, up: ArrayLike) -> Floats:
    """Cameras at `centers` [F, 3] that look at `target` [3], pictures upright along `up` [3]; [F, 3, 4].

    Where a camera looks along `up` the picture's turn about the axis is arbitrary.
    """
    center = np.atleast_2d(np.asarray(centers, np.float64))
    forward = _unit(np.asarray(target, np.float64) - center)
    right = np.cross(forward, np.asarray(up, np.float64))
    lost = np.linalg.norm(right, axis=1) < 1e-9
    right[lost] = np.cross(forward[lost], np.eye(3)[np.abs(forward[lost]).argmin(1)])
    right = _unit(right)
    down = np.cross(forward, right)
    return np.stack([right, down, forward, center], axis=2)


def as_poses(poses: ArrayLike) -> Floats:
    """Poses as [C, 3, 4] float64. Raises ValueError for other shapes and values that are not finite."""
    pose = np.asarray(poses, np.float64)
    if pose.ndim != 3 or pose.shape[1:] not in ((3, 4), (4, 4)) or not np.isfinite(pose).all():
        raise ValueError(f"finite poses [C, 3, 4] or [C, 4, 4] expected, got {pose.shape}")
    return pose[:, :3]


def _orbit(pose: Floats, layout: Layout, frames: int) -> Floats:
    around = Around(layout.focus, layout.up)
    azimuth, height, distance = around.angles(pose[:, :, 3])
    low, high = np.percentile(height, (10, 90))
    middle = np.clip(np.median(height), -STEEPEST, STEEPEST)
    turn = 2.0 * np.pi * np.arange(frames) / frames
    swing = min(np.radians(8.0), (high - low) / 4.0)
    elevation = np.clip(middle + swing * np.sin(2.0 * turn), -STEEPEST, STEEPEST)
    # The tour begins where the first photograph was taken.
    return around.looking(azimuth[0] + turn, elevation, np.median(distance))


def _arc(pose: Floats, layout: Layout, frames: int) -> Floats:
    """An ellipse in the cameras' angles as seen from the focus, along their two principal directions."""
    away = pose[:, :, 3] - layout.focus
    distance = np.linalg.norm(away, axis=1).clip(1e-12)
    direction = away / distance[:, None]
    front = _unit(direction.mean(0))
    # From straight above the world's up says nothing; there the pictures' own is taken.
    up = layout.up if abs(layout.up @ front) < 0.9 else _mean_up(pose)
    upright = _unit(up - (up @ front) * front)
    side = np.cross(upright, front)
    sideways, upwards = np.arctan2(direction @ side, direction @ front), np.arcsin(direction @ upright)
    angles = np.stack([sideways, upwards], axis=1)
    _, principal = np.linalg.eigh(np.cov(angles.T) + 1e-12 * np.eye(2))
    low, high = np.percentile(angles @ principal, (10, 90), axis=0)
    turn = 4.0 * np.pi * np.arange(frames) / frames
    wide = (0.75 + 0.25 * np.cos(0.5 * turn))[:, None]
    along = (low + high) / 2.0 + wide * (high - low) / 2.0 * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    surface, *_ = np.linalg.lstsq(_terms(angles @ principal), np.log(distance), rcond=None)
    radius = np.clip(np.exp(_terms(along) @ surface), distance.min(), distance.max())
    across, above = (along @ principal.T).T
    flat = np.sin(across)[:, None] * side + np.cos(across)[:, None] * front
    towards = np.cos(above)[:, None] * flat + np.sin(above)[:, None] * upright
    return look_at(layout.focus + radius[:, None] * towards, layout.focus, upright)


def _spline(keys: Floats, share: Floats) -> Floats:
    """Poses at shares [F] in [0, 1] of the way along a spline through the keys, the way measured by `_steps`."""
    return Spline.through(keys).at(share)


@dataclass(frozen=True)
class Spline:
    """A smooth way through poses, at shares of its length: shift in units of the spread, plus turn in radians.

    Knots lie the distance to the power 0.8 apart: less than 1 keeps the curve from swinging out between keys of uneven
    distance.
    """

    keys: Floats  # [K, 3, 4]
    knots: Floats  # [K]
    fine: Floats  # [N] knots, those of the keys among them
    way: Floats  # [N], how far the way is at each

    @staticmethod
    def through(keys: Floats) -> Spline:
        """The way through two keys [K, 3, 4] or more, no two in a row the same."""
        knots = np.concatenate([[0.0], np.cumsum(_steps(keys) ** 0.8)])
        numbers = np.arange(len(keys), dtype=np.float64)
        fine = np.interp(np.linspace(0.0, numbers[-1], FINE * (len(keys) - 1) + 1), numbers, knots)
        way = np.concatenate([[0.0], np.cumsum(_steps(_at_knots(keys, knots, fine)))])
        return Spline(keys, knots, fine, way)

    def shares(self) -> Floats:
        """[K], from 0 to 1: at which share of the way each key lies."""
        return self.way[::FINE] / self.way[-1]

    def at(self, share: Floats) -> Floats:
        """Poses [F, 3, 4] at shares [F] in [0, 1]."""
        return _at_knots(self.keys, self.knots, np.interp(share * self.way[-1], self.way, self.fine))


def _at_knots(keys: Floats, knots: Floats, at: Floats) -> Floats:
    turning = RotationSpline(knots, Rotation.from_matrix(keys[:, :, :3]))
    return np.concatenate([turning(at).as_matrix(), _positions(keys, knots, at)[:, :, None]], axis=2)


def _positions(keys: Floats, knots: Floats, at: Floats) -> Floats:
    """Positions [F, 3] on a spline through the keys', at their distance from the focus if there is one."""
    center = keys[:, :, 3]
    layout = camera_layout(keys)
    if layout.kind == "inside":
        return CubicSpline(knots, center, bc_type="natural")(at)
    distance = np.linalg.norm(center - layout.focus, axis=1)
    way = CubicSpline(knots, (center - layout.focus) / distance[:, None], bc_type="natural")(at)
    radius = np.exp(CubicSpline(knots, np.log(distance), bc_type="natural")(at))
    return layout.focus + radius[:, None] * _unit(way)


def _steps(pose: Floats) -> Floats:
    """How far each pose is from the last, [C - 1]: shift in units of the spread, plus turn in radians."""
    return _distance(pose[1:], pose[:-1], _spread(pose))


def _distance(pose: Floats, other: Floats, spread: float) -> Floats:
    """Of poses [C, 3, 4] from others, or from one [3, 4]."""
    cosine = ((pose[:, :, :3] * other[..., :3]).sum((1, 2)) - 1.0) / 2.0
    shift = np.linalg.norm(pose[:, :, 3] - other[..., 3], axis=1)
    return shift / spread + np.arccos(np.clip(cosine, -1.0, 1.0))


def _spread(pose: Floats) -> float:
    center = pose[:, :, 3]
    return max(float(np.linalg.norm(center - center.mean(0), axis=1).mean()), 1e-12)


def _tour(pose: Floats) -> NDArray[np.int64]:
    """The given order, or the one from neighbor to nearest neighbor, whichever is shorter."""
    spread = _spread(pose)
    left = np.arange(1, len(pose))
    order = [0]
    while len(left):
        nearest = int(_distance(pose[left], pose[order[-1]], spread).argmin())
        order.append(int(left[nearest]))
        left = np.delete(left, nearest)
    return np.array(order) if _steps(pose[order]).sum() < _steps(pose).sum() else np.arange(len(pose))


def _thinned(tour: Floats, longest: float) -> Floats:
    """The tour's beginning, a way of at most `longest`, without keys that crowd the one before."""
    spread, way, kept = _spread(tour), 0.0, [0]
    for i in range(1, len(tour)):
        step = float(_distance(tour[i : i + 1], tour[kept[-1]], spread)[0])
        if len(kept) > 1 and way + step > longest:
            break
        if step > APART or i == len(tour) - 1:
            kept.append(i)
            way += step
    return tour[kept]


def _mean_up(pose: Floats) -> Floats:
    mean = -pose[:, :, 1].mean(0)
    return mean if np.linalg.norm(mean) > 0.05 else np.array([0.0, 0.0, 1.0])


def _level_axes(up: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors that span the plane across `up`, right-handed with it."""
    right = _unit(np.cross(up, np.eye(3)[np.abs(up).argmin()]))
    return right, np.cross(up, right)


def _terms(angles: Floats) -> Floats:
    """The terms of a quadratic in two angles, [N, 2] -> [N, 6]: enough for cameras on a plane."""
    u, v = angles.T
    return np.column_stack([np.ones(len(angles)), u, v, u * u, u * v, v * v])


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
