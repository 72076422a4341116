"""transforms.json: every dialect gives the same cameras, and real sets give the true ones."""

import json
import time

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dataio.formats.transforms import TransformsData
from dataio.lens import Lens
from dataio.views import checked
from tests.conftest import shared_data
from tests.support import made_data
from tests.support.made_data import FOCAL, HEIGHT, WIDTH
from utils.errors import InputError


def parsed(folder, **options):
    return TransformsData(path=str(folder), **options).parse()


def test_poses_are_turned_to_opencv(tmp_path):
    made_data.transforms(tmp_path)
    views = parsed(tmp_path)
    np.testing.assert_allclose(views.camera_to_world, made_data.ring_poses(10), atol=1e-12)
    assert views.intrinsics[0].tolist() == [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]
    assert views.names[3] == "images/003.png" and views.split is None


def test_a_known_point_is_where_it_should_be(tmp_path):
    """A point of the world, projected by hand from the OpenGL matrix, and by the loaded scene."""
    content = made_data.transforms(tmp_path)
    scene = TransformsData(path=str(tmp_path)).load()
    point = np.array([0.2, -0.1, 0.15, 1.0])
    in_scene = np.linalg.inv(scene.world_from_scene) @ point
    for view, frame in enumerate(content["frames"]):
        x, y, z, _ = np.linalg.inv(np.array(frame["transform_matrix"])) @ point
        expected = [WIDTH / 2 + FOCAL * x / -z, HEIGHT / 2 - FOCAL * y / -z]
        pixels, _ = scene.cameras.project(torch.from_numpy(in_scene[None, :3]).float(), view)
        np.testing.assert_allclose(pixels[0].numpy(), expected, atol=1e-3)


def test_blender_dialect(tmp_path):
    angle = 0.6911112070083618
    content = made_data.transforms(
        tmp_path, fl_x=None, fl_y=None, cx=None, cy=None, w=None, h=None, camera_angle_x=angle
    )
    for frame in content["frames"]:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
        frame["rotation"] = 0.01
    made_data.write(tmp_path / "transforms.json", content)
    views = parsed(tmp_path)
    focal = WIDTH / 2 / np.tan(angle / 2)
    np.testing.assert_allclose(views.intrinsics[0], [focal, focal, WIDTH / 2, HEIGHT / 2])
    assert views.size[0].tolist() == [WIDTH, HEIGHT] and views.images[0].name == "000.png"


def test_both_angles_of_instant_ngp(tmp_path):
    made_data.transforms(tmp_path, fl_x=None, fl_y=None, camera_angle_x=0.7, camera_angle_y=0.5, aabb_scale=4)
    fx, fy = parsed(tmp_path).intrinsics[0, :2]
    assert fx == pytest.approx(WIDTH / 2 / np.tan(0.35)) and fy == pytest.approx(HEIGHT / 2 / np.tan(0.25))


def test_a_frame_may_have_its_own_camera(tmp_path):
    content = made_data.transforms(tmp_path)
    content["frames"][2].update(fl_x=44.0, cx=11.0, k1=0.1, w=30, h=20)
    made_data.write(tmp_path / "transforms.json", content)
    made_data.picture(tmp_path / "images/002.png", 2, size=(30, 20))
    scene = TransformsData(path=str(tmp_path)).load()
    assert scene.cameras.intrinsics[2].tolist() == [44.0, FOCAL, 11.0, HEIGHT / 2]
    assert scene.cameras.size[2].tolist() == [30, 20] and scene.images[2].shape == (20, 30, 3)
    assert scene.cameras.distortion[2, 0] == np.float32(0.1) and not scene.cameras.distortion[1].any()


def test_distortions(tmp_path):
    made_data.transforms(tmp_path, k1=0.1, k2=0.02, k3=0.003, p1=0.001, p2=0.002, camera_model="OPENCV")
    assert parsed(tmp_path).distortion[0].tolist() == [0.1, 0.02, 0.001, 0.002, 0.003, 0, 0, 0]
    made_data.transforms(tmp_path, distortion_params=[0.1, 0.02, 0.003, 0.0, 0.001, 0.002])
    assert parsed(tmp_path).distortion[0].tolist() == [0.1, 0.02, 0.001, 0.002, 0.003, 0, 0, 0]
    made_data.transforms(tmp_path, k1=0.1, k2=0.02, k3=0.003, k4=0.004, camera_model="OPENCV_FISHEYE")
    views = parsed(tmp_path)
    assert views.distortion[0].tolist() == [0.1, 0.02, 0.003, 0.004, 0, 0, 0, 0] and (views.lens == Lens.FISHEYE).all()
    made_data.transforms(tmp_path, k1=0.1, k4=0.004)
    with pytest.raises(InputError, match=r"frames\[0\]: k4"):
        parsed(tmp_path)


