"""Rays and projections against closed forms, OpenCV and finite differences."""

import cv2
import numpy as np
import pytest
import torch

from dataio import lens
from dataio.cameras import Cameras, Rays
from dataio.checks.usable import check_cameras, orthonormal
from tests.support.made_data import ring_poses
from utils.errors import InputError

FOX = [687.76, 687.245, 277.279, 482.634]
FOX_BEND = [0.0578421, -0.0805099, -0.000980296, 0.00015575, 0, 0, 0, 0]
FULL_BEND = [0.0578421, -0.0805099, -0.000980296, 0.00015575, 0.01, 0.02, -0.01, 0.003]
FISHEYE = [0.03, -0.01, 0.004, -0.001, 0, 0, 0, 0]
SIMILARITY = np.array([[0, -2.5, 0, 3], [2.5, 0, 0, -1], [0, 0, 2.5, 0.5], [0, 0, 0, 1.0]])


def one(bend=None, fisheye=False, pose=None):
    pose = np.eye(4)[None] if pose is None else pose
    return Cameras.make(pose, FOX, [540, 960], distortion=bend, lens=[fisheye])


def zeros(count):
    return torch.zeros(count, dtype=torch.int64)


def test_pixel_centers_are_at_half():
    cameras = Cameras.make(np.eye(4)[None], [100.0, 120.0, 2.0, 1.5], [4, 3])
    grid = cameras.pixel_grid(0)
    assert (
        grid[0].tolist() == [0.5, 0.5] and grid[1].tolist() == [1.5, 0.5] and grid[4].tolist() == [0.5, 1.5]
    )
    rays = cameras.rays(zeros(12), grid)
    expected = torch.tensor([(0.5 - 2.0) / 100, (0.5 - 1.5) / 120, 1.0])
    torch.testing.assert_close(rays.directions[0], expected / expected.norm())
    # x to the right, y down, z forward
    assert rays.directions[3, 0] > 0 > rays.directions[0, 0] and rays.directions[-1, 1] > 0


def test_rays_are_rotated_and_start_at_the_center():
    poses = ring_poses(5)
    cameras = Cameras.make(poses, FOX, [540, 960], near=0.3)
    index = torch.arange(5)
    rays = cameras.rays(index, torch.tensor(FOX[2:]).expand(5, 2))
    torch.testing.assert_close(rays.directions, cameras.forward, atol=1e-6, rtol=0)
    torch.testing.assert_close(rays.origins, torch.from_numpy(poses[:, :3, 3]).float())
    assert (rays.near == 0.3).all() and torch.isinf(rays.far).all() and rays.camera.tolist() == list(range(5))
    toward_origin = -rays.origins / rays.origins.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(rays.directions, toward_origin, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("bend", "fisheye"), [(None, False), (FOX_BEND, False), (FULL_BEND, False), (FISHEYE, True), (None, True)]
)
def test_projection_undoes_rays(bend, fisheye):
    cameras = one(bend, fisheye, ring_poses(1))
    grid = cameras.pixel_grid(0)[::97]
    rays = cameras.rays(zeros(len(grid)), grid)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(len(grid)))
    pixels, depth = cameras.project(rays.at(torch.full((len(grid),), 2.5)), 0)
    assert (pixels - grid).abs().max() < 1e-3
    cosine = (rays.directions * cameras.forward).sum(-1)
    torch.testing.assert_close(depth, 2.5 * cosine, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bend", [FOX_BEND, FULL_BEND])
def test_brown_distortion_is_that_of_opencv(bend):
    cameras = one(bend)
    grid = cameras.pixel_grid(0)[::97]
    matrix = np.array([[FOX[0], 0, FOX[2]], [0, FOX[1], FOX[3]], [0, 0, 1]])
    rays = cameras.rays(zeros(len(grid)), grid)
    points = (3 * rays.directions).numpy().astype(np.float64)
    projected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array(bend))
    assert np.abs(projected[:, 0] - grid.numpy()).max() < 1e-3
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    ideal = cv2.undistortPoints(
        grid.numpy().astype(np.float64)[:, None], matrix, np.array(bend), criteria=stop
    )
    ours = (rays.directions[:, :2] / rays.directions[:, 2:]).numpy()
    assert np.abs(ours - ideal[:, 0]).max() * FOX[0] < 1e-3


