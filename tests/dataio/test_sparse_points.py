"""Points triangulated from photographs of known surfaces, and what they leave of space, against the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dataio.cameras import Cameras
from dataio.formats.procedural import ProceduralData
from dataio.scene import Scene
from dataio.seen_points import SeenPoints
from dataio.sfm.triangulation import SparsePoints, triangulated
from dataio.shapes.carved import Carved, carved_by
from dataio.views import Tracks
from tests.support.made_data import ring_poses
from tests.support.textured_ball import FOCAL, RADIUS, textured_ball

SIZE = 160


def test_points_lie_on_the_surface_and_three_views_saw_each() -> None:
    cameras, pictures = textured_ball(20, SIZE)
    train = np.arange(1, len(pictures))
    points = triangulated(cameras, pictures, None, train)
    assert len(points) > 300
    off = np.abs(np.linalg.norm(points.position, axis=1) - RADIUS)
    pixel = 3 / FOCAL
    assert np.median(off) < pixel and np.quantile(off, 0.95) < 3 * pixel
    assert np.bincount(points.point).min() >= 3
    assert set(points.view) <= set(train)


def test_masks_keep_points_off_the_rest() -> None:
    cameras, pictures = textured_ball(8, SIZE)
    masks = [np.zeros((SIZE, SIZE), np.uint8) for _ in pictures]
    assert len(triangulated(cameras, pictures, masks, np.arange(8))) == 0


def test_wrong_poses_leave_hardly_any_points() -> None:
    cameras, pictures = textured_ball(20, SIZE)
    every = np.arange(len(pictures))
    mixed = cameras[np.random.default_rng(0).permutation(len(pictures))]
    assert len(triangulated(mixed, pictures, None, every)) < 0.1 * len(triangulated(cameras, pictures, None, every))


def test_pictures_without_texture_have_no_points() -> None:
    cameras = Cameras.make(ring_poses(5), [60, 60, 32, 32], [64, 64])
    found = triangulated(cameras, [np.full((64, 64, 3), 90, np.uint8)] * 5, None, np.arange(5))
    assert len(found) == 0 and found.position.shape == (0, 3)


def test_where_the_data_say_who_saw_points_nothing_is_triangulated() -> None:
    position = np.array([[0, 0, 0.1], [0, 0.2, 0]], np.float32)
    tracks = Tracks(np.array([0, 0, 1, 1]), np.array([0, 17, 1, 2]), np.zeros((4, 2)))
    found = replace(demo(), points=position, tracks=tracks).sparse_points
    assert found.position is position  # view 17 is held out
    assert list(zip(found.point, found.view, strict=True)) == [(0, 0), (1, 1), (1, 2)]


def demo() -> Scene:
    return ProceduralData(views=16, test_views=2, size=16, masks="off").load()


def seen_from_around(surface: np.ndarray, outward: np.ndarray) -> tuple[Cameras, SparsePoints]:
    """Cameras at distance 3 in all directions; each sees the points of a convex surface that face it."""
    rng = np.random.default_rng(1)
    back = rng.normal(size=(40, 3))
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (len(back), 1, 1))
    for pose, direction in zip(poses, back, strict=True):
        right = np.cross(direction, [0.0, 0.3, 1.0])
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(-direction, right), -direction], -1)
        pose[:3, 3] = 3 * direction
    view, point = np.nonzero(((poses[:, None, :3, 3] - surface) * outward).sum(-1) > 0.2)
    cameras = Cameras.make(poses, [300, 300, 200, 200], [400, 400])
    return cameras, SparsePoints(surface.astype(np.float32), point, view)


def test_what_points_on_a_sphere_leave_is_the_ball() -> None:
    outward = np.random.default_rng(0).normal(size=(1500, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    carved = Carved(*seen_from_around(0.6 * outward, outward))
    x = torch.from_numpy(np.random.default_rng(2).uniform(-0.55, 0.55, (4000, 3)).astype(np.float32))
    truth = x.norm(dim=-1) - 0.6
    error = (carved(x) - truth).abs()[truth.abs() < 0.2]
    assert error.median() < 0.015 and error.quantile(0.98) < 0.05
    assert abs(carved.share - 0.6**3) < 0.05


def test_ground_stays_solid_below_and_free_above() -> None:
    """A plane at z = -0.3 seen from above: below it no view looks, and it is not free."""
    across = np.random.default_rng(0).uniform(-1.2, 1.2, (3000, 2))
    surface = np.column_stack([across, np.full(len(across), -0.3)])
    cameras, points = seen_from_around(surface, np.tile([0.0, 0, 1], (len(surface), 1)))
    above = cameras.centers[:, 2].numpy() > 1
    kept = above[points.view]
    carved = Carved(cameras, SparsePoints(points.position, points.point[kept], points.view[kept]))
    heights = torch.tensor([[0.1, 0.2, z] for z in (-0.7, -0.5, -0.4, -0.2, 0.0, 0.3)])
    torch.testing.assert_close(carved(heights), heights[:, 2] + 0.3, atol=0.03, rtol=0)


def test_without_points_nothing_is_left() -> None:
    cameras, _ = seen_from_around(np.zeros((1, 3)), np.ones((1, 3)))
    none = np.zeros(0, dtype=np.int64)
    assert carved_by(cameras, SparsePoints(np.zeros((0, 3), np.float32), none, none)) is None


def test_lines_of_sight_end_at_their_points() -> None:
    """Each drawn direction leads from a view's center to the point; points beyond the sphere are left out."""
    scene = demo()
    cameras, points = seen_from_around(np.array([[0.0, 0.1, 0.2], [0.0, 1.5, 0.0]] * 200), np.ones((400, 3)))
    made = replace(scene, cameras=cameras, splits={"train": np.arange(len(cameras)), "test": np.arange(0)})
    made.__dict__["dense_points"] = points
    lines = SeenPoints.of(made, "cpu")
    assert lines is not None
    drawn = lines.drawn(64)
    point, toward = drawn.point, drawn.toward
    torch.testing.assert_close(point, torch.tensor([0.0, 0.1, 0.2]).expand(64, 3))
    torch.testing.assert_close(toward.norm(dim=-1), torch.ones(64))
    assert drawn.doubt.min() > 2 * 2.7 / 300 and drawn.doubt.max() < 2 * 3.3 / 300  # two pixels, at distance 3
    origin = point - toward * ((point * toward).sum(-1) + ((point * toward).sum(-1) ** 2 + 9 - 0.05).sqrt())[:, None]
    assert torch.cdist(origin, cameras.centers).min(1).values.max() < 0.01
