"""Inputs as other programs leave them: used rightly, with a line where something was assumed, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataio.formats.colmap import ColmapData
from dataio.formats.dtu import DtuData
from dataio.formats.opendronemap import OpenDroneMapData
from dataio.formats.transforms import TransformsData
from dataio.georeference import middle_of
from dataio.recognition import AutoData
from tests.support import made_data, made_models
from utils.errors import InputError


def transforms(folder: Path, **changes):
    content = made_data.transforms(folder)
    made_data.write(folder / "transforms.json", {**content, **changes})
    return TransformsData(path=str(folder))


def renamed(folder: Path, change) -> None:
    for path in sorted(folder.iterdir()):
        path.rename(change(path))


@pytest.mark.parametrize("suffix", [".JPG", ".TIF", ".jpeg"])
@pytest.mark.parametrize("listed", [".png", ""])
def test_pictures_with_another_suffix_are_found(tmp_path, capsys, suffix, listed):
    content = made_data.transforms(tmp_path)
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].removesuffix(".png") + listed
    made_data.write(tmp_path / "transforms.json", content)
    for path in sorted((tmp_path / "images").iterdir()):
        Image.open(path).convert("RGB").save(path.with_suffix(suffix))
        path.unlink()
    views = TransformsData(path=str(tmp_path)).parse()
    found = [path for path in views.images if isinstance(path, Path) and path.is_file()]
    assert [path.suffix for path in found] == [suffix] * len(content["frames"])
    assert ("10 pictures have another suffix than is listed" in capsys.readouterr().err) == bool(listed)


@pytest.mark.parametrize("before", ["/home/anna/a/", "C:\\Users\\anna\\a\\", "D:/statue/", "\\\\server\\statue\\"])
def test_a_folder_that_was_moved_keeps_its_pictures(before, tmp_path, capsys):
    """Absolute paths of another place or machine: their ends are looked for in the folder, those of masks too."""
    content = made_data.transforms(tmp_path)
    for view, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"masks/{view}.png"
        made_data.mask(tmp_path / frame["mask_path"])
    made_data.write(tmp_path / "transforms.json", content)
    expected = TransformsData(path=str(tmp_path)).parse()
    (tmp_path / "images/003.png").unlink()
    for frame in content["frames"]:
        for key in ("file_path", "mask_path"):
            name = frame[key] if "/" in before else frame[key].replace("/", "\\")
            frame[key] = f"{before}{name}"
    made_data.write(tmp_path / "transforms.json", content)
    views = TransformsData(path=str(tmp_path)).parse()
    assert list(views.images) == list(expected.images) and views.masks == expected.masks is not None
    assert views.names == expected.names
    assert f"9 pictures are listed elsewhere, as {content['frames'][0]['file_path']}" in capsys.readouterr().err


def test_a_name_with_a_dot_is_not_another_pictures_stem(tmp_path):
    content = made_data.transforms(tmp_path)
    content["frames"][0]["file_path"] = "images/frame.0001"
    made_data.write(tmp_path / "transforms.json", content)
    (tmp_path / "images/000.png").rename(tmp_path / "images/frame.0001.png")
    shutil.copy(tmp_path / "images/001.png", tmp_path / "images/frame.png")
    assert TransformsData(path=str(tmp_path)).parse().images[0].name == "frame.0001.png"


def test_smaller_pictures_in_place_of_the_listed_ones(tmp_path, capsys):
    data = transforms(tmp_path)
    before = data.parse()
    (tmp_path / "images").rename(tmp_path / "images_2")
    for path in (tmp_path / "images_2").iterdir():
        picture = Image.open(path)
        picture.resize((picture.width // 2, picture.height // 2)).save(path)
    views = data.parse()
    said = capsys.readouterr().err
    assert "taking those of images_2" in said and "their cameras follow" in said
    np.testing.assert_allclose(views.intrinsics, before.intrinsics / 2)
    assert (views.size == before.size // 2).all()


def test_names_of_splits_count_however_they_are_written(tmp_path, capsys):
    names = [f"./images/{i:03d}.png" for i in range(10)]
    views = transforms(tmp_path, train_filenames=names[:8], test_filenames=[*names[8:], "images/gone.png"]).parse()
    assert views.split == ["train"] * 8 + ["test"] * 2
    said = capsys.readouterr().err
    assert "1 names of its splits have no frame, the first is test_filenames: images/gone.png" in said
    with pytest.raises(InputError, match="none of 1 names is one"):
        transforms(tmp_path, train_filenames=["other/000.png"]).parse()


@pytest.mark.parametrize("keys", [{"k5": 0.1, "k6": 0.2}, {"ftheta_p1": 3.0}, {"is_latlong": True}, {"s1": 0.1}])
@pytest.mark.parametrize("in_frame", [False, True])
def test_lenses_that_are_not_read_are_refused_by_their_keys(tmp_path, keys, in_frame):
    content = made_data.transforms(tmp_path)
    (content["frames"][3] if in_frame else content).update(keys)
    made_data.write(tmp_path / "transforms.json", content)
    with pytest.raises(InputError, match=f"{', '.join(sorted(keys))} - a lens that is not read here"):
        TransformsData(path=str(tmp_path)).parse()


def test_zeros_and_other_keys_are_no_lens(tmp_path):
    assert len(transforms(tmp_path, k5=0.0, is_latlong=False, kappa=3.0, aabb_scale=16).parse().names) == 10


def test_an_applied_transform_of_four_rows(tmp_path):
    three = [[0.0, 1.0, 0.0, 0.5], [1.0, 0.0, 0.0, -1.0], [0.0, 0.0, -1.0, 0.0]]
    expected = transforms(tmp_path, applied_transform=three).parse().camera_to_world
    found = transforms(tmp_path, applied_transform=[*three, [0.0, 0.0, 0.0, 1.0]]).parse().camera_to_world
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("opaque", [True, False])
def test_an_alpha_that_is_opaque_everywhere_is_no_mask(tmp_path, capsys, opaque):
    data = transforms(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "images").iterdir())):
        picture = Image.open(path).convert("RGBA")
        if not opaque and i == 7:
            picture.putpixel((3, 3), (0, 0, 0, 254))
        picture.save(path)
    scene = data.load()
    assert (scene.masks is None) == opaque
    assert ("opaque everywhere: taken as no mask" in capsys.readouterr().err) == opaque


@pytest.mark.parametrize(
    ("name", "first"), [("img_{}", 0), ("{}", 0), ("view{:03d}_color", 0), ("{:03d}", 1), ("img_{}", 1)]
)
def test_dtu_pictures_are_matched_by_their_numbers(tmp_path, capsys, name, first):
    shot = made_models.ring(12)
    made_models.dtu(shot, tmp_path, np.eye(4))
    for folder in ("image", "mask"):
        if (tmp_path / folder).is_dir():
            renamed(tmp_path / folder, lambda path: path.with_name(name.format(int(path.stem) + first) + path.suffix))
    (tmp_path / "image" / "._7.png").write_bytes(b"a note of another program")
    views = DtuData(path=str(tmp_path)).parse()
    assert [path.name for path in views.images] == [name.format(i + first) + ".png" for i in range(12)]
    assert ("paired in order" in capsys.readouterr().err) == (first == 1)


def test_a_missing_dtu_picture_moves_no_other(tmp_path):
    made_models.dtu(made_models.ring(12), tmp_path, np.eye(4))
    whole = DtuData(path=str(tmp_path)).parse()
    renamed(tmp_path / "image", lambda path: path.with_name(f"img_{int(path.stem)}{path.suffix}"))
    (tmp_path / "image/img_4.png").unlink()
    views = DtuData(path=str(tmp_path)).parse()
    there = [i for i, path in enumerate(views.images) if path.is_file()]
    assert there == [i for i in range(12) if i != 4]
    assert [views.images[i].name for i in there] == [f"img_{i}.png" for i in there]
    np.testing.assert_array_equal(views.camera_to_world, whole.camera_to_world)


@pytest.mark.parametrize("write", [made_models.colmap_text, made_models.colmap_binary])
def test_a_colmap_model_without_points_keeps_its_poses(tmp_path, capsys, write):
    write(made_models.ring(), tmp_path)
    expected = ColmapData(path=str(tmp_path)).parse()
    next((tmp_path / "sparse/0").glob("points3D.*")).unlink()
    (tmp_path / "sparse/0/points3D.ply").touch()
    views = AutoData(path=str(tmp_path)).parse()
    np.testing.assert_array_equal(views.camera_to_world, expected.camera_to_world)
    assert views.points is None or len(views.points) == 0
    assert "going on with its poses, without sparse points" in capsys.readouterr().err


@pytest.mark.parametrize("write", [made_models.colmap_text, made_models.colmap_binary])
def test_names_of_a_colmap_model_keep_their_blanks(tmp_path, write):
    shot = made_models.ring(3)
    shot.names = ["a  b, c.png", "ü 'x'.png", "b/~q  .png"]
    write(shot, tmp_path)
    views = ColmapData(path=str(tmp_path)).parse()
    assert views.names == sorted(shot.names) and all(path.is_file() for path in views.images)


@pytest.mark.parametrize("more", [0, 7, 9])
def test_a_colmap_model_of_some_pictures_says_so(tmp_path, capsys, more):
    made_models.colmap_text(made_models.ring(8), tmp_path)
    first = sorted((tmp_path / "images").rglob("*.png"))[0]
    for i in range(more):
        shutil.copy(first, first.with_name(f"more_{i}.png"))
    assert "8 views" in ColmapData(path=str(tmp_path)).check()
    said = capsys.readouterr().err
    assert (f"poses for 8 of the {8 + more} pictures" in said) == (more > 0)
    assert ("warning: it has poses" in said) == (more == 9)


def test_the_middle_of_places_on_both_sides_of_the_date_line():
    places = np.array([[10.0, 179.9999, 5.0], [10.2, -179.9999, 6.0], [10.1, -179.9998, 7.0]])
    middle = middle_of(places)
    assert middle.longitude == pytest.approx(-179.9999) and middle.latitude == pytest.approx(10.1)
    assert np.abs(middle.enu(places)).max() < 20_000
    west = np.array([[0.0, -0.001, 0.0], [0.0, 0.001, 0.0], [0.0, 0.0, 0.0]])
    assert middle_of(west).longitude == pytest.approx(0.0)


def test_the_largest_of_several_reconstructions(tmp_path, capsys):
    from tests.dataio.formats.test_uav import opensfm

    opensfm(tmp_path)
    file = next(tmp_path.rglob("reconstruction.json"))
    whole = json.loads(file.read_text("utf-8"))
    names = sorted(whole[1]["shots"])
    few = {**whole[1], "shots": {name: whole[1]["shots"][name] for name in names[:2]}}
    rest = {**whole[1], "shots": {name: whole[1]["shots"][name] for name in names[2:]}}
    file.write_text(json.dumps([few, rest]), "utf-8")
    assert OpenDroneMapData(path=str(tmp_path)).parse().names == names[2:]
    assert f"2 reconstructions (photographs: 2, {len(names) - 2})" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["components", "chunks"])
def test_metashape_parts_with_frames_of_their_own(tmp_path, capsys, split):
    from tests.dataio.formats.test_uav import metashape

    file = metashape(tmp_path, placed_on_earth=False) / "cameras.xml"
    expected = AutoData(path=str(tmp_path)).parse()
    text = file.read_text("utf-8")
    if split == "chunks":
        begin, end = text.index("<chunk"), text.index("</chunk>") + len("</chunk>")
        text = text[:begin] + '<chunk label="empty"><cameras></cameras></chunk>' + text[begin:]
        file.write_text(text, "utf-8")
        assert end > begin and AutoData(path=str(tmp_path)).parse().names == expected.names
        assert "2 chunks with 0," in capsys.readouterr().err
        return
    parts = text.split("<camera ")
    tagged = [f'component_id="{0 if i < 4 else 1}" {part}' for i, part in enumerate(parts[1:], 1)]
    file.write_text("<camera ".join([parts[0], *tagged]), "utf-8")
    assert AutoData(path=str(tmp_path)).parse().names == expected.names[3:]
    assert f"2 components with 3, {len(expected.names) - 3} cameras" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["IMG_1.HEIC", "IMG_2.heic"], "2 HEIC photographs"),
        (["clip.MP4"], "a video, clip.MP4: take frames"),
        (
            ["color/0.jpg", "depth/0.png", "pose/0.txt", "intrinsics/0.txt"],
            "scannet, of which intrinsic is missing; there is intr",
        ),
        (["image/000.png", "camera_sphere.npz"], "dtu, of which cameras_sphere.npz or cameras.npz is missing"),
        (["notes.txt"], "nothing in it has the name of a part of one; looked for scannet: color, depth, pose"),
        (["notes.txt", "fox/transforms.json"], "it has data in it: write data.path="),
        ([], "it is empty"),
    ],
)
def test_what_is_not_recognized_says_the_nearest_miss(tmp_path, names, said):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="not recognized: ") as error:
        AutoData(path=str(tmp_path)).parse()
    assert said in str(error.value)


def test_packed_sequences_are_named(tmp_path):
    (tmp_path / "TrainSplit.txt").write_text("sequence1\nsequence2\n")
    (tmp_path / "TestSplit.txt").write_text("sequence3\n")
    (tmp_path / "seq-01.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="1 sequences are still packed, as seq-01.zip: unpack them"):
        AutoData(path=str(tmp_path)).parse()


def test_lines_of_observations_that_are_missing_are_explained(tmp_path):
    made_models.colmap_text(made_models.ring(), tmp_path)
    file = tmp_path / "sparse/0/images.txt"
    lines = [line for line in file.read_text().splitlines() if line.endswith(".png")]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="each image has two lines"):
        ColmapData(path=str(tmp_path)).parse()


def test_masks_in_a_folder_of_another_name_are_not_passed_over_in_silence(tmp_path, capsys):
    made_models.colmap_text(made_models.ring(), tmp_path)
    made_data.mask(tmp_path / "mask/000.png")
    ColmapData(path=str(tmp_path)).check()
    assert "mask is not read: masks are looked for in masks/" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["size", "missing"])
def test_a_check_finds_what_loading_refuses(tmp_path, fault):
    content = made_data.transforms(tmp_path)
    (tmp_path / "depth").mkdir()
    for i, frame in enumerate(content["frames"]):
        frame["depth_file_path"] = f"depth/{i:03d}.png"
        half = 2 if fault == "size" and i == 4 else 1
        size = (made_data.WIDTH // half, made_data.HEIGHT // half)
        if not (fault == "missing" and i == 4):
            Image.fromarray(np.full(size[::-1], 2000, np.uint16)).save(tmp_path / frame["depth_file_path"])
    made_data.write(tmp_path / "transforms.json", content)
    data = TransformsData(path=str(tmp_path))
    for work in (data.check, data.load):
        with pytest.raises(InputError, match="depth/004.png"):
            work()
