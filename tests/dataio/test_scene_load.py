"""From views to a scene: compositing, splits, sizes, recognition, frames."""

import re

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dataio.formats.dtu import DtuData
from dataio.formats.transforms import TransformsData
from dataio.pictures.images import composited
from dataio.recognition import AutoData
from dataio.scene import DataConfig
from tests.conftest import shared_data
from tests.support import made_data
from utils.config.parts import discover, parts
from utils.errors import InputError


def test_formats_are_found_by_lying_in_the_folder():

    discover("dataio.formats")
    assert {"auto", "transforms", "dtu", "procedural"} <= set(parts(DataConfig))


def test_the_folder_tells_the_format(tmp_path, capsys):
    made_data.transforms(tmp_path / "a")
    made_data.dtu(tmp_path / "b")
    assert isinstance(AutoData(path=str(tmp_path / "a")).resolve(), TransformsData)
    assert isinstance(AutoData(path=str(tmp_path / "a/transforms.json")).resolve(), TransformsData)
    assert isinstance(AutoData(path=str(tmp_path / "b"), holdout=3).resolve(), DtuData)
    assert AutoData(path=str(tmp_path / "b"), holdout=3).resolve().holdout == 3
    assert capsys.readouterr().err == ""
    made_data.transforms(tmp_path / "b")
    assert isinstance(AutoData(path=str(tmp_path / "b")).resolve(), TransformsData)
    assert "data.type: dtu" in capsys.readouterr().err
    said = AutoData(path=str(tmp_path / "a")).check()
    assert re.search(r"10 views, 2 of them for tests \(images/00\d.png, images/00\d.png\)$", said)


def test_a_check_says_what_the_unit_sphere_holds(tmp_path):
    """Of 41 points 30 lie within it, 10 beyond, and one where no camera looks."""
    near, far = np.random.default_rng(0).uniform(-0.2, 0.2, (30, 3)), [[0.0, 0.7, 0.1 * i] for i in range(-5, 5)]
    made_data.transforms(tmp_path, ply_file_path="points.ply")
    trimesh.PointCloud(np.concatenate([near, far, [[0.0, 0.0, 90.0]]])).export(tmp_path / "points.ply")
    said = TransformsData(path=str(tmp_path), center=(0, 0, 0), radius=0.5).check()
    assert said.endswith("; the unit sphere holds 75.0% of 40 sparse points that two views or more show")
    for view in range(10):
        made_data.picture(tmp_path / f"images/{view:03d}.png", view, mode="RGBA")
    assert "sphere" not in TransformsData(path=str(tmp_path), masks="composite").check()  # pixels say where it is


def test_every_nth_view_by_name_is_held_out(tmp_path):
    content = made_data.transforms(tmp_path, 20)
    np.random.default_rng(1).shuffle(content["frames"])
    made_data.write(tmp_path / "transforms.json", content)
    scene = TransformsData(path=str(tmp_path)).load()
    held = {scene.names[view] for view in scene.splits["test"]}
    assert held == {"images/000.png", "images/008.png", "images/016.png"}
    assert sorted([*scene.splits["train"], *scene.splits["test"]]) == list(range(20))
    none = TransformsData(path=str(tmp_path), holdout=0).load()
    assert len(none.splits["train"]) == 20 and len(none.splits["test"]) == 0


def test_compositing_is_exact():
    color = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3).repeat(256, 0)
    mask = np.arange(256, dtype=np.uint8)[:, None].repeat(256, 1)
    for background in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.2, 0.5, 1.0)):
        share = mask[..., None] / 255
        truth = color * share + np.round(np.array(background) * 255) * (1 - share)
        ours = composited(color, mask, background).astype(np.float64)
        assert np.abs(ours - truth).max() <= 0.5 + 1e-9


def alpha_set(folder):
    content = made_data.transforms(folder)
    for view in range(10):
        made_data.picture(folder / f"images/{view:03d}.png", view, "RGBA")
    return content