def test_fisheye_is_that_of_opencv():
    cameras = one(FISHEYE, True)
    grid = cameras.pixel_grid(0)[::97]
    rays = cameras.rays(zeros(len(grid)), grid)
    matrix = np.array([[FOX[0], 0, FOX[2]], [0, FOX[1], FOX[3]], [0, 0, 1]])
    points = (3 * rays.directions).numpy().astype(np.float64)[:, None]
    projected, _ = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array(FISHEYE[:4]))
    assert np.abs(projected[:, 0] - grid.numpy()).max() < 1e-3


def test_fisheye_sees_behind_itself():
    plane = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    direction = lens.fisheye_directions(plane, torch.zeros(1, 8, dtype=torch.float64))
    assert direction[0, 2] < 0
    torch.testing.assert_close(
        lens.fisheye_plane(5 * direction, torch.zeros(1, 8, dtype=torch.float64)), plane
    )


def test_kinds_of_cameras_mix():
    bends = np.array([[0] * 8, FULL_BEND, FISHEYE])
    poses = np.tile(np.eye(4), (3, 1, 1))
    kinds = Cameras.make(poses, FOX, [540, 960], distortion=bends, lens=[False, False, True])
    pixels = torch.tensor([[50.0, 800.0]])
    for index, alone in enumerate([one(), one(FULL_BEND), one(FISHEYE, True)]):
        ours = kinds.rays(torch.tensor([index]), pixels).directions
        torch.testing.assert_close(ours, alone.rays(zeros(1), pixels).directions)
        torch.testing.assert_close(kinds.project(4 * ours, index)[0], pixels, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("bend", "fisheye"), [(FULL_BEND, False), (FISHEYE, True)])
def test_gradients_to_pose_and_intrinsics(bend, fisheye):
    pose = torch.from_numpy(ring_poses(1)[:, :3]).requires_grad_()
    intrinsics = torch.tensor([FOX], dtype=torch.float64, requires_grad=True)
    fixed = one(bend, fisheye)

    def look(pose, intrinsics):
        cameras = Cameras(
            pose, intrinsics, fixed.size, fixed.distortion.double(), fixed.lens, fixed.near.double()
        )
        rays = cameras.rays(zeros(2), torch.tensor([[30.0, 100.0], [400.0, 700.0]], dtype=torch.float64))
        pixels, depth = cameras.project(torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64), 0)
        return rays.origins, rays.directions, pixels, depth

    assert torch.autograd.gradcheck(look, (pose, intrinsics), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 1 / 3, 2.0, 0.001])
def test_scaled_cameras_see_the_same(factor):
    cameras = one(FOX_BEND)
    small = cameras.scaled(factor)
    expected = [max(1, round(540 * factor)), max(1, round(960 * factor))]
    assert small.size[0].tolist() == expected
    pixels = torch.tensor([[100.0, 300.0], [0.0, 960.0]])
    ratio = torch.tensor(expected) / torch.tensor([540.0, 960.0])
    ours = small.rays(zeros(2), pixels * ratio).directions
    torch.testing.assert_close(ours, cameras.rays(zeros(2), pixels).directions, atol=1e-5, rtol=0)


def test_a_similarity_moves_rays_as_it_moves_points():
    cameras = Cameras.make(ring_poses(3), FOX, [540, 960], near=0.1)
    moved = cameras.transformed(SIMILARITY)
    pixels, index = torch.tensor([[30.0, 50.0], [500.0, 20.0], [200.0, 900.0]]), torch.arange(3)
    before, after = cameras.rays(index, pixels), moved.rays(index, pixels)
    torch.testing.assert_close(after.near, before.near * 2.5)
    points = (
        before.at(torch.tensor([1.0, 2.0, 3.0])).double().numpy() @ SIMILARITY[:3, :3].T + SIMILARITY[:3, 3]
    )
    torch.testing.assert_close(
        after.at(2.5 * torch.tensor([1.0, 2.0, 3.0])), torch.from_numpy(points).float()
    )


def test_cameras_index_and_restore():
    cameras = Cameras.make(ring_poses(4), FOX, [540, 960], distortion=FOX_BEND)
    chosen = cameras[np.array([2, 0])]
    assert len(chosen) == 2 and torch.equal(chosen.camera_to_world[1], cameras.camera_to_world[0])
    assert len(cameras[1:]) == 3
    state = Cameras.from_state(cameras.state())
    assert all(torch.equal(value, state.state()[key]) for key, value in cameras.state().items())


