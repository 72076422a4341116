"""Surfaces against points on the true one; what counts as seen; depth of held-out views."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dataio.formats.scannet import ScannetData
from dataio.scene import Scene
from dataio.visibility import times_seen
from engine.evaluation.pictures import depth_error, score_depths
from tests.support import made_rgbd
from utils.errors import InputError
from utils.evaluation.point_metrics import compare_points, has_faces, read_points
from utils.meshing.mesh import extract_surface


def ball(radius: float) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=4, radius=radius)


def everything(points: np.ndarray) -> np.ndarray:
    return np.ones(len(points), dtype=bool)


@pytest.fixture(scope="module")
def on_unit_sphere() -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(40_000, 3))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.mark.parametrize(("radius", "inside_2cm", "inside_5cm"), [(1.0, 1.0, 1.0), (1.03, 0.0, 1.0), (1.1, 0.0, 0.0)])
def test_a_ball_that_is_too_large(
    on_unit_sphere: np.ndarray, radius: float, inside_2cm: float, inside_5cm: float
) -> None:
    score = compare_points(ball(radius), on_unit_sphere, observed=everything, samples=20_000)
    assert score["completeness"] == pytest.approx(radius - 1, abs=2e-3)
    assert score["accuracy"] == pytest.approx(radius - 1, abs=0.01)  # up to half the points' spacing too large
    assert score["f_score_at_0.02"] == pytest.approx(inside_2cm, abs=0.01)
    assert score["f_score_at_0.05"] == pytest.approx(inside_5cm, abs=0.01)
    assert score["reference_spacing"] < 0.02


def test_what_was_not_observed_costs_no_precision(on_unit_sphere: np.ndarray) -> None:
    """A second ball where nobody looked; half of the true points missing."""
    near, far = ball(1.0), ball(0.5)
    vertices = np.concatenate([near.vertices, far.vertices + [3, 0, 0]])
    both = trimesh.Trimesh(vertices, np.concatenate([near.faces, far.faces + len(near.vertices)]), process=False)
    upper = on_unit_sphere[on_unit_sphere[:, 2] > 0]
    score = compare_points(both, upper, observed=lambda p: (p[:, 2] > 0) & (p[:, 0] < 2), samples=20_000)
    assert score["precision_at_0.05"] > 0.99 and score["recall_at_0.05"] > 0.99
    assert compare_points(both, upper, observed=everything, samples=20_000)["precision_at_0.05"] < 0.6
    with pytest.raises(InputError, match="no part"):
        compare_points(both, upper, observed=lambda p: p[:, 0] > 9, samples=100)


def test_points_by_the_number_of_views(tmp_path: Path, on_unit_sphere: np.ndarray) -> None:
    views = np.arange(len(on_unit_sphere)) % 4
    np.savez(tmp_path / "p.npz", points=on_unit_sphere, n_train_views=views)
    assert len(read_points(tmp_path / "p.npz")) == len(on_unit_sphere) // 2
    assert len(read_points(tmp_path / "p.npz", least_views=3)) == len(on_unit_sphere) // 4
    trimesh.PointCloud(on_unit_sphere[:50]).export(tmp_path / "p.ply")
    ball(1.0).export(tmp_path / "mesh.ply")
    assert len(read_points(tmp_path / "p.ply")) == 50
    assert [has_faces(tmp_path / name) for name in ("p.npz", "p.ply", "mesh.ply", "x.obj")] == [0, 0, 1, 1]


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("points.npy", content)
    return out.getvalue()


def array(value: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, value)
    return zipped(out.getvalue())


BAD = {
    "empty": b"",
    "text": b"no archive",
    "cut": array(np.zeros((50, 3)))[:-40],
    "no array": zipped(b"nothing"),
    "flat": array(np.zeros(3)),
    "none": array(np.zeros((0, 3))),
    "NaN": array(np.full((4, 3), np.nan)),
    "objects": zipped(pickle.dumps([1, 2, 3])),
    "promised": zipped(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 3), }"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_points(tmp_path: Path, case: str) -> None:
    path = tmp_path / "p.npz"
    path.write_bytes(BAD[case])
    with pytest.raises(InputError, match="p.npz") as caught:
        read_points(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_points(tmp_path / "other.npz")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("room")
    made_rgbd.scannet(folder)
    return ScannetData(path=str(folder)).load()


def test_what_views_saw(room: Scene) -> None:
    """The points that a view measured were seen by it, those behind them were not, nor those behind the camera."""
    view = 2
    pixels = room.cameras.pixel_grid(view)
    rays = room.cameras.rays(torch.full((len(pixels),), view), pixels)
    assert room.depths is not None
    depth = torch.from_numpy(room.depths[view].ravel())
    known, along = depth > 0, depth / (rays.directions @ room.cameras.forward[view])
    for factor, seen in ((1.0, 1), (0.5, 1), (1.2, 0), (-0.3, 0)):
        points = rays.at(factor * along)[known].double().numpy()
        assert (times_seen(room, np.array([view]), points, margin=0.01) == seen).mean() > 0.98
    assert times_seen(room, np.arange(10), rays.at(along)[known].double().numpy(), margin=0.01).max() > 2


def test_depth_errors_are_along_the_axis_in_meters(room: Scene) -> None:
    assert room.depths is not None
    view, scale = 1, float(np.cbrt(np.linalg.det(room.world_from_scene[:3, :3])))
    rays = room.cameras.rays(torch.full((room.depths[view].size,), view), room.cameras.pixel_grid(view))
    cosine = (rays.directions @ room.cameras.forward[view]).numpy().reshape(room.depths[view].shape)
    error, seen = depth_error(room, view, (room.depths[view] + 0.1 / scale) / cosine)
    assert len(error) == len(seen) == (room.depths[view] > 0).sum() and seen.mean() > 0.9
    np.testing.assert_allclose(error, 0.1, atol=1e-5)
    score = score_depths(np.array([0.0, 0.04, 0.06, 0.02]), np.array([True, True, False, False]))
    assert score["depth_within_0.05"] == 0.75 and score["depth_median_error"] == pytest.approx(0.03)
    assert score["depth_within_0.05_seen"] == 1 and (score["depth_pixels"], score["depth_pixels_seen"]) == (4, 2)
    assert score_depths(np.zeros(0), np.zeros(0, dtype=bool))["depth_within_0.05"] is None


def test_a_hollow_has_no_outer_side() -> None:
    """A room is a hollow in a solid: one surface, facing inwards, none at the border of the sphere."""

    def hollow(points: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 - np.linalg.norm(points, axis=1), dtype=np.float32)

    mesh = extract_surface(hollow, resolution=48, extent=1.0, radius=1.0, solid_beyond=True)
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 0.51
    assert mesh.volume < 0 and abs(mesh.volume) == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.02)
    closed = extract_surface(hollow, resolution=48, extent=1.0, radius=1.0)
    assert np.linalg.norm(closed.vertices, axis=1).max() > 0.95