def test_alpha_is_a_mask(tmp_path):
    alpha_set(tmp_path)
    raw = np.asarray(Image.open(tmp_path / "images/003.png"))
    scene = TransformsData(
        path=str(tmp_path), background=(0.0, 1.0, 0.0), radius=1.0, center=(0, 0, 0)
    ).load()
    assert scene.masks is not None and np.array_equal(scene.masks[3], raw[..., 3])
    assert np.array_equal(scene.images[3], composited(raw[..., :3], raw[..., 3], (0.0, 1.0, 0.0)))
    assert scene.background == (0.0, 1.0, 0.0)
    keep = TransformsData(path=str(tmp_path), masks="keep").load()
    assert keep.masks is not None and np.array_equal(keep.masks[3], raw[..., 3])
    assert np.array_equal(keep.images[3], raw[..., :3]) and keep.background == (1.0, 1.0, 1.0)
    off = TransformsData(path=str(tmp_path), masks="off").load()
    assert off.masks is None and off.background is None and np.array_equal(off.images[3], raw[..., :3])


def test_masks_are_asked_for_but_missing(tmp_path):
    made_data.transforms(tmp_path)
    assert TransformsData(path=str(tmp_path)).load().masks is None
    with pytest.raises(InputError, match="neither masks nor alpha"):
        TransformsData(path=str(tmp_path), masks="composite").load()
    with pytest.raises(InputError, match="neither masks nor alpha"):
        TransformsData(path=str(tmp_path), masks="keep").load()
    made_data.picture(tmp_path / "images/004.png", 4, "RGBA")
    with pytest.raises(InputError, match="000.png.*all or none"):
        TransformsData(path=str(tmp_path)).load()


def test_an_opaque_alpha_of_some_pictures_says_nothing(tmp_path, capsys):
    """As where one photograph was edited and saved with an alpha: it is no mask that the others lack."""
    made_data.transforms(tmp_path)
    expected = TransformsData(path=str(tmp_path)).load().images[4]
    Image.open(tmp_path / "images/004.png").convert("RGBA").save(tmp_path / "images/004.png")
    scene = TransformsData(path=str(tmp_path)).load()
    assert scene.masks is None and np.array_equal(scene.images[4], expected)
    assert "opaque everywhere" in capsys.readouterr().err
    assert TransformsData(path=str(tmp_path)).inspect().quantities == frozenset()
    assert capsys.readouterr().err.count("opaque everywhere") == 1


def test_downscaled_views_see_the_same(tmp_path):
    alpha_set(tmp_path)
    full = TransformsData(path=str(tmp_path), radius=1.0, center=(0.0, 0.0, 0.0)).load()
    half = TransformsData(path=str(tmp_path), radius=1.0, center=(0.0, 0.0, 0.0), downscale=2).load()
    assert half.cameras.size[0].tolist() == [12, 8] and half.images[0].shape == (8, 12, 3)
    assert half.masks is not None and half.masks[0].shape == (8, 12)
    boxes = full.images[0].reshape(8, 2, 12, 2, 3).mean(axis=(1, 3))
    assert np.abs(half.images[0] - boxes).max() <= 1
    view = torch.zeros(1, dtype=torch.int64)
    ours = half.cameras.rays(view, torch.tensor([[3.0, 2.0]])).directions
    torch.testing.assert_close(ours, full.cameras.rays(view, torch.tensor([[6.0, 4.0]])).directions)


def test_the_config_may_say_the_frame_and_up(tmp_path):
    made_data.transforms(tmp_path)
    scene = TransformsData(path=str(tmp_path), center=(1, 2, 3), radius=4.0, up=(0, 2, 0), near=0.2).load()
    assert np.array_equal(scene.world_from_scene, [[4, 0, 0, 1], [0, 4, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]])
    assert scene.up.tolist() == [0, 1, 0] and scene.cameras.near.eq(0.2).all()
    world = made_data.ring_poses(10)[:, :3, 3]
    back = scene.cameras.centers.numpy() * 4 + [1, 2, 3]
    np.testing.assert_allclose(back, world, atol=1e-5)
    only_radius = TransformsData(path=str(tmp_path), radius=4.0).load()
    np.testing.assert_allclose(only_radius.world_from_scene[:3, 3], 0, atol=1e-6)
    only_center = TransformsData(path=str(tmp_path), center=(0.0, 0.0, 1.0)).load()
    assert only_center.world_from_scene[2, 3] == pytest.approx(1)
    with pytest.raises(InputError, match=r"data\.up"):
        TransformsData(path=str(tmp_path), up=(0, 0, 0)).load()