def test_rays_slice_and_walk():
    rays = one().rays(zeros(6), one().pixel_grid(0)[:6])
    assert len(rays[1:3]) == 2 and isinstance(rays[torch.tensor([5, 0])], Rays)
    distances = torch.tensor([[1.0, 2.0]]).expand(6, 2)
    torch.testing.assert_close(rays.at(distances)[:, 1], rays.at(distances[:, 1]))
    assert rays.to("cpu").far.shape == (6,)


def sound_cameras():
    poses, intrinsics = ring_poses(10), np.tile([30.0, 30.0, 12.0, 8.0], (10, 1))
    bend = np.zeros((10, 8))
    return poses, intrinsics, bend


FAULTS = {
    "NaN": lambda p, k, b: p.__setitem__((0, 1, 2), np.nan),
    "orthonormal": lambda p, k, b: p.__setitem__((0, slice(0, 3), slice(0, 3)), 2 * np.eye(3)),
    "mirrored": lambda p, k, b: p.__setitem__((0, slice(0, 3), 0), -p[0, :3, 0]),
    "zero rotation is not orthonormal": lambda p, k, b: p.__setitem__((0, slice(0, 3), slice(0, 3)), 0),
    "focal length": lambda p, k, b: k.__setitem__((0, 1), -30.0),
    "principal point": lambda p, k, b: k.__setitem__((0, 2), 24.5),
    "distortion": lambda p, k, b: b.__setitem__((0, 0), np.inf),
    "folds": lambda p, k, b: b.__setitem__((0, 0), -9.0),
}


@pytest.mark.parametrize("word", FAULTS)
def test_few_bad_cameras_are_left_out_and_many_refused(word, capsys):
    poses, intrinsics, bend = sound_cameras()
    FAULTS[word](poses, intrinsics, bend)
    names, size = [f"v{i}" for i in range(10)], np.tile([24, 16], (10, 1))
    kept = check_cameras(poses, intrinsics, size, names, where="f.json", distortion=bend)
    assert kept.tolist() == [False] + [True] * 9
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and word.split()[-1] in line and "f.json" in line and "v0" in line
    with pytest.raises(InputError, match="f.json.*v0") as error:
        check_cameras(poses[:4], intrinsics[:4], size[:4], names[:4], where="f.json", distortion=bend[:4])
    assert "\n" not in str(error.value)


def test_equal_poses_and_no_cameras_are_refused():
    poses, intrinsics, _ = sound_cameras()
    size = np.tile([24, 16], (10, 1))
    with pytest.raises(InputError, match="all 3 poses are equal"):
        check_cameras(poses[[0, 0, 0]], intrinsics[:3], size[:3], list("abc"), where="f")
    with pytest.raises(InputError, match="no images"):
        check_cameras(poses[:0], intrinsics[:0], size[:0], [], where="f")


def test_nearly_rigid_poses_become_rigid():
    poses = ring_poses(4)
    noisy = poses.copy()
    noisy[:, :3, :3] += 2e-4 * np.random.default_rng(0).normal(size=(4, 3, 3))
    rigid = orthonormal(noisy)
    np.testing.assert_allclose(
        rigid[:, :3, :3] @ rigid[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (4, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(rigid, poses, atol=1e-3)


def test_another_size_keeps_the_vertical_field_of_view() -> None:
    """The ray through the middle of the upper edge is the same; a wider picture shows more at the sides."""
    pose = torch.eye(4)[None]
    cameras = Cameras.make(pose, [100.0, 110.0, 48.0, 41.0], [100, 80])
    wide = cameras.sized(400, 160)
    assert wide.size.tolist() == [[400, 160]]
    assert wide.intrinsics[0].tolist() == [200.0, 220.0, 200.0 - 4.0, 82.0]
    index = torch.zeros(2, dtype=torch.long)
    before = cameras.rays(index, torch.tensor([[48.0, 0.0], [98.0, 80.0]])).directions
    after = wide.rays(index, torch.tensor([[196.0, 0.0], [296.0, 160.0]])).directions
    torch.testing.assert_close(after, before)


def test_a_panorama_of_another_size_shows_all_around() -> None:
    cameras = Cameras.make(torch.eye(4)[None], [100 / 6.2831853, 50 / 3.1415927, 50, 25], [100, 50], lens=7)
    found = cameras.sized(300, 50)
    ends = found.rays(torch.zeros(2, dtype=torch.long), torch.tensor([[0.0, 25.0], [300.0, 25.0]])).directions
    torch.testing.assert_close(ends, torch.tensor([[0.0, 0, -1], [0.0, 0, -1]]), atol=1e-5, rtol=0)