def test_applied_transform_is_undone(tmp_path):
    turn = np.array([[0, 1, 0, 0.5], [1, 0, 0, -2], [0, 0, -1, 3.0]])
    scale = 2.5
    saved = np.eye(4)
    saved[:3] = scale * turn
    content = made_data.transforms(tmp_path, applied_transform=turn.tolist(), applied_scale=scale)
    poses = made_data.ring_poses(10)
    for frame, pose in zip(content["frames"], poses, strict=True):
        moved = np.eye(4)
        moved[:3, :3], moved[:3, 3] = turn[:, :3] @ pose[:3, :3], (saved @ pose)[:3, 3]
        frame["transform_matrix"] = made_data.opengl(moved).tolist()
    points = np.random.default_rng(0).normal(size=(50, 3))
    colors = np.random.default_rng(1).integers(0, 256, (50, 3)).astype(np.uint8)
    trimesh.PointCloud(points @ saved[:3, :3].T + saved[:3, 3], colors).export(tmp_path / "points.ply")
    content["ply_file_path"] = "points.ply"
    made_data.write(tmp_path / "transforms.json", content)
    views = parsed(tmp_path)
    np.testing.assert_allclose(views.camera_to_world, poses, atol=1e-12)
    np.testing.assert_allclose(views.points, points, atol=1e-5)
    assert np.array_equal(views.point_colors, colors)
    np.testing.assert_allclose(views.up, np.linalg.inv(turn[:, :3])[:, 2], atol=1e-12)
    scene = TransformsData(path=str(tmp_path)).load()
    assert scene.points is not None and scene.point_colors is not None
    np.testing.assert_allclose(
        scene.points @ scene.world_from_scene[:3, :3].T + scene.world_from_scene[:3, 3], points, atol=1e-5
    )


def test_named_splits(tmp_path):
    names = [f"images/{i:03d}.png" for i in range(10)]
    made_data.transforms(
        tmp_path, train_filenames=names[:6], val_filenames=names[6:7], test_filenames=names[7:9]
    )
    scene = TransformsData(path=str(tmp_path)).load()
    assert {k: v.tolist() for k, v in scene.splits.items()} == {
        "train": [0, 1, 2, 3, 4, 5], "val": [6], "test": [7, 8],
    }  # fmt: skip
    made_data.transforms(tmp_path, train_filenames=["images/nothing.png"])
    with pytest.raises(InputError, match="train_filenames.*nothing"):
        parsed(tmp_path)


def test_split_files(tmp_path, capsys):
    content = made_data.transforms(tmp_path, 10)
    (tmp_path / "transforms.json").unlink()
    for split, part in (("train", slice(0, 7)), ("val", slice(7, 10))):
        made_data.write(tmp_path / f"transforms_{split}.json", {**content, "frames": content["frames"][part]})
    scene = TransformsData(path=str(tmp_path)).load()
    assert scene.splits["train"].tolist() == list(range(7))
    assert scene.splits["test"].tolist() == scene.splits["val"].tolist() == [7, 8, 9]
    made_data.write(tmp_path / "transforms_test.json", {**content, "frames": content["frames"][7:]})
    assert TransformsData(path=str(tmp_path)).load().splits["test"].tolist() == [7, 8, 9]
    assert "3 of 13 views" in capsys.readouterr().err
    # A file alone: tests only are all tests, training views get a holdout.
    assert TransformsData(path=str(tmp_path / "transforms_val.json")).load().splits["test"].tolist() == [
        0,
        1,
        2,
    ]
    assert TransformsData(path=str(tmp_path / "transforms_train.json")).load().splits["test"].tolist() == [3]


