"""What a data set has and a loader does not use: used rightly, said in a line, or refused; never dropped in silence."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataio import normalize
from dataio.cameras import Cameras
from dataio.formats.blendedmvs import BlendedMvsData
from dataio.formats.colmap import ColmapData
from dataio.formats.dtu import DtuData
from dataio.formats.metashape import MetashapeData
from dataio.formats.nerfpp import NerfPlusPlusData
from dataio.formats.opendronemap import OpenDroneMapData
from dataio.formats.scannet import ScannetData
from dataio.formats.seven_scenes import SevenScenesData
from dataio.formats.transforms import TransformsData
from dataio.lens import Lens
from dataio.recognition import AutoData
from tests.dataio.formats import test_uav
from tests.support import made_data, made_models, made_rgbd
from utils.errors import InputError


def transforms(folder: Path, **changes) -> TransformsData:
    made_data.write(folder / "transforms.json", {**made_data.transforms(folder), **changes})
    return TransformsData(path=str(folder))


# --- transforms.json ---------------------------------------------------------------------------------------


def test_the_frames_for_tests_of_scannetpp_are_test_views(tmp_path, capsys):
    content = made_data.transforms(tmp_path, 10)
    whole = TransformsData(path=str(tmp_path)).parse()
    for view in (2, 8):
        content["frames"][view]["is_bad"] = True
    made_data.write(tmp_path / "transforms.json",
                    {**content, "frames": content["frames"][:7], "test_frames": content["frames"][7:]})  # fmt: skip
    views = TransformsData(path=str(tmp_path)).parse()
    kept = [view for view in range(10) if view not in (2, 8)]
    assert views.names == [whole.names[view] for view in kept]
    assert views.split == ["train"] * 6 + ["test"] * 2
    np.testing.assert_array_equal(views.camera_to_world, whole.camera_to_world[kept])
    assert "is_bad - 2 of 10 frames are marked so: left out" in capsys.readouterr().err
    for frame in content["frames"]:
        frame["is_bad"] = True
    made_data.write(tmp_path / "transforms.json", content)
    with pytest.raises(InputError, match="all 10 frames are marked so"):
        TransformsData(path=str(tmp_path)).parse()


def test_a_frame_may_have_a_lens_of_its_own(tmp_path):
    content = made_data.transforms(tmp_path, k1=0.1)
    content["frames"][3] |= {"camera_model": "OPENCV_FISHEYE", "k1": 0.02}
    content["frames"][4] |= {"is_fisheye": True}
    made_data.write(tmp_path / "transforms.json", content)
    views = TransformsData(path=str(tmp_path)).parse()
    kinds = [Lens.FISHEYE if view in (3, 4) else Lens.BROWN for view in range(10)]
    assert views.lens is not None and views.lens.tolist() == kinds
    assert views.distortion is not None and views.distortion[[2, 3, 4], 0].tolist() == [0.1, 0.02, 0.1]
    content["frames"][5]["camera_model"] = "EQUIRECTANGULAR"
    made_data.write(tmp_path / "transforms.json", content)
    with pytest.raises(InputError, match=r"frames\[5\]: camera_model - got EQUIRECTANGULAR"):
        TransformsData(path=str(tmp_path)).parse()


@pytest.mark.parametrize(
    ("key", "value", "in_frame", "said"),
    [
        ("depth_path", "depth/0.png", True, "depth_path - not read"),
        ("rolling_shutter", [0, 0, 0.1, 0], False, "rolling_shutter - not read: each picture counts as taken at one"),
        ("rolling_shutter", [0, 0, 0.0, 0], False, ""),
        ("mask_color", [0, 1, 0], False, "mask_color - not read"),
        ("sharpness", 17.0, True, ""),
        ("aabb_scale", 16, False, ""),
    ],
)
def test_keys_that_are_passed_over_are_said(tmp_path, capsys, key, value, in_frame, said):
    content = made_data.transforms(tmp_path)
    (content["frames"][3] if in_frame else content)[key] = value
    made_data.write(tmp_path / "transforms.json", content)
    TransformsData(path=str(tmp_path)).parse()
    err = capsys.readouterr().err
    assert said in err if said else not err


def test_times_are_said_where_they_differ(tmp_path, capsys):
    content = made_data.transforms(tmp_path)
    for differ in (False, True):
        for view, frame in enumerate(content["frames"]):
            frame["time"] = view / 10 if differ else 0.0
        made_data.write(tmp_path / "transforms.json", content)
        TransformsData(path=str(tmp_path)).parse()
        assert ("time - not read" in capsys.readouterr().err) == differ


@pytest.mark.parametrize("key", ["from_na", "from_mitsuba", "orthographic"])
def test_what_would_turn_every_ray_is_refused(tmp_path, key):
    with pytest.raises(InputError, match=key):
        transforms(tmp_path, **{key: True}).parse()


def test_splits_say_whom_they_leave_out_and_whom_they_name_twice(tmp_path, capsys):
    names = [f"images/{i:03d}.png" for i in range(10)]
    views = transforms(tmp_path, train_filenames=names[:7], test_filenames=names[6:8]).parse()
    assert views.split == ["train"] * 6 + ["test"] * 2 + [""] * 2
    said = capsys.readouterr().err
    assert "1 pictures are listed for training and for tests: taken for tests, as images/006.png" in said
    assert "2 of 10 pictures are in none of its splits, as images/008.png - not used" in said


def test_nothing_to_train_on_is_found_by_the_check(tmp_path):
    data = transforms(tmp_path, test_filenames=["images/000.png"])
    with pytest.raises(InputError, match="no views to train on"):
        data.check()


def test_a_second_file_of_poses_is_not_passed_over_in_silence(tmp_path, capsys):
    made_data.transforms(tmp_path)
    shutil.copy(tmp_path / "transforms.json", tmp_path / "transforms_train.json")
    TransformsData(path=str(tmp_path)).parse()
    assert "read from transforms_train.json and its like, not from transforms.json" in capsys.readouterr().err


# --- beside the pictures -----------------------------------------------------------------------------------


def write_dtu(folder: Path) -> DtuData:
    made_models.dtu(made_models.ring(), folder, np.eye(4))
    return DtuData(path=str(folder))


def write_nerfpp(folder: Path) -> NerfPlusPlusData:
    made_models.nerfpp(made_models.ring(), folder, test=0)
    return NerfPlusPlusData(path=str(folder))


def write_blendedmvs(folder: Path) -> BlendedMvsData:
    made_models.blendedmvs(made_models.ring(), folder)
    return BlendedMvsData(path=str(folder))


def write_colmap(folder: Path) -> ColmapData:
    made_models.colmap_binary(made_models.ring(), folder)
    return ColmapData(path=str(folder))


def write_opensfm(folder: Path) -> OpenDroneMapData:
    return OpenDroneMapData(path=str(test_uav.opensfm(folder)))


def write_metashape(folder: Path) -> MetashapeData:
    return MetashapeData(path=str(test_uav.metashape(folder)))


WRITERS = [transforms, write_dtu, write_nerfpp, write_blendedmvs, write_colmap, write_opensfm, write_metashape]


@pytest.mark.parametrize("write", [each for each in WRITERS if each is not write_dtu])  # there they are refused
def test_pictures_without_a_pose_are_said(tmp_path, capsys, write):
    """Neither other pictures of the same view, nor other programs' notes."""
    data = write(tmp_path)
    first, count = data.parse().images[0], len(data.parse().names)
    assert isinstance(first, Path)
    for name in (f"{first.stem}_depth_0001.png", "._9.png"):
        shutil.copy(first, first.with_name(name))
    data.check()
    assert "poses for" not in capsys.readouterr().err
    for more, word in ((1, "it has poses"), (count + 1, "warning: it has poses")):
        for i in range(more):
            shutil.copy(first, first.with_name(f"other{100 + i}.png"))
        data.check()
        assert f"{word} for {count} of the {count + more} pictures" in capsys.readouterr().err


