"""Depth in the color camera against ray casts of known planes, in every pixel."""

import numpy as np
import pytest

from dataio.pictures.registration import EDGE, DepthCamera, registered
from tests.support.made_rgbd import COLOR, COLOR_SIZE, DEPTH, DEPTH_SIZE, room_poses, wall_depth

HALF = np.array([0, 0, 0.5, 0.5])


def shifted(x: float, y: float, turn: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:2, 3] = x, y
    matrix[[0, 2], [0, 2]] = np.cos(turn)
    matrix[0, 2], matrix[2, 0] = np.sin(turn), -np.sin(turn)
    return matrix


@pytest.mark.parametrize("color_from_depth", [np.eye(4), shifted(0.05, 0.0, 0.0), shifted(0.025, -0.01, 0.02)])
@pytest.mark.parametrize("view", range(4))
def test_walls_seen_by_the_other_camera(color_from_depth: np.ndarray, view: int) -> None:
    pose = room_poses(4)[view]
    fine, size = DEPTH * 4, (DEPTH_SIZE[0] * 4, DEPTH_SIZE[1] * 4)
    depth = wall_depth(pose @ color_from_depth, fine, size).astype(np.float32)
    found = registered(depth, DepthCamera(fine + HALF, size, color_from_depth), COLOR + HALF, COLOR_SIZE)
    truth = wall_depth(pose, COLOR, COLOR_SIZE)
    known = found > 0
    assert known.mean() > 0.7
    # Depth is bent where walls meet, and interpolated there; elsewhere on a wall 1/z is linear in the pixel.
    error = np.abs(found - truth)[known]
    assert np.quantile(error, 0.9) < 2e-3 and error.max() < 0.05


def test_the_same_camera_changes_nothing() -> None:
    depth = wall_depth(room_poses(1)[0], COLOR, COLOR_SIZE).astype(np.float32)
    depth[3, 4] = 0
    found = registered(depth, DepthCamera(COLOR + HALF, COLOR_SIZE, np.eye(4)), COLOR + HALF, COLOR_SIZE)
    np.testing.assert_allclose(found, depth, rtol=1e-6)


def test_what_is_hidden_is_left_out_and_edges_stay_sharp() -> None:
    """A near pillar before a far wall: seen from the side, a strip of the wall has no depth."""
    camera = np.array([60.0, 60.0, 32.0, 24.0])
    column = np.arange(64)
    depth = np.tile(np.where(np.abs(column - 31.5) < 8, 1.0, 3.0), (48, 1)).astype(np.float32)
    shift = np.eye(4)
    shift[0, 3] = 0.1  # the color camera stands 10 cm to the left
    found = registered(depth, DepthCamera(camera, (64, 48), shift), camera, (64, 48))
    assert np.isin(np.unique(found.round(4)), [0, 1, 3]).all()
    # Near things move by 60 * 0.1 / 1 = 6 pixels, the wall by 2.
    expected = np.where((column >= 24 + 6) & (column < 40 + 6), 1, 3)
    inner = found[10]
    assert (inner[(inner > 0)] == expected[inner > 0]).mean() > 0.97
    assert (inner[27:30] == 0).sum() >= 2  # uncovered: between the pillar's old and new left side
    assert (inner[:2] == 0).all()  # out of the depth camera's sight


def test_no_depth_at_all() -> None:
    for color_from_depth in (np.eye(4), shifted(0.05, 0, 0)):
        camera = DepthCamera(DEPTH + HALF, DEPTH_SIZE, color_from_depth)
        nothing = np.zeros(DEPTH_SIZE[::-1], dtype=np.float32)
        assert not registered(nothing, camera, COLOR + HALF, COLOR_SIZE).any()
    assert 0 < EDGE < 1
