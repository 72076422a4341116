"""The unit sphere: look-at points, hulls, robustness; on real sets it holds the object, not much more."""

import json

import numpy as np
import pytest
import torch
import trimesh

from benchmarks.nadir_flight import STRAYS, Flight, Ground
from dataio import normalize
from dataio.cameras import Cameras
from dataio.formats.transforms import TransformsData
from tests.conftest import shared_data
from tests.support.made_data import real_scene, ring_poses


def test_spheres_bound_points():
    random = np.random.default_rng(0)
    points = random.normal(size=(4000, 3))
    points = points / np.linalg.norm(points, axis=1, keepdims=True) * 2.5 + [1, 2, 3]
    center, radius = normalize.bounding_sphere(points)
    np.testing.assert_allclose(center, [1, 2, 3], atol=0.02)
    assert 2.5 <= radius < 2.52
    assert (np.linalg.norm(points - center, axis=1) <= radius + 1e-12).all()
    assert normalize.bounding_sphere(points[:1])[1] == 0


def test_the_look_at_point_ignores_stray_cameras():
    poses = ring_poses(20)
    poses[:, :3, 3] += [5, 6, 7]
    centers, forward = poses[:, :3, 3].copy(), poses[:, :3, 2].copy()
    np.testing.assert_allclose(normalize.look_at_point(centers, forward), [5, 6, 7], atol=1e-6)
    forward[:3] = [0.0, 0.6, 0.8]
    np.testing.assert_allclose(normalize.look_at_point(centers, forward), [5, 6, 7], atol=0.1)


@pytest.mark.parametrize("count", [1, 5])
def test_parallel_cameras_look_ahead(count):
    centers = np.zeros((count, 3))
    centers[:, 0] = np.arange(count)
    point = normalize.look_at_point(centers, np.tile([0.0, 0.0, 1.0], (count, 1)))
    assert np.isfinite(point).all() and point[2] > 0


def ball_masks(cameras: Cameras, center, radius):
    masks = []
    for view in range(len(cameras)):
        width, height = cameras.size[view].tolist()
        rays = cameras.rays(cameras.size.new_full((width * height,), view), cameras.pixel_grid(view))
        o, d = rays.origins.double().numpy() - center, rays.directions.double().numpy()
        gap = np.linalg.norm(o - (o * d).sum(-1, keepdims=True) * d, axis=1)
        masks.append(np.where(gap < radius, 255, 0).astype(np.uint8).reshape(height, width))
    return masks


def many_cameras():
    """Cameras all around the origin."""
    random = np.random.default_rng(0)
    poses = ring_poses(24)
    turn = [np.linalg.qr(random.normal(size=(3, 3)))[0] for _ in range(24)]
    for pose, q in zip(poses, turn, strict=True):
        q *= np.sign(np.linalg.det(q))
        pose[:3] = q @ pose[:3]
    return Cameras.make(poses, [200.0, 200.0, 64.0, 64.0], [128, 128])


@pytest.mark.parametrize(("center", "radius"), [((0, 0, 0), 0.5), ((0.3, -0.2, 0.1), 0.25)])
def test_the_hull_of_a_ball(center, radius):
    cameras = many_cameras()
    found, reach = normalize.region(cameras, ball_masks(cameras, center, radius), None)
    np.testing.assert_allclose(found, center, atol=0.1 * radius)
    assert radius + np.linalg.norm(found - center) <= reach <= 1.35 * radius


def test_the_hull_survives_bad_masks():
    cameras = many_cameras()
    good = ball_masks(cameras, (0, 0, 0), 0.5)
    masks = [*good]
    masks[3] = np.zeros_like(masks[3])  # empty: not counted
    masks[5] = np.full_like(masks[5], 255)  # full: no news
    center, radius = normalize.region(cameras, masks, None)
    assert np.linalg.norm(center) < 0.05 and 0.5 <= radius < 0.7
    nothing = [np.zeros_like(mask) for mask in good]
    _, fallback = normalize.region(cameras, nothing, None)
    distance = np.median(np.linalg.norm(cameras.centers.numpy(), axis=1))
    assert fallback == pytest.approx(normalize.LOOK_SHARE * distance, rel=1e-3)


def test_a_fixed_center_gets_a_radius_that_holds_the_hull():
    cameras = many_cameras()
    center, radius = normalize.region(cameras, ball_masks(cameras, (0, 0, 0), 0.4), None, center=(0.2, 0, 0))
    assert center.tolist() == [0.2, 0, 0] and 0.6 <= radius < 0.85


