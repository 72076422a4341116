"""COLMAP models: what is read, which model and pictures are taken, and how well the points fit the cameras."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataio.checks.reprojection import reprojection
from dataio.formats.colmap import ColmapData
from dataio.recognition import AutoData
from dataio.views import Views
from engine.experiment import ExperimentConfig
from tests.conftest import shared_data
from tests.support import made_models
from tests.support.made_data import picture
from tests.support.made_models import Shot
from utils.config.loading import load_config
from utils.errors import InputError

WRITERS = {"text": made_models.colmap_text, "binary": made_models.colmap_binary}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path) -> Shot:
    """A model in each form, in tmp_path."""
    shot = made_models.ring()
    WRITERS[request.param](shot, tmp_path)
    return shot


def views_of(folder: Path, **options) -> Views:
    return ColmapData(path=str(folder), **options).parse()


def in_order(shot: Shot) -> np.ndarray:
    return np.argsort(shot.names)


def test_poses_intrinsics_points_and_pixels(written, tmp_path):
    views, order = views_of(tmp_path), in_order(written)
    assert views.names == sorted(written.names)  # in sub-folders, too
    np.testing.assert_allclose(views.camera_to_world, written.poses[order], atol=1e-12)
    np.testing.assert_allclose(views.intrinsics, written.intrinsics[order])
    assert views.points is not None and views.tracks is not None
    np.testing.assert_allclose(views.points, written.points)
    colors = [[i % 256, 2, 3] for i in range(len(written.points))]
    assert views.point_colors is not None and views.point_colors.tolist() == colors
    seen = np.array(written.observations())[order]
    np.testing.assert_allclose(views.tracks.pixel, seen[views.tracks.view, views.tracks.point])
    assert len(views.tracks.point) == seen.shape[0] * seen.shape[1]
    scene = AutoData(path=str(tmp_path)).load()
    assert all(np.array_equal(scene.images[i], written.images[n]) for i, n in enumerate(order))


def test_the_reprojection_error_is_that_of_the_cameras(written, tmp_path):
    views = views_of(tmp_path)
    exact = reprojection(views)
    assert exact is not None and exact.quantile(1.0) < 1e-9 and exact.per_view.max() < 1e-9
    shifted = replace(views, intrinsics=views.intrinsics + [0, 0, 3.0, 4.0])
    moved = reprojection(shifted)
    assert moved is not None and moved.median == pytest.approx(5.0)
    turned = views.camera_to_world.copy()
    turned[2, :3, 1:3] *= -1  # one camera looks the other way
    behind = reprojection(replace(views, camera_to_world=turned))
    assert behind is not None and np.isinf(behind.per_view[2]) and behind.per_view[1] < 1e-9
    assert reprojection(replace(views, tracks=None)) is None


def test_geo_referenced_coordinates_keep_their_digits(tmp_path):
    far = np.array([4_400_000.0, 650_000.0, 4_500_000.0])
    shot = made_models.ring()
    shot.poses[:, :3, 3] += far
    shot.points += far
    made_models.colmap_binary(shot, tmp_path)
    error = reprojection(views_of(tmp_path))
    assert error is not None and error.quantile(1.0) < 1e-5


def test_the_largest_of_several_models_is_taken(tmp_path, capsys):
    shot = made_models.ring()
    few = Shot(shot.poses[:3], shot.intrinsics[:3], shot.images[:3], shot.names[:3], shot.points)
    made_models.colmap_binary(few, tmp_path, "sparse/0")
    made_models.colmap_text(shot, tmp_path, "sparse/1")
    assert len(views_of(tmp_path).names) == 8
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "sparse/0: 3" in line and "sparse/1: 8" in line
    assert len(views_of(tmp_path, model="sparse/0").names) == 3
    assert "taking" not in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "sparse", "sparse/0", "colmap/sparse/0", "dense/sparse"])
def test_places_of_a_model(tmp_path, place):
    made_models.colmap_binary(made_models.ring(), tmp_path, place)
    assert len(views_of(tmp_path).names) == 8
    assert ColmapData.recognizes(tmp_path)


def test_binary_goes_before_text_and_needs_no_rigs(tmp_path):
    shot = made_models.ring()
    made_models.colmap_text(Shot(shot.poses[:3], shot.intrinsics[:3], shot.images[:3], shot.names[:3]), tmp_path)
    made_models.colmap_binary(shot, tmp_path)
    for name in ("rigs.bin", "frames.bin"):
        (tmp_path / "sparse/0" / name).unlink()
    assert len(views_of(tmp_path).names) == 8


@pytest.mark.parametrize("folder", ["images", "input", "image", "rgb", "."])
def test_places_of_the_pictures(written, tmp_path, folder):
    if folder == ".":
        for sub in (tmp_path / "images").iterdir():
            sub.rename(tmp_path / sub.name)
    elif folder != "images":
        (tmp_path / "images").rename(tmp_path / folder)
    assert all(path.is_file() for path in views_of(tmp_path).images)


def test_a_folder_of_pictures_that_is_named(written, tmp_path):
    (tmp_path / "images").rename(tmp_path / "photos")
    with pytest.raises(InputError, match="none of its pictures.*data.images"):
        views_of(tmp_path)
    assert all(path.is_file() for path in views_of(tmp_path, images="photos").images)
    assert all(path.is_file() for path in views_of(tmp_path, images=str(tmp_path / "photos")).images)
    # ... or the model's own folder is named, and the pictures are found above it
    (tmp_path / "photos").rename(tmp_path / "images")
    assert all(path.is_file() for path in views_of(tmp_path / "sparse/0").images)


def test_smaller_pictures_are_taken_where_they_lie(tmp_path, capsys):
    shot = made_models.ring()
    made_models.colmap_text(shot, tmp_path)
    made_models.smaller(shot, tmp_path, 2)
    full, half = ColmapData(path=str(tmp_path)).load(), ColmapData(path=str(tmp_path), downscale=2).load()
    assert full.images[0].shape == (16, 24, 3) and half.images[0].shape == (8, 12, 3)
    with Image.open(tmp_path / "images_2" / half.names[0]) as picture:
        assert np.array_equal(np.array(picture), half.images[0])
    pixel, index = torch.tensor([[10.0, 6.0]]), torch.tensor([3])
    ours, other = half.cameras.rays(index, pixel / 2), full.cameras.rays(index, pixel)
    torch.testing.assert_close(ours.directions, other.directions, atol=1e-6, rtol=0)
    capsys.readouterr()
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    views = ColmapData(path=str(tmp_path)).parse()
    assert "images_2" in capsys.readouterr().err and views.size[0].tolist() == [12, 8]
    error = reprojection(views)
    assert error is not None and error.quantile(1.0) < 1e-9
    assert ColmapData(path=str(tmp_path), downscale=2).load().images[0].shape == (8, 12, 3)


def test_resized_pictures_take_their_cameras_along(written, tmp_path, capsys):
    for path in (tmp_path / "images").rglob("*.png"):
        picture(path, size=(72, 48))
    views = views_of(tmp_path)
    assert "72 x 48" in capsys.readouterr().err
    np.testing.assert_allclose(views.intrinsics, 3 * written.intrinsics[in_order(written)])
    error = reprojection(views)
    assert error is not None and error.quantile(1.0) < 1e-9
    for path in (tmp_path / "images").rglob("*.png"):
        picture(path, size=(16, 24))
    with pytest.raises(InputError, match="16 x 24 - expected 24 x 16"):
        ColmapData(path=str(tmp_path)).load()


@pytest.mark.parametrize("ending", [".png", ""])
def test_masks(written, tmp_path, ending):
    made_models.masks(written, tmp_path, ending)
    scene = ColmapData(path=str(tmp_path)).load()
    assert scene.masks is not None and (scene.masks[3][:, :12] == 255).all() and (scene.masks[3][:, 12:] == 0).all()
    next((tmp_path / "masks").rglob("*3.png*")).unlink()
    with pytest.raises(InputError, match="no mask for cam1/003.png"):
        ColmapData(path=str(tmp_path)).load()


def test_lists_of_splits(written, tmp_path):
    (tmp_path / "train_list.txt").write_text("\n".join(written.names[:5]) + "\nnot/registered.png\n")
    (tmp_path / "test_list.txt").write_text("\n".join(written.names[5:7]))
    splits = ColmapData(path=str(tmp_path)).load().splits
    order = [sorted(written.names).index(name) for name in written.names]
    assert splits["train"].tolist() == sorted(order[:5]) and splits["test"].tolist() == sorted(order[5:7])
    (tmp_path / "test_list.txt").write_text("other.png\n")
    with pytest.raises(InputError, match="test_list.txt"):
        ColmapData(path=str(tmp_path)).load()


def test_doubtful_points_are_left_out(tmp_path):
    shot = made_models.ring(points=300)
    made_models.colmap_binary(shot, tmp_path)
    path = tmp_path / "sparse/0/points3D.bin"
    content = bytearray(path.read_bytes())
    each = 51 + 8 * 8
    for index in range(20):
        struct.pack_into("<d", content, 8 + index * each + 35, 9.0)  # its error
    struct.pack_into("<d", content, 8 + 50 * each + 8, np.nan)  # a coordinate
    path.write_bytes(content)
    views = views_of(tmp_path)
    assert views.points is not None and views.tracks is not None
    kept = np.delete(np.arange(300), [*range(20), 50])
    np.testing.assert_allclose(views.points, shot.points[kept])
    assert views.point_colors is not None and np.array_equal(views.point_colors[:, 0], kept % 256)
    seen = np.array(shot.observations())[in_order(shot)]
    np.testing.assert_allclose(views.tracks.pixel, seen[views.tracks.view, kept[views.tracks.point]])
    for options, count in (({"max_error": 20.0}, 299), ({"min_track": 9}, 279)):  # none has nine: better these
        found = views_of(tmp_path, **options).points
        assert found is not None and len(found) == count


def test_a_view_that_goes_takes_its_observations_along(written, tmp_path, capsys):
    (tmp_path / "images" / sorted(written.names)[2]).unlink()
    from dataio.views import checked

    views = checked(views_of(tmp_path))
    error = reprojection(views)
    assert len(views.names) == 7 and error is not None and error.quantile(1.0) < 1e-9
    assert "1 of 8 images" in capsys.readouterr().err


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored_as_colmap_does(tmp_path, orientation):
    shot = made_models.ring(3)
    made_models.colmap_binary(shot, tmp_path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, pixels in zip(shot.names, shot.images, strict=True):
        Image.fromarray(pixels).save(tmp_path / "images" / name, exif=exif)
    scene = ColmapData(path=str(tmp_path)).load()
    assert all(np.array_equal(scene.images[i], shot.images[n]) for i, n in enumerate(in_order(shot)))
    error = reprojection(views_of(tmp_path))
    assert error is not None and error.quantile(1.0) < 0.01


def test_rigs_need_no_care_of_ours(tmp_path):
    """The poses of a model with a rig of two cameras, as COLMAP itself writes it."""
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 2, 2, 4, 50
    model = pycolmap.synthesize_dataset(options)
    for suffix, write in ((".bin", model.write_binary), (".txt", model.write_text)):
        place = tmp_path / suffix[1:] / "sparse/0"
        place.mkdir(parents=True)
        write(str(place))
        for image in model.images.values():
            camera = model.cameras[image.camera_id]
            picture(tmp_path / suffix[1:] / "images" / image.name, size=(camera.width, camera.height))
        views = views_of(tmp_path / suffix[1:])
        by_name = {image.name: image for image in model.images.values()}
        expected = [by_name[name].cam_from_world().inverse().matrix() for name in views.names]
        np.testing.assert_allclose(views.camera_to_world[:, :3], expected, atol=1e-9)
        error = reprojection(views)
        assert len(views.names) == 16 and error is not None and error.median < 1e-6


REAL = {
    "colmap_fox": ("../fox/images", 50, (540, 960), 6952, 1.0),
    "colmap_banana": ("../banana/images", 8, (1504, 1000), 3100, 1.0),
    "synthetic/terrain": (None, 40, (480, 320), 4000, 1e-3),
}


@pytest.mark.parametrize("name", REAL)
def test_real_models(name):
    images, count, size, points, most = REAL[name]
    if images is not None:
        shared_data(images.split("/")[1])
    views = views_of(shared_data(name), images=images)
    assert len(views.names) == count and tuple(views.size[0]) == size and views.points is not None
    assert 0.95 * points < len(views.points) <= points
    error = reprojection(views)
    assert error is not None and error.median < most and np.nanmax(error.per_view) < most


@pytest.mark.parametrize("name", ["colmap_fox", "colmap_banana"])
def test_text_and_binary_say_the_same(name):
    images = str(shared_data(name.removeprefix("colmap_")) / "images")
    binary, text = (views_of(shared_data(name) / part, images=images) for part in ("sparse/0", "sparse_txt"))
    assert binary.names == text.names and binary.tracks is not None and text.tracks is not None
    for key in ("camera_to_world", "intrinsics", "distortion", "points"):
        np.testing.assert_allclose(getattr(binary, key), getattr(text, key), atol=1e-9)
    assert np.array_equal(binary.tracks.point, text.tracks.point)
    np.testing.assert_allclose(binary.tracks.pixel, text.tracks.pixel)


def test_the_terrain_is_that_of_its_transforms():
    folder = shared_data("synthetic/terrain")
    from dataio.formats.transforms import TransformsData

    ours, other = views_of(folder), TransformsData(path=str(folder)).parse()
    poses = {Path(name).name: pose for name, pose in zip(other.names, other.camera_to_world, strict=True)}
    expected = [poses[Path(name).name] for name in ours.names]
    np.testing.assert_allclose(ours.camera_to_world, expected, atol=1e-5)


def test_a_config_of_data_completes_a_method(written, tmp_path):
    (tmp_path / "own.yaml").write_text(f"base: [neus_hash_open.yaml, colmap.yaml]\ndata: {{path: {tmp_path}}}\n")
    data = load_config(tmp_path / "own.yaml", ["data.min_track=2"], ExperimentConfig).data
    assert isinstance(data, ColmapData) and (data.downscale, data.min_track, data.max_error) == (2, 2, 1.5)
    assert len(data.load().images) == 8