def test_masks_and_depths(tmp_path):
    content = made_data.transforms(tmp_path)
    for view, frame in enumerate(content["frames"]):
        made_data.mask(tmp_path / f"masks/{view}.png")
        frame["mask_path"], frame["depth_file_path"] = f"masks/{view}.png", f"depth/{view}.png"
        depth = np.full((HEIGHT, WIDTH), 1500 + view, dtype=np.uint16)
        depth[0] = 0
        (tmp_path / "depth").mkdir(exist_ok=True)
        Image.fromarray(depth).save(tmp_path / f"depth/{view}.png")
    made_data.write(tmp_path / "transforms.json", content)
    scene = TransformsData(path=str(tmp_path), radius=2.0).load()
    assert scene.masks is not None and scene.depths is not None
    assert scene.masks[0].mean() == pytest.approx(255 / 4, rel=0.01)
    assert (scene.images[0][0] == 255).all()
    assert scene.depths[3][5, 5] == pytest.approx(1.503 / 2) and (scene.depths[3][0] == 0).all()
    del content["frames"][4]["mask_path"]
    made_data.write(tmp_path / "transforms.json", content)
    with pytest.raises(InputError, match="mask_path.*9 of 10"):
        parsed(tmp_path)


def test_missing_images_are_counted(tmp_path, capsys):
    made_data.transforms(tmp_path)
    for view in (1, 4, 5):
        (tmp_path / f"images/{view:03d}.png").unlink()
    assert len(TransformsData(path=str(tmp_path)).load().names) == 7
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "3 of 10 images" in err and "001.png" in err


def test_byte_order_mark_and_line_ends(tmp_path):
    content = made_data.transforms(tmp_path)
    text = json.dumps(content, indent=1).replace("\n", "\r\n")
    (tmp_path / "transforms.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(parsed(tmp_path).names) == 10


@pytest.mark.parametrize("name", ["figure", "mechanical"])
def test_cameras_of_the_synthetic_sets(name):
    folder = shared_data(f"synthetic/{name}")
    scene = made_data.real_scene(f"synthetic/{name}")
    truth = json.loads((folder / "cameras.json").read_text())
    pose_of = {frame["file"]: frame["c2w"] for frame in truth["frames"]}
    poses = np.array([pose_of[name] for name in scene.names])
    assert len(poses) == 60
    world = scene.cameras.transformed(scene.world_from_scene)
    np.testing.assert_allclose(world.camera_to_world.numpy(), poses[:, :3], atol=1e-6)


@pytest.mark.parametrize(("name", "count"), [("synthetic/figure", 60), ("fox", 50)])
def test_real_sets_load_soon(name, count, capsys):
    start = time.process_time()
    scene = TransformsData(path=str(shared_data(name))).load()
    assert time.process_time() - start < 6  # all threads together; 1 to 2 s on an idle machine
    assert len(scene.names) == count


def test_the_fox(capsys):
    scene = TransformsData(path=str(shared_data("fox"))).load()
    assert "17 of 67 images" in capsys.readouterr().err
    assert len(scene.splits["test"]) == 7 and scene.masks is None and scene.up.tolist() == [0, 0, 1]
    np.testing.assert_allclose(scene.cameras.intrinsics[0].numpy(), [687.76, 687.245, 277.279, 482.634])
    np.testing.assert_allclose(
        scene.cameras.distortion[0, :4].numpy(), [0.0578421, -0.0805099, -0.000980296, 0.00015575]
    )


def test_pictures_that_were_made_smaller_keep_their_rays(capsys):
    """As of COLMAP's cameras: the file of the full size gives the rays of the one that somebody halved for them."""
    folder = shared_data("fox")
    views = [checked(parsed(folder / name)) for name in ("transforms.json", "transforms_original_1080x1920.json")]
    assert "540 x 960 were calibrated at 1080 x 1920: their cameras follow" in capsys.readouterr().err
    assert (views[0].size == views[1].size).all()
    np.testing.assert_allclose(views[1].intrinsics, views[0].intrinsics, rtol=1e-12)


def test_a_folder_with_nothing_but_views_for_tests(tmp_path):
    """It can be looked at by evaluate.py --data; --check says that there is nothing to train on."""
    made_data.transforms(tmp_path)
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_test.json")
    scene = TransformsData(path=str(tmp_path)).load()
    assert len(scene.splits["test"]) == 10 and len(scene.splits["train"]) == 0
    with pytest.raises(InputError, match="no views to train on, of 10"):
        TransformsData(path=str(tmp_path)).check()