def test_reframing_keeps_the_world(tmp_path):
    made_data.transforms(tmp_path)
    scene = TransformsData(path=str(tmp_path)).load()
    frame = np.diag([7.0, 7.0, 7.0, 1.0])
    frame[:3, 3] = (3, -2, 1)
    other = scene.reframed(frame)
    for one in (scene, other):
        centers = (
            one.cameras.centers.double().numpy() @ one.world_from_scene[:3, :3].T
            + one.world_from_scene[:3, 3]
        )
        np.testing.assert_allclose(centers, made_data.ring_poses(10)[:, :3, 3], atol=1e-5)
    torch.testing.assert_close(other.cameras.forward, scene.cameras.forward)


def test_geo_referenced_cameras_keep_their_precision(tmp_path):
    content = made_data.transforms(tmp_path)
    shift = np.array([4_430_000.0, 5_410_000.0, 300.0])
    for frame in content["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, 3] += shift
        frame["transform_matrix"] = matrix.tolist()
    made_data.write(tmp_path / "transforms.json", content)
    scene = TransformsData(path=str(tmp_path)).load()
    np.testing.assert_allclose(scene.world_from_scene[:3, 3], shift, atol=1e-3)
    world = (
        scene.cameras.centers.double().numpy() @ scene.world_from_scene[:3, :3].T
        + scene.world_from_scene[:3, 3]
    )
    np.testing.assert_allclose(world - shift, made_data.ring_poses(10)[:, :3, 3], atol=1e-5)


@pytest.mark.parametrize("name", ["figure", "mechanical"])
def test_surface_points_lie_inside_the_masks(name):
    folder = shared_data(f"synthetic/{name}")
    scene = made_data.real_scene(f"synthetic/{name}")
    assert scene.masks is not None and len(scene.splits["train"]) == 48 and len(scene.splits["test"]) == 12
    points = np.load(folder / "gt_points.npz")["points"][::20].astype(np.float64)
    inverse = np.linalg.inv(scene.world_from_scene)
    points = torch.from_numpy(points @ inverse[:3, :3].T + inverse[:3, 3]).float()
    for view in range(0, 60, 7):
        pixels, depth = scene.cameras.project(points, view)
        assert (depth > 0).all()
        column, row = pixels.floor().long().clamp(0, 399).T
        assert (scene.masks[view][row, column] > 0).mean() > 0.9995


def test_depth_of_the_renderer_lies_on_the_surface_points():
    """The half-pixel test on real files: lifted depth maps against the true surface, in world units."""
    folder = shared_data("synthetic/figure")
    scene = made_data.real_scene("synthetic/figure")
    points = np.load(folder / "gt_points.npz")
    from scipy.spatial import cKDTree

    tree = cKDTree(points["points"])
    view = int(scene.splits["test"][0])
    depth = torch.from_numpy(np.load(folder / "gt/depth_test_000.npz")["depth"]).float().reshape(-1)
    hit = torch.nonzero(depth > 0).squeeze(1)[::11]
    rays = scene.cameras.rays(torch.full((len(hit),), view), scene.cameras.pixel_grid(view)[hit])
    scale = scene.world_from_scene[0, 0]
    t = depth[hit] / float(scale) / (rays.directions @ scene.cameras.forward[view])
    lifted = rays.at(t).double().numpy() * scale + scene.world_from_scene[:3, 3]
    _, nearest = tree.query(lifted)
    off = np.abs(((lifted - points["points"][nearest]) * points["normals"][nearest]).sum(axis=1))
    assert np.median(off) < 2e-4