@pytest.mark.parametrize("write", WRITERS)
def test_masks_that_are_not_read_are_said(tmp_path, capsys, write):
    data = write(tmp_path)
    data.check()
    assert "is not read" not in capsys.readouterr().err
    first = data.parse().images[0]
    assert isinstance(first, Path)
    base = tmp_path if write is not write_nerfpp else tmp_path / "train"
    made_data.mask(base / "segmentation" / f"{first.stem}.png")
    data.check()
    assert "segmentation is not read: masks are looked for in " in capsys.readouterr().err
    data.model_copy(update={"masks": "off"}).check()
    assert "is not read" not in capsys.readouterr().err


def test_an_alpha_wants_no_other_masks(tmp_path, capsys):
    data = transforms(tmp_path)
    made_data.mask(tmp_path / "masks/000.png")
    for path in (tmp_path / "images").iterdir():
        made_data.picture(path, mode="RGBA")
    data.check()
    assert "is not read" not in capsys.readouterr().err


@pytest.mark.parametrize("gray", [255, 254])
def test_masks_that_are_white_everywhere_are_no_masks(tmp_path, capsys, gray):
    made_models.dtu(made_models.ring(), tmp_path, np.eye(4))
    for view in range(8):
        made_data.mask(tmp_path / f"mask/{view:03d}.png")
        white = np.full((made_data.HEIGHT, made_data.WIDTH), 255, np.uint8)
        white[0, 0] = gray if view == 7 else 255
        Image.fromarray(white).save(tmp_path / f"mask/{view:03d}.png")
    data = DtuData(path=str(tmp_path))
    assert (data.load().masks is None) == (gray == 255)
    assert ("white everywhere: taken as no masks" in capsys.readouterr().err) == (gray == 255)
    assert data.model_copy(update={"masks": "keep"}).load().masks is not None


