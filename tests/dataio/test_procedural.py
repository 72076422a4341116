"""The demo scene: what is rendered is where the distance function says, in every frame."""

import time

import numpy as np
import pytest
import torch

from dataio.formats.procedural import ProceduralData, reference_mesh, world_from_object
from dataio.shapes import demo_object


@pytest.fixture(scope="module")
def scene():
    return ProceduralData(views=6, test_views=2, size=96, depths=True).load()


def in_object(scene, points: torch.Tensor) -> np.ndarray:
    """Scene points [N,3] in the object's frame, [3,N] float32."""
    matrix = np.linalg.inv(world_from_object()) @ scene.world_from_scene
    return (points.double().numpy() @ matrix[:3, :3].T + matrix[:3, 3]).T.astype(np.float32)


def test_the_distance_function_is_safe_to_step():
    random = np.random.default_rng(0)
    a = random.uniform(-1, 1, (3, 200_000)).astype(np.float32)
    b = a + random.normal(size=a.shape).astype(np.float32) * np.float32(0.02)
    slope = np.abs(demo_object.distance(a) - demo_object.distance(b)) / np.linalg.norm(a - b, axis=0)
    assert slope.max() <= 1 / demo_object.STEP
    assert (demo_object.distance(a)[np.linalg.norm(a, axis=0) > demo_object.BALL] > 0).all()


def test_normals_point_along_the_slope():
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (3, 1000)).astype(np.float64)
    step = 1e-6
    slope = np.stack(
        [
            demo_object.distance(points + step * axis[:, None])
            - demo_object.distance(points - step * axis[:, None])
            for axis in np.eye(3)
        ]
    )
    slope /= np.linalg.norm(slope, axis=0)
    cosine = (slope * demo_object.normals(points.astype(np.float32))).sum(axis=0)
    assert np.quantile(cosine, 0.05) > 0.999


def test_frames_are_three_different_ones(scene):
    assert not np.allclose(scene.world_from_scene, np.eye(4)) and not np.allclose(
        world_from_object(), np.eye(4)
    )
    assert len(scene.splits["train"]) == 6 and scene.splits["test"].tolist() == [6, 7]
    np.testing.assert_allclose(scene.cameras.centers.norm(dim=-1), 3.2, atol=1e-5)


@pytest.mark.parametrize("view", [0, 3, 7])
def test_depths_end_on_the_surface(scene, view):
    depth = torch.from_numpy(scene.depths[view]).reshape(-1)
    hit = torch.nonzero(depth > 0).squeeze(1)
    rays = scene.cameras.rays(torch.full((len(hit),), view), scene.cameras.pixel_grid(view)[hit])
    t = depth[hit] / (rays.directions @ scene.cameras.forward[view])
    gap = np.abs(demo_object.distance(in_object(scene, rays.at(t))))
    assert gap.max() < 1e-4 and np.median(gap) < 1e-5
    assert np.array_equal(scene.masks[view].reshape(-1) > 0, (depth > 0).numpy())
    assert 0.1 < (depth > 0).float().mean() < 0.6


@pytest.mark.parametrize("view", [1, 6])
def test_masks_are_those_of_a_dense_search(scene, view):
    grid = scene.cameras.pixel_grid(view)
    rays = scene.cameras.rays(torch.full((len(grid),), view), grid)
    least = np.full(len(grid), np.inf)
    for t in torch.arange(2.2, 4.2, 0.004):
        points = in_object(scene, rays.at(t.expand(len(grid))))
        least = np.minimum(least, demo_object.distance(points))
    seen = scene.masks[view].reshape(-1) > 0
    assert (least[seen] < 0.004).all() and (least[~seen] > -1e-4).all()


def test_the_reference_is_the_surface_in_world_units(scene):
    mesh = reference_mesh(128)
    to_object = np.linalg.inv(world_from_object())
    points = (np.asarray(mesh.vertices) @ to_object[:3, :3].T + to_object[:3, 3]).T.astype(np.float32)
    assert np.abs(demo_object.distance(points)).max() < 1e-4
    assert mesh.is_watertight and mesh.euler_number == -6 and mesh.volume > 0
    to_scene = np.linalg.inv(scene.world_from_scene)
    radius = np.linalg.norm(np.asarray(mesh.vertices) @ to_scene[:3, :3].T + to_scene[:3, 3], axis=1)
    assert 0.8 < radius.max() < 1 and scene.reference is not None


def test_it_is_the_same_every_time(scene):
    again = ProceduralData(views=6, test_views=2, size=96).load()
    assert all(map(np.array_equal, again.images, scene.images))
    assert len({image.tobytes() for image in again.images}) == 8


def test_common_keys_are_heeded():
    black = ProceduralData(views=2, test_views=0, size=64, downscale=2, background="black", near=0.1).load()
    assert black.images[0].shape == (32, 32, 3) and (black.images[0][0, 0] == 0).all()
    assert black.background == (0, 0, 0) and black.cameras.near.eq(0.1).all()
    off = ProceduralData(
        views=2, test_views=0, size=32, masks="off", center=(1.0, 2.0, 3.0), radius=9.0
    ).load()
    assert off.masks is None and off.world_from_scene[:3, 3].tolist() == [1, 2, 3]
    assert "2 + 0 views" in ProceduralData(views=2, test_views=0).check()


def test_the_default_scene_is_there_soon():
    start = time.process_time()
    ProceduralData(views=10, test_views=2).load()
    assert time.process_time() - start < 5 / 2  # a quarter of the default scene: 0.5 s on an idle core
