"""Paths through known arrangements of cameras: smooth, closed, upright, and where photographs were taken."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import shared_data
from utils.paths.camera_paths import camera_layout, focus_point, interpolated_path, look_at, spiral_path

Floats = NDArray[np.float64]
UP = np.array([0.0, 0.0, 1.0])
TARGET = np.array([3.0, -2.0, 0.5])


def around(azimuth: Floats, elevation: Floats, radius: float | Floats = 4.0) -> Floats:
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    direction = np.stack([x, y, np.sin(elevation)], 1)
    return look_at(TARGET + np.asarray(radius).reshape(-1, 1) * direction, TARGET, UP)


def ring(count: int = 30) -> Floats:
    azimuth = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    return around(azimuth, np.radians(30.0 + 10.0 * np.cos(7.0 * azimuth)))


def hemisphere(count: int = 80) -> Floats:
    rng = np.random.default_rng(0)
    return around(rng.uniform(0.0, 2.0 * np.pi, count), np.arcsin(rng.uniform(0.05, 0.95, count)))


def arc(count: int = 40) -> Floats:
    rng = np.random.default_rng(1)
    elevation = np.radians(rng.uniform(-10.0, 50.0, count))
    return around(rng.uniform(0.5, 2.0, count), elevation, rng.uniform(3.5, 4.5, count))


def from_above() -> Floats:
    """A flight over a field, cameras looking straight down."""
    x, y = np.meshgrid(np.linspace(-2, 2, 6), np.linspace(-2, 2, 6))
    down = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    centers = np.stack([x.ravel(), y.ravel(), np.full(36, 5.0)], 1)
    return np.concatenate([np.broadcast_to(down, (36, 3, 3)), centers[:, :, None]], axis=2)


def room(count: int = 50) -> Floats:
    """A walk inside, looking about."""
    t = np.linspace(0.0, 1.0, count)
    centers = np.stack([2.0 * t, np.sin(3.0 * t), 1.5 + 0.0 * t], 1)
    ahead = np.stack([np.cos(9.0 * t), np.sin(9.0 * t), 0.0 * t], 1)
    return np.concatenate([look_at(c[None], c + a, UP) for c, a in zip(centers, ahead, strict=True)])


ALL = pytest.mark.parametrize("make", [ring, hemisphere, arc, from_above, room])


def assert_smooth_closed_loop(path: Floats) -> None:
    following = np.roll(path, -1, axis=0)
    shift = np.linalg.norm(following[:, :, 3] - path[:, :, 3], axis=1)
    cosine = (np.einsum("fij,fij->f", path[:, :, :3], following[:, :, :3]) - 1.0) / 2.0
    turn = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    assert shift.max() < 4.0 * shift.mean() + 1e-9, "no jump, not even from the last frame to the first"
    assert turn.max() < max(4.0 * turn.mean(), 0.5) and turn.max() < 30.0


def assert_no_sharp_bends(path: Floats) -> None:
    following = np.roll(path, -1, axis=0)
    bend = np.linalg.norm(np.roll(path, 1, axis=0) + following - 2.0 * path, axis=(1, 2))
    assert bend.max() < 0.7 * np.linalg.norm(following - path, axis=(1, 2)).max()


@ALL
@pytest.mark.parametrize("frames", [60, 240])
@pytest.mark.parametrize("kind", [spiral_path, interpolated_path])
def test_paths_are_smooth_closed_and_rigid(make, kind, frames) -> None:
    path = kind(make(), frames)
    assert path.shape == (frames, 3, 4) and np.isfinite(path).all()
    rotation = path[:, :, :3]
    assert np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert_smooth_closed_loop(path)
    if kind is spiral_path and make is not room:
        assert_no_sharp_bends(path)


@pytest.mark.parametrize(
    "make, kind",
    [(ring, "orbit"), (hemisphere, "orbit"), (arc, "arc"), (from_above, "arc"), (room, "inside")],
)
def test_layout(make, kind) -> None:
    assert camera_layout(make()).kind == kind
    assert camera_layout(make(), UP).kind == kind


@pytest.mark.parametrize("make", [ring, hemisphere, arc])
def test_focus_is_where_the_cameras_look(make) -> None:
    poses = make()
    assert focus_point(poses) == pytest.approx(TARGET, abs=1e-6)
    poses[0, :, :3] = poses[0, :, [1, 2, 0]].T  # one camera looks away
    assert focus_point(poses) == pytest.approx(TARGET, abs=0.05)


def test_focus_of_parallel_axes_is_before_them() -> None:
    point = focus_point(from_above())
    assert point[:2] == pytest.approx([0.0, 0.0], abs=1e-6) and point[2] < 0.0


def test_look_at_is_opencv() -> None:
    pose = look_at([[0.0, -2.0, 1.0]], [0.0, 0.0, 1.0], UP)[0]
    assert pose == pytest.approx(np.array([[1, 0, 0, 0], [0, 0, 1, -2], [0, -1, 0, 1]], float))
    straight_down = look_at([[0.0, 0.0, 5.0]], [0.0, 0.0, 0.0], UP)[0, :, :3]
    assert straight_down @ straight_down.T == pytest.approx(np.eye(3))


def test_orbit_goes_round_at_the_cameras_height_and_distance() -> None:
    path = spiral_path(ring(), 120, up=UP)
    away = path[:, :, 3] - TARGET
    assert np.linalg.norm(away, axis=1) == pytest.approx(4.0)
    elevation = np.degrees(np.arcsin(away[:, 2] / 4.0))
    assert elevation.min() > 19.0 and elevation.max() < 41.0
    assert np.ptp(elevation) > 2.0, "it rises and sinks"
    azimuth = np.unwrap(np.arctan2(away[:, 1], away[:, 0]))
    assert abs(azimuth[-1] - azimuth[0]) == pytest.approx(2.0 * np.pi * 119 / 120)
    assert -(path[:, :, 2] * away).sum(1) / 4.0 == pytest.approx(1.0), "looks at the object"
    assert (path[:, 2, 1] < -0.7).all(), "pictures are upright: their down is the world's"


@pytest.mark.parametrize("make", [arc, from_above])
def test_spiral_stays_within_the_cameras(make) -> None:
    poses = make()
    path = spiral_path(poses, 120, up=UP)
    centers, route = poses[:, :, 3], path[:, :, 3]
    margin = 0.05 * np.ptp(centers, axis=0).max()
    assert (route >= centers.min(0) - margin).all() and (route <= centers.max(0) + margin).all()
    apart = np.linalg.norm(route[:, None] - centers, axis=2).min(1)
    assert apart.max() < 0.3 * np.linalg.norm(np.ptp(centers, axis=0))
    extent = np.linalg.norm(np.ptp(centers, axis=0))
    assert np.linalg.norm(np.ptp(route, axis=0)) > 0.4 * extent, "and it moves"


def test_interpolation_passes_through_the_photographs() -> None:
    poses = around(np.linspace(0.0, 2.0, 5), np.radians(np.array([20.0, 30.0, 25.0, 10.0, 15.0])))
    path = interpolated_path(poses, 4000)
    for pose in poses:
        assert np.abs(path - pose).max(axis=(1, 2)).min() < 5e-3
    assert np.linalg.norm(path[:, :, 3] - TARGET, axis=1) == pytest.approx(4.0, abs=1e-3), "at their distance"


def test_shuffled_photographs_are_put_in_order() -> None:
    poses = room()
    shuffled = poses[np.random.default_rng(0).permutation(len(poses))]
    path = interpolated_path(shuffled, 120)
    assert_smooth_closed_loop(path)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="at least"):
        spiral_path(ring()[:1], 10)
    with pytest.raises(ValueError, match="at least"):
        interpolated_path(ring(), 0)
    with pytest.raises(ValueError, match="finite poses"):
        spiral_path(np.full((3, 3, 4), np.nan), 10)
    assert interpolated_path(ring()[[0, 0]], 3).shape == (3, 3, 4)
    assert np.isfinite(spiral_path(ring()[:2], 5)).all()


@pytest.mark.parametrize(
    "name, kind",
    [
        ("lego/transforms_train.json", "orbit"),
        ("fox/transforms.json", "arc"),
        ("synthetic/figure/transforms_train.json", "orbit"),
        ("synthetic/courtyard/transforms_train.json", "orbit"),
        ("head_turntable/transforms.json", "orbit"),
        ("synthetic/room/transforms_train.json", "orbit"),
        ("synthetic/terrain/transforms_train.json", "arc"),
    ],
)
def test_real_arrangements(name: str, kind: str) -> None:
    frames = json.loads(shared_data(name).read_text())["frames"]
    poses = np.array([frame["transform_matrix"] for frame in frames]) @ np.diag([1.0, -1.0, -1.0, 1.0])
    assert camera_layout(poses).kind == kind
    path = spiral_path(poses, 120)
    assert_smooth_closed_loop(path)
    assert_no_sharp_bends(path)
    centers = poses[:, :3, 3]
    margin = 0.3 * np.ptp(centers, axis=0).max()
    assert (path[:, :, 3] >= centers.min(0) - margin).all()
    assert (path[:, :, 3] <= centers.max(0) + margin).all()