@pytest.mark.parametrize("write", [write_nerfpp, write_blendedmvs])
def test_notes_of_other_programs_are_no_cameras(tmp_path, write):
    data = write(tmp_path)
    names = data.parse().names
    for path in [path for path in tmp_path.rglob("*.txt") if path.parent.name in ("pose", "cams")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert data.parse().names == names


@pytest.mark.parametrize("write", [write_nerfpp, write_blendedmvs])
def test_a_skew_is_refused(tmp_path, write):
    data = write(tmp_path)
    for path in tmp_path.rglob("*.txt"):
        lines = path.read_text().splitlines()
        row = lines.index("intrinsic") + 1 if "intrinsic" in lines else 0 if path.parent.name == "intrinsics" else None
        if row is not None:
            words = lines[row].split()
            lines[row] = " ".join([words[0], "3.0", *words[2:]])
            path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="got a skew of 3 pixels"):
        data.parse()


# --- regions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_of_few_cameras_the_region_is_where_the_points_are(count):
    """Two cameras a quarter turn apart, or one of them: axes that do not cross say nothing of the distance."""
    middle, radius = np.array([40.0, -30.0, 20.0]), 25.0
    random = np.random.default_rng(0)
    points = random.normal(size=(400, 3))
    points = middle + radius * points / np.linalg.norm(points, axis=1, keepdims=True)
    poses = made_data.ring_poses(4, distance=150.0)[:count]
    poses[:, :3, 3] += middle
    cameras = Cameras.make(poses, [30.0, 30.0, 12.0, 8.0], [24, 16])
    center, found = normalize.region(cameras, None, points)
    assert np.linalg.norm(center - middle) < 0.2 * radius and radius < found < 1.4 * radius


# --- DTU ---------------------------------------------------------------------------------------------------


def test_dtu_pictures_without_numbers_are_as_many_as_cameras(tmp_path, capsys):
    made_models.dtu(made_models.ring(), tmp_path, np.eye(4))
    for path, name in zip(sorted((tmp_path / "image").iterdir()), "abcdefgh", strict=True):
        path.rename(path.with_name(f"{name}.png"))
    data = DtuData(path=str(tmp_path))
    assert [path.name[0] for path in data.parse().images] == list("abcdefgh")
    assert "taken in their order" in capsys.readouterr().err
    (tmp_path / "image/c.png").unlink()
    with pytest.raises(InputError, match="7 pictures with names without numbers, 8 cameras"):
        data.parse()


def test_a_first_dtu_picture_that_is_missing_is_said(tmp_path, capsys):
    """Or are they counted from 1, and the last one is missing? Nobody can tell."""
    made_models.dtu(made_models.ring(), tmp_path, np.eye(4))
    (tmp_path / "image/000000.png").unlink()
    assert not DtuData(path=str(tmp_path)).parse().images[0].is_file()
    assert "pictures begin at 1, cameras at 0: paired by their numbers" in capsys.readouterr().err


# --- RGB-D -------------------------------------------------------------------------------------------------


def test_two_scannet_files_of_one_number_are_refused(tmp_path):
    made_rgbd.scannet(tmp_path)
    shutil.copy(tmp_path / "pose/3.txt", tmp_path / "pose/000003.txt")
    with pytest.raises(InputError, match="has the same number - keep one of them"):
        ScannetData(path=str(tmp_path)).parse()


def test_frames_without_a_pose_file_are_said(tmp_path, capsys):
    made_rgbd.scannet(tmp_path / "a")
    (tmp_path / "a/pose/3.txt").unlink()
    assert len(ScannetData(path=str(tmp_path / "a")).parse().names) == 9
    assert "1 of 10 frames have no file with a pose" in capsys.readouterr().err
    made_rgbd.seven_scenes(tmp_path / "b")
    (tmp_path / "b/seq-01/frame-000002.pose.txt").unlink()
    SevenScenesData(path=str(tmp_path / "b")).parse()
    assert "1 of 11 frames have no file with a pose" in capsys.readouterr().err


def test_a_frame_that_is_thinned_out_is_not_missed(tmp_path, capsys):
    made_rgbd.scannet(tmp_path)
    assert "5 views" in ScannetData(path=str(tmp_path), every=2).check() and not capsys.readouterr().err


def test_sequences_that_are_not_read_are_said(tmp_path, capsys):
    made_rgbd.seven_scenes(tmp_path, (4, 3, 2))
    assert len(SevenScenesData(path=str(tmp_path)).parse().names) == 7
    assert "1 sequences are in no split file, as seq-03: left out" in capsys.readouterr().err
    for name in ("TrainSplit.txt", "TestSplit.txt"):
        (tmp_path / name).unlink()
    shutil.rmtree(tmp_path / "seq-03")
    (tmp_path / "seq-03.zip").write_bytes(b"PK")
    assert len(SevenScenesData(path=str(tmp_path)).parse().names) == 7
    assert "1 sequences are still packed, as seq-03.zip: left out" in capsys.readouterr().err


def test_a_note_beside_a_recording_is_no_second_one(tmp_path):
    path = made_rgbd.sens(tmp_path)
    shutil.rmtree(tmp_path / "export")
    path.with_name("._scene.sens").write_bytes(b"\0\5\x16\7")
    assert isinstance(AutoData(path=str(tmp_path)).resolve(), ScannetData)
