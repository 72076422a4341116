"""Heights of a surface against ground of known height, and what is said beside a mesh of where it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dataio.georeference import Georeference
from extract_mesh import write_place
from utils.errors import InputError
from utils.evaluation.height_metrics import compare_heights, reference_points, uppermost


def slope(shift: float = 0.0) -> trimesh.Trimesh:
    """z = x / 2 + y / 4 + shift over a square of 200, far from the origin, with a floor below it."""
    corners = np.array([[x, y, 0.0] for x in (900.0, 1100.0) for y in (-100.0, 100.0)])
    top = corners + [[0, 0, 1]] * (corners[:, :1] / 2 + corners[:, 1:2] / 4 + shift)
    vertices = np.concatenate([top, corners - [0, 0, 500]])
    return trimesh.Trimesh(vertices, [[0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6]], process=False)


def ground(count: int = 1000) -> np.ndarray:
    places = np.random.default_rng(0).uniform(-99, 99, (count, 2)) + [1000, 0]
    return np.column_stack([places, places[:, 0] / 2 + places[:, 1] / 4])


def test_the_uppermost_surface_is_measured():
    np.testing.assert_allclose(uppermost(slope(), ground()[:, :2]), ground()[:, 2], atol=1e-3)
    assert np.isnan(uppermost(slope(), np.array([[0.0, 0.0]]))).all()


@pytest.mark.parametrize("shift", [0.0, 0.7, -3.0])
def test_errors_are_those_of_the_shift(shift: float):
    points = np.concatenate([ground(900), [[0.0, 0.0, 0.0]] * 100])
    score = compare_heights(slope(shift), points)
    assert score.median_error == pytest.approx(abs(shift), abs=2e-3)
    assert score.error_90 == pytest.approx(abs(shift), abs=2e-3) and score.bias == pytest.approx(shift, abs=2e-3)
    assert (score.covered, score.points) == (0.9, 1000)


def test_points_that_two_photographs_saw(tmp_path: Path):
    views = np.array([0, 1, 2, 9] * 250, np.uint8)
    np.savez(tmp_path / "a.npz", points=ground().astype(np.float32), n_train_views=views)
    np.savez(tmp_path / "b.npz", points=ground())
    assert len(reference_points(tmp_path / "a.npz")) == 500 and len(reference_points(tmp_path / "b.npz")) == 1000
    slope().export(tmp_path / "a.ply")
    assert reference_points(tmp_path / "a.ply").shape == (200_000, 3)


@pytest.mark.parametrize(
    "arrays",
    [{"x": np.zeros(3)}, {"points": np.zeros((4, 2))}, {"points": np.full((4, 3), np.nan)},
     {"points": np.array([{}])}, {"points": np.zeros((4, 3)), "n_train_views": np.zeros(3)}],
)  # fmt: skip
def test_references_that_are_wrong(arrays: dict, tmp_path: Path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=r"a\.npz"):
        reference_points(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(InputError, match=r"b\.npz"):
        reference_points(tmp_path / "b.npz")


def test_a_mesh_elsewhere_is_an_error():
    with pytest.raises(InputError, match="same frame"):
        compare_heights(slope(), np.zeros((5, 3)))


def test_beside_a_mesh_stands_where_it_is(tmp_path: Path):
    write_place(tmp_path / "mesh.ply", Georeference(47.25, 8.5, 480.0))
    said = json.loads((tmp_path / "mesh.georeference.json").read_text())
    assert said["origin"] == {"latitude": 47.25, "longitude": 8.5, "altitude": 480.0}
    assert said["axes"] == ["east", "north", "up"] and said["unit"] == "meter"
    assert "WGS 84" in said["crs"] and "+proj=topocentric" in said["crs"] and said["utm_of_origin"]["epsg"] == 32632
    assert said["axes_in_glb"] == ["east", "up", "south"]
