"""Scores of surfaces whose distances are known, and agreement with an independent scorer."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
import trimesh

from tests.conftest import shared_data
from utils.errors import InputError
from utils.evaluation.mesh_metrics import compare_meshes, distances_to_surface
from utils.meshing.mesh import read_mesh, submesh


def ball(radius: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    mesh.vertices += center
    return mesh


def joined(one: trimesh.Trimesh, other: trimesh.Trimesh) -> trimesh.Trimesh:
    faces = np.concatenate([one.faces, other.faces + len(one.vertices)])
    return trimesh.Trimesh(np.concatenate([one.vertices, other.vertices]), faces, process=False)


def test_equal_surfaces() -> None:
    score = compare_meshes(ball(3.0), ball(3.0), samples=5000)
    assert score.chamfer < 1e-6
    assert score.f_scores == pytest.approx((1.0, 1.0, 1.0))
    assert score.normal_consistency == pytest.approx(1.0, abs=1e-3)
    assert score.reference_radius == pytest.approx(3.0)
    assert score.predicted_watertight and score.predicted_components == 1


def test_concentric_spheres_are_a_known_distance_apart() -> None:
    """Radii 2 and 2 * 1.015: all distances are 1.5 % of the reference's radius, wherever the pair lies."""
    center = (100.0, -50.0, 7.0)
    score = compare_meshes(ball(2.03, center), ball(2.0, center), samples=5000)
    assert score.accuracy == pytest.approx(0.015, rel=0.03)
    assert score.completeness == pytest.approx(0.015, rel=0.03)
    assert score.chamfer == pytest.approx((score.accuracy + score.completeness) / 2)
    assert score.f_scores == pytest.approx((0.0, 0.0, 1.0))


def test_half_a_surface_is_accurate_but_incomplete() -> None:
    whole = ball(1.0)
    half = submesh(whole, whole.triangles_center[:, 2] > 0.0)
    score = compare_meshes(half, whole, samples=20_000)
    assert score.accuracy < 1e-4
    assert score.completeness > 0.1
    assert score.f_scores[1] == pytest.approx(2 / 3, abs=0.02), "precision 1, recall one half"
    assert not score.predicted_watertight


def test_distances_are_to_the_surface_not_to_its_vertices() -> None:
    corners = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    square = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    points = np.array([[0.5, 0.25, 0.5], [0.25, 0.5, -2.0], [2.0, 0.0, 0.0], [2.0, 1.5, 1.0]])
    distance, face = distances_to_surface(points, square)
    assert distance == pytest.approx([0.5, 2.0, 1.0, np.sqrt(1 + 0.25 + 1)], abs=1e-6)
    assert face[:2].tolist() == [0, 1]


def test_crop_forgets_the_background() -> None:
    far = joined(ball(1.0), ball(1.0, (10.0, 0.0, 0.0)))
    assert compare_meshes(far, ball(1.0), samples=2000).accuracy > 1.0
    assert compare_meshes(far, ball(1.0), samples=2000, crop=0.05).accuracy < 1e-6
    with pytest.raises(InputError, match="same frame"):
        compare_meshes(ball(1.0, (10.0, 0.0, 0.0)), ball(1.0), crop=0.05)


def test_names_in_metrics_json() -> None:
    named = compare_meshes(ball(1.0), ball(1.0), samples=100).as_dict()
    assert {"chamfer", "accuracy", "completeness", "normal_consistency"} <= set(named)
    assert {"f_score_0.005", "f_score_0.01", "f_score_0.02"} <= set(named)
    assert all(isinstance(value, float | int | bool) for value in named.values())


def independent_scorer() -> ModuleType:
    path = shared_data("meshes").parents[1] / "tools" / "score_mesh.py"
    if not path.is_file():
        pytest.skip("no score_mesh.py in ../shared/tools")
    spec = importlib.util.spec_from_file_location("score_mesh", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("crop", [None, 0.05])
@pytest.mark.parametrize("name", ["spot.obj", "stanford-bunny.obj"])
def test_agrees_with_the_independent_scorer(name: str, crop: float | None) -> None:
    reference = read_mesh(shared_data("meshes") / name)
    rng = np.random.default_rng(1)
    noise = 0.004 * reference.scale * rng.standard_normal(reference.vertices.shape)
    crumb = ball(0.05 * reference.scale, tuple(reference.bounds[1] + reference.scale))
    most = reference.faces[: -len(reference.faces) // 5]
    predicted = joined(trimesh.Trimesh(reference.vertices + noise, most, process=False), crumb)
    ours = compare_meshes(predicted, reference, samples=20_000, crop=crop).as_dict()
    theirs = independent_scorer().score(predicted, reference, 20_000, crop)
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
