"""The DTU layout: decomposition against known cameras, and the same world rays as the other layout."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataio.formats import dtu
from dataio.formats.dtu import DtuData
from tests.conftest import shared_data
from tests.support import made_data
from tests.support.made_data import FOCAL, HEIGHT, WIDTH


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.sampled_from([1.0, -1.0]))
def test_decomposition_of_any_projection(seed, scale, sign):
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)
    center, (fx, fy) = 10 * random.normal(size=3), random.uniform(100, 3000, 2)
    cx, cy = random.uniform(-50, 900, 2)
    calibration = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = calibration @ rotation.T
    matrix[:3, 3] = -matrix[:3, :3] @ center
    pose, intrinsics = dtu._decompose(sign * scale * matrix, "test")
    np.testing.assert_allclose(pose[:3, :3], rotation, atol=1e-9)
    np.testing.assert_allclose(pose[:3, 3], center, atol=1e-7)
    np.testing.assert_allclose(intrinsics, [fx, fy, cx + 0.5, cy + 0.5], rtol=1e-9, atol=1e-6)


def test_made_cameras(tmp_path):
    made_data.dtu(tmp_path)
    scene = DtuData(path=str(tmp_path)).load()
    np.testing.assert_allclose(
        scene.cameras.intrinsics[0].numpy(), [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2], rtol=1e-6
    )
    assert np.array_equal(scene.world_from_scene, np.diag([1.5, 1.5, 1.5, 1.0]))
    np.testing.assert_allclose(
        1.5 * scene.cameras.centers.numpy(), made_data.ring_poses(10)[:, :3, 3], atol=1e-6
    )
    assert scene.masks is not None and scene.up.tolist() == [0, 0, 1]
    assert len(scene.splits["test"]) == 2 and scene.splits["test"][1] in (8, 9)


def test_names_without_numbers_go_by_position(tmp_path):
    made_data.dtu(tmp_path)
    for path in sorted((tmp_path / "image").iterdir()):
        path.rename(path.with_name(f"photo_{path.name}"))
    assert DtuData(path=str(tmp_path)).load().names[3] == "image/photo_000003.png"


def test_without_masks_and_scale(tmp_path):
    without: dict[str, Any] = {f"scale_mat_{i}": None for i in range(10)}
    made_data.dtu(tmp_path, **without)
    for path in (tmp_path / "mask").iterdir():
        path.unlink()
    (tmp_path / "mask").rmdir()
    scene = DtuData(path=str(tmp_path)).load()
    assert scene.masks is None
    np.testing.assert_allclose(scene.world_from_scene[:3, 3], 0, atol=1e-6)


def test_a_deleted_image_takes_its_own_camera_along(tmp_path, capsys):
    made_data.dtu(tmp_path)
    (tmp_path / "image/000003.png").unlink()
    scene = DtuData(path=str(tmp_path)).load()
    assert "1 of 10 images" in capsys.readouterr().err and len(scene.names) == 9
    expected = np.delete(made_data.ring_poses(10), 3, axis=0)[:, :3, 3]
    np.testing.assert_allclose(1.5 * scene.cameras.centers.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["figure", "mechanical"])
def test_both_layouts_give_the_same_world_rays(name):
    folder = shared_data(f"synthetic/{name}")
    ours = DtuData(path=str(folder)).load()
    other = made_data.real_scene(f"synthetic/{name}")
    pixels = torch.tensor([[0.5, 0.5], [399.5, 120.5], [77.5, 311.5]])
    for view in range(0, 48, 5):
        index = torch.full((3,), view)
        a, b = ours.cameras.rays(index, pixels), other.cameras.rays(index, pixels)
        torch.testing.assert_close(a.directions, b.directions, atol=1e-6, rtol=0)
        for scene, rays in ((ours, a), (other, b)):
            world = (
                rays.origins.double().numpy() * scene.world_from_scene[0, 0] + scene.world_from_scene[:3, 3]
            )
            truth = b.origins.double().numpy() * other.world_from_scene[0, 0] + other.world_from_scene[:3, 3]
            np.testing.assert_allclose(world, truth, atol=1e-5)
    # Premultiplied there, straight here: inside the silhouette the colors agree.
    assert ours.masks is not None and other.masks is not None
    inside = (other.masks[0] == 255) & (ours.masks[0] == 255)
    assert np.array_equal(ours.images[0][inside], other.images[0][inside])
    if name == "mechanical":
        np.testing.assert_allclose(
            ours.world_from_scene[:3], [[0.9, 0, 0, 0.15], [0, 0.9, 0, -0.1], [0, 0, 0.9, 0.6]]
        )


def test_scan_65():
    scene = DtuData(path=str(shared_data("dtu_scan65"))).load()
    assert len(scene.names) == 49 and scene.masks is not None and scene.images[0].shape == (300, 400, 3)
    assert scene.world_from_scene[0, 0] == pytest.approx(164.60, abs=0.01)
    np.testing.assert_allclose(scene.world_from_scene[:3, 3], [-28.09, -27.98, 640.43], atol=0.01)
    # Rays through the middle of each mask pass through the unit sphere near its center.
    for view, mask in enumerate(scene.masks):
        row, column = np.argwhere(mask > 127).mean(axis=0)
        rays = scene.cameras.rays(
            torch.tensor([view]), torch.tensor([[column + 0.5, row + 0.5]], dtype=torch.float32)
        )
        along = -(rays.origins * rays.directions).sum(-1)
        assert rays.at(along).norm() < 0.5 and 2 < along < 5
    other = DtuData(path=str(shared_data("dtu_scan65")), cameras_file="cameras.npz").parse().world_from_scene
    assert other is not None and other[0, 0] == pytest.approx(246.405, abs=0.01)
