"""ScanNet and 7-Scenes: a made-up room comes back as it was made, and what was lost is counted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dataio.formats.scannet import ScannetData
from dataio.formats.seven_scenes import SevenScenesData
from dataio.recognition import AutoData
from dataio.scene import Scene
from tests.conftest import shared_data
from tests.support import made_rgbd


def check_room(scene: Scene, poses: np.ndarray) -> None:
    """Cameras stand where they were put; the points of the depth images lie on the walls; all is in the sphere."""
    scale = np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3]))
    centers = scene.cameras.centers.double().numpy() * scale + scene.world_from_scene[:3, 3]
    np.testing.assert_allclose(centers, poses[:, :3, 3], atol=1e-5)
    assert scene.depths is not None and scene.masks is None and scene.background is None
    for view, depth in enumerate(scene.depths):
        rays = scene.cameras.rays(torch.full((depth.size,), view), scene.cameras.pixel_grid(view))
        known = depth.ravel() > 0
        assert known.mean() > 0.7 and depth.shape == scene.images[view].shape[:2]
        along = torch.from_numpy(depth.ravel()) / (rays.directions @ scene.cameras.forward[view])
        points = rays.at(along).double().numpy()[known]
        assert view in scene.splits["test"] or np.linalg.norm(points, axis=1).max() < 1
        off = np.abs(np.abs(points * scale + scene.world_from_scene[:3, 3]).max(axis=1) - made_rgbd.WALL)
        # Millimeters in the file; between its pixels depth is linear, walls in perspective are not quite.
        assert np.median(off) < 3e-3 and np.quantile(off, 0.9) < 0.05
    assert scene.cameras.centers.norm(dim=-1).max() < 1


def test_scannet_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poses = made_rgbd.scannet(tmp_path, lost=(3, 7, 8))
    scene = AutoData(path=str(tmp_path)).load()
    check_room(scene, np.delete(poses, (3, 7, 8), axis=0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "3 of 10" in lines[0] and "tracking was lost" in lines[0]
    assert len(scene.splits["test"]) == 1


@pytest.mark.parametrize("deflated", [True, False])
def test_sens_file_holds_the_same(tmp_path: Path, deflated: bool) -> None:
    path = made_rgbd.sens(tmp_path, lost=(2,), deflated=deflated)
    exported, packed = ScannetData(path=str(tmp_path / "export")).load(), AutoData(path=str(path)).load()
    check_room(packed, np.delete(made_rgbd.room_poses(10), 2, axis=0))
    assert all(np.array_equal(a, b) for a, b in zip(exported.images, packed.images, strict=True))
    assert exported.depths is not None and packed.depths is not None
    for a, b in zip(exported.depths, packed.depths, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert AutoData(path=str(tmp_path)).resolve().model_dump()["type"] == "scannet"  # a folder with one .sens file


def test_every_other_frame_and_half_the_size(tmp_path: Path) -> None:
    poses = made_rgbd.scannet(tmp_path)
    scene = ScannetData(path=str(tmp_path), every=2, downscale=2).load()
    assert scene.images[0].shape == (12, 16, 3) and scene.depths is not None and scene.depths[0].shape == (12, 16)
    scale = np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3]))
    centers = scene.cameras.centers.numpy() * scale + scene.world_from_scene[:3, 3]
    np.testing.assert_allclose(centers, poses[::2, :3, 3], atol=1e-5)


def test_an_extrinsic_moves_the_color_camera(tmp_path: Path) -> None:
    poses = made_rgbd.scannet(tmp_path)
    beside = np.eye(4)
    beside[0, 3] = 0.03
    (tmp_path / "intrinsic/extrinsic_color.txt").write_text(made_rgbd.text(beside))
    check_room(ScannetData(path=str(tmp_path)).load(), poses @ beside)


def test_seven_scenes(tmp_path: Path) -> None:
    poses = made_rgbd.seven_scenes(tmp_path)
    scene = AutoData(path=str(tmp_path)).load()
    check_room(scene, poses)
    assert len(scene.splits["train"]) == 8 and len(scene.splits["test"]) == 3
    assert scene.names[scene.splits["test"][0]] == "seq-02/frame-000000.color.png"
    fx = float(scene.cameras.intrinsics[0, 0])
    assert fx == pytest.approx(525 * made_rgbd.COLOR_SIZE[0] / 640)


def test_seven_scenes_with_its_own_calibration(tmp_path: Path) -> None:
    made_rgbd.seven_scenes(tmp_path)
    width, height = made_rgbd.COLOR_SIZE
    (tmp_path / "camera.txt").write_text(f"# remark\n{2 * width} {2 * height} 60 62 31.5 23.5\n")
    views = SevenScenesData(path=str(tmp_path)).parse()
    np.testing.assert_allclose(views.intrinsics[0], [30, 31, 16, 12])
    assert views.depth_camera is not None
    np.testing.assert_allclose(views.depth_camera.intrinsics[0], 60 * made_rgbd.DEPTH_SIZE[0] / (2 * width))
    (tmp_path / "depth-intrinsics.txt").write_text("20 0 10\n0 21 8\n0 0 1\n")
    views = SevenScenesData(path=str(tmp_path), color_focal=33.0).parse()
    assert views.depth_camera is not None
    np.testing.assert_allclose(views.depth_camera.intrinsics, [20, 21, 10.5, 8.5])
    assert views.intrinsics[0, 0] == 33


def test_seven_scenes_without_splits(tmp_path: Path) -> None:
    made_rgbd.seven_scenes(tmp_path)
    scene = SevenScenesData(path=str(tmp_path), official_split=False, holdout=4).load()
    assert [view // 4 for view in scene.splits["test"]] == [0, 1, 2]
    for name in ("TrainSplit.txt", "TestSplit.txt"):
        (tmp_path / name).unlink()
    scene = AutoData(path=str(tmp_path)).load()
    assert len(scene.splits["train"]) == 9 and len(scene.splits["test"]) == 2


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("7scenes_redkitchen", 13, 4), ("scannet_layout/scene_redkitchen_00", 17, 3), ("synthetic/room/7scenes", 64, 16)],
)
def test_shared_recordings(name: str, train: int, test: int) -> None:
    """The depth of one view, seen from its neighbor, agrees with the neighbor's depth."""
    scene = AutoData(path=str(shared_data(name)), downscale=2).load()
    assert (len(scene.splits["train"]), len(scene.splits["test"])) == (train, test)
    assert scene.depths is not None and scene.cameras.centers.norm(dim=-1).max() < 1
    view, other = 1, 2
    pixels = scene.cameras.pixel_grid(view)
    rays = scene.cameras.rays(torch.full((len(pixels),), view), pixels)
    depth = torch.from_numpy(scene.depths[view].ravel())
    points = rays.at(depth / (rays.directions @ scene.cameras.forward[view]))[depth > 0]
    there, z = scene.cameras.project(points, other)
    height, width = scene.depths[other].shape
    inside = ((there >= 0) & (there < torch.tensor([width, height]))).all(-1) & (z > 0)
    column, row = there[inside].long().T
    measured = torch.from_numpy(scene.depths[other])[row, column]
    scale = float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))
    close = (measured - z[inside]).abs()[measured > 0] * scale < 0.05
    assert len(close) > 1000 and close.float().mean() > 0.8


def test_depths_from_the_disk_follow_the_calibration(tmp_path: Path) -> None:
    """What is cached on disk is that of memory, also of a .sens file, and made anew when the focal length is said."""
    data, cache = tmp_path / "data", str(tmp_path / "cache")
    made_rgbd.seven_scenes(data / "seven")
    sens = made_rgbd.sens(data / "scannet")
    found = []
    for config in (
        SevenScenesData(path=str(data / "seven")),
        SevenScenesData(path=str(data / "seven"), color_focal=20.0),
        ScannetData(path=str(sens)),
    ):
        memory, disk = config.load(), config.model_copy(update={"ram": "1K", "cache": cache}).load()
        assert memory.depths is not None and disk.depths is not None
        for a, b in zip(memory.depths, disk.depths, strict=True):
            np.testing.assert_array_equal(a, b)
        found.append(disk.depths[0])
    assert np.abs(found[0] - found[1]).max() > 0.01
