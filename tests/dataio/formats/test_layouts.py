"""LLFF, NeRF++ and BlendedMVS: cameras, pictures and what else they say; camera paths there and back."""

import json

import numpy as np
import pytest
import torch

from dataio.formats.blendedmvs import BlendedMvsData
from dataio.formats.llff import LlffData
from dataio.formats.nerfpp import NerfPlusPlusData
from dataio.formats.transforms import TransformsData
from dataio.pictures.images import read_depth
from dataio.recognition import AutoData
from tests.conftest import shared_data
from tests.support import made_data, made_models
from tests.support.made_data import FOCAL, HEIGHT, WIDTH
from tests.support.made_models import Shot
from utils.errors import InputError
from utils.paths.path_file import CameraPath, read_path, write_path


def forward_facing(count: int = 6) -> Shot:
    """Cameras side by side, looking along z."""
    shot = made_models.ring(count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = np.linspace(-0.5, 0.5, count)
    return Shot(poses, shot.intrinsics, shot.images, [f"{i:03d}.png" for i in range(count)])


def test_llff(tmp_path):
    shot = made_models.ring()
    made_models.llff(shot, tmp_path)
    views = AutoData(path=str(tmp_path)).parse()
    order = np.argsort([name.replace("/", "_") for name in shot.names])
    np.testing.assert_allclose(views.camera_to_world, shot.poses[order], atol=1e-12)
    np.testing.assert_allclose(views.intrinsics, np.tile([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2], (8, 1)))
    assert views.world_from_scene is None  # all around: the axes tell where the object is
    scene = LlffData(path=str(tmp_path)).load()
    assert np.array_equal(scene.images[1], shot.images[order[1]])


def test_llff_looks_where_the_bounds_say(tmp_path):
    made_models.llff(forward_facing(), tmp_path, bounds=(2.0, 6.0))
    views = LlffData(path=str(tmp_path)).parse()
    assert views.world_from_scene is not None
    center, radius = views.world_from_scene[:3, 3], views.world_from_scene[0, 0]
    assert 2 < center[2] < 3 and abs(center[0]) < 0.1
    # from depth 2 to 3, the middle of the disparities, with the pictures' corners
    corner = np.array([0.5 + 3 * WIDTH / 2 / FOCAL, 3 * HEIGHT / 2 / FOCAL, 3.0])
    assert np.linalg.norm(corner - center) < radius * 1.02 and radius < 3


def test_llff_in_smaller_pictures(tmp_path, capsys):
    shot = forward_facing()
    made_models.llff(shot, tmp_path)
    made_models.smaller(shot, tmp_path, 4)
    quarter = LlffData(path=str(tmp_path), downscale=4).load()
    assert quarter.images[0].shape == (4, 6, 3)
    np.testing.assert_allclose(quarter.cameras.intrinsics[0].numpy(), [FOCAL / 4, FOCAL / 4, 3, 2], rtol=1e-6)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    assert LlffData(path=str(tmp_path)).load().images[0].shape == (4, 6, 3)
    assert "6 x 4" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_nerfpp(tmp_path, suffix):
    shot = made_models.ring()
    made_models.nerfpp(shot, tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.rename(path.with_suffix(suffix))
    views = AutoData(path=str(tmp_path)).parse()
    assert views.split == ["train"] * 6 + ["test"] * 2 and views.names[7] == f"test/rgb/000007{suffix}"
    np.testing.assert_allclose(views.camera_to_world, shot.poses, atol=1e-12)
    np.testing.assert_allclose(views.intrinsics, shot.intrinsics)
    scene = NerfPlusPlusData(path=str(tmp_path)).load()
    assert scene.splits["test"].tolist() == [6, 7] and np.array_equal(scene.images[2], shot.images[2])


def test_nerfpp_masks_are_for_all_or_none(tmp_path):
    shot = made_models.ring()
    made_models.nerfpp(shot, tmp_path)
    for view in range(8):
        folder = tmp_path / ("train" if view < 6 else "test") / "mask"
        folder.mkdir(exist_ok=True)
        made_data.mask(folder / f"{view:06d}.png")
    assert NerfPlusPlusData(path=str(tmp_path)).load().masks is not None
    (tmp_path / "test/mask/000007.png").unlink()
    with pytest.raises(InputError, match="7 of 8 views"):
        NerfPlusPlusData(path=str(tmp_path)).load()


def test_the_courtyard_in_both_its_layouts():
    folder = shared_data("synthetic/courtyard")
    ours, other = NerfPlusPlusData(path=str(folder)).parse(), TransformsData(path=str(folder)).parse()
    assert len(ours.names) == 56 and ours.split is not None and ours.split.count("test") == 8
    np.testing.assert_allclose(ours.camera_to_world, other.camera_to_world, atol=1e-6)
    np.testing.assert_allclose(ours.intrinsics, other.intrinsics, atol=1e-4)


def test_blendedmvs(tmp_path):
    shot = made_models.ring()
    made_models.blendedmvs(shot, tmp_path, depth=2.5)
    views = AutoData(path=str(tmp_path)).parse()
    np.testing.assert_allclose(views.camera_to_world, shot.poses, atol=1e-9)
    np.testing.assert_allclose(views.intrinsics, shot.intrinsics)
    scene = BlendedMvsData(path=str(tmp_path), depths=True).load()
    assert scene.depths is not None and np.array_equal(scene.images[5], shot.images[5])
    assert scene.depths[0][3, 4] * scene.world_from_scene[0, 0] == pytest.approx(2.5, rel=1e-6)


def test_blendedmvs_pictures_with_black_surroundings(tmp_path):
    shot = made_models.ring()
    made_models.blendedmvs(shot, tmp_path)
    for view in range(8):
        shot.save(tmp_path / "blended_images", f"{view:08d}_masked.png", 7 - view)
    plain, masked = (BlendedMvsData(path=str(tmp_path), masked=m).load() for m in (False, True))
    assert len(plain.names) == 8 and np.array_equal(masked.images[0], shot.images[7])


def test_float_maps(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    made_models.pfm(tmp_path / "d.pfm", values)
    np.testing.assert_allclose(read_depth(tmp_path / "d.pfm", 0.5), values / 2)
    (tmp_path / "d.pfm").write_bytes(b"Pf\n3 2\n1.0\n" + values[::-1].astype(">f4").tobytes())
    np.testing.assert_allclose(read_depth(tmp_path / "d.pfm", 1.0), values)
    heads = [b"PF\n3 2\n-1\n", b"Pf\n3 2\n-1\nshort", b"Pf\n99999999 9\n-1\n", b"Pf\n0 2\n-1\n"]
    for content in [b"", *heads, b"\xff" * 999]:
        (tmp_path / "d.pfm").write_bytes(content)
        with pytest.raises(InputError, match="d.pfm"):
            read_depth(tmp_path / "d.pfm", 1.0)


def test_camera_paths_come_back(tmp_path):
    poses = made_models.ring(5).poses[:, :3]
    calibration = np.tile([500.0, 500.0, 320.0, 240.0], (5, 1))
    write_path(tmp_path / "path.json", CameraPath(poses, calibration, (640, 480)), fps=24)
    found = read_path(tmp_path / "path.json")
    np.testing.assert_allclose(found.camera_to_world, poses, atol=1e-12)
    np.testing.assert_allclose(found.intrinsics, calibration)
    content = json.loads((tmp_path / "path.json").read_text())
    assert content["camera_path"][0]["fov"] == pytest.approx(2 * np.degrees(np.arctan(240 / 500)))
    assert len(content["camera_path"][0]["camera_to_world"]) == 16 and content["seconds"] == 5 / 24


def test_half_pixels(tmp_path):
    """A point on the optical axis of a camera with the principal point in a pixel's center lands in that pixel."""
    shot = made_models.ring(2, points=0)
    shot.intrinsics[:] = [FOCAL, FOCAL, 10.5, 4.5]
    made_models.colmap_text(shot, tmp_path / "colmap")
    made_models.nerfpp(shot, tmp_path / "nerfpp", test=0)
    made_models.blendedmvs(shot, tmp_path / "blendedmvs")
    made_models.dtu(shot, tmp_path / "dtu", np.eye(4))
    for name in ("colmap", "nerfpp", "blendedmvs", "dtu"):
        cameras = AutoData(path=str(tmp_path / name)).load().cameras
        pixel = torch.tensor([[10.5, 4.5], [10.5, 4.5]])
        rays = cameras.rays(torch.tensor([0, 1]), pixel)
        torch.testing.assert_close(rays.directions, cameras.forward, atol=1e-6, rtol=0)