def test_sparse_points_are_robust():
    cameras = many_cameras()
    random = np.random.default_rng(1)
    points = random.normal(size=(500, 3)) * 0.1 + [0.2, 0, 0]
    stray = random.normal(size=(200, 3)) * 50
    center, radius = normalize.region(cameras, None, np.concatenate([points, stray]))
    np.testing.assert_allclose(center, [0.2, 0, 0], atol=0.05)
    assert 0.2 < radius < 0.6


def test_up_is_snapped_to_an_axis():
    poses = ring_poses(12)
    assert normalize.up_direction(poses, None).tolist() == [0, 0, 1]
    assert normalize.up_direction(poses, [0, 0, 1.0]).tolist() == [0, 0, 1]
    tilt = np.array([[1, 0, 0, 0], [0, 0.8, -0.6, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(normalize.up_direction(tilt @ poses, None), [0, -0.6, 0.8], atol=1e-9)
    flipped = np.diag([1.0, -1, -1, 1]) @ poses
    assert normalize.up_direction(flipped, [0, 0, 1.0]).tolist() == [0, 0, -1]


@pytest.mark.parametrize("name", ["synthetic/figure", "synthetic/mechanical"])
def test_the_sphere_holds_the_known_surface(name):
    folder = shared_data(name)
    vertices = np.asarray(trimesh.load_mesh(folder / "mesh.ply", process=False).vertices)
    true_center, true_radius = normalize.bounding_sphere(vertices)
    frame = real_scene(name).world_from_scene
    center, radius = frame[:3, 3], frame[0, 0]
    assert np.linalg.norm(vertices - center, axis=1).max() < radius
    assert true_radius < radius < 1.35 * true_radius
    assert np.linalg.norm(center - true_center) < 0.1 * true_radius


def test_the_sphere_holds_the_lego_model():
    scene = real_scene("lego")
    assert scene.masks is not None
    # The surface is not known: a fine hull of all views, with every pixel that is not empty, holds it.
    steps = np.linspace(-1.4, 1.4, 90, dtype=np.float32)
    points = torch.from_numpy(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3))
    for view, mask in enumerate(scene.masks):
        column, row = scene.cameras.project(points, view)[0].floor().long().clamp(0, 399).T
        points = points[torch.from_numpy(mask)[row, column] > 0]
    center, radius = normalize.bounding_sphere(points.double().numpy())
    assert points.norm(dim=-1).max() < 1 < 1.35 * radius
    # ... and reaches the extent that is known of the model, in world units.
    world = points.double().numpy() * scene.world_from_scene[0, 0] + scene.world_from_scene[:3, 3]
    np.testing.assert_allclose(world.max(axis=0), [0.63, 1.14, 1.0], atol=0.06)
    np.testing.assert_allclose(world.min(axis=0), [-0.63, -1.14, -0.53], atol=0.06)


def test_the_sphere_of_the_head_meets_the_view_axes(tmp_path):
    folder = shared_data("head_turntable")
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"] = content["frames"][::5]
    for frame in content["frames"]:
        frame["file_path"], frame["mask_path"] = (
            str(folder / frame["file_path"]),
            str(folder / frame["mask_path"]),
        )
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    frame = TransformsData(path=str(tmp_path), allow_outside=True, downscale=4).load().world_from_scene
    np.testing.assert_allclose(frame[:3, 3], [-0.521, 1.297, 1.718], atol=0.1)
    assert 0.7 < frame[0, 0] < 1.4


@pytest.mark.parametrize("wobble", [0.0, 1.5])
def test_a_flight_straight_down_holds_the_ground(wobble: float) -> None:
    """Axes that are nearly parallel meet anywhere, above the cameras too; the points say how far the ground is."""
    flight = Flight.over(Ground(np.zeros((2, 2)), np.zeros((2, 2, 3))), wobble)
    ground, centers = flight.points[:-STRAYS], flight.poses[:, :3, 3]
    middle, radius = normalize.region(flight.cameras(), None, flight.points)
    held = np.linalg.norm(ground - middle, axis=1) < radius
    assert held.mean() >= 0.9 and abs(middle[2]) < 20 and radius < 200
    assert not (np.linalg.norm(centers - middle, axis=1) < 0.5 * radius).all()
