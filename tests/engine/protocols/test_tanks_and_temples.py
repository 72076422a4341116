"""Tanks and Temples' protocol on a made scene in the official layout: what is turned, scaled, shifted, cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from dataio.alignment import fit_similarity, moved, nearest_similarity, robust_similarity
from dataio.cameras import Cameras
from engine.protocols.base import Sight, Subject
from engine.protocols.tanks_and_temples import TanksAndTemplesProtocol, read_trajectory
from tests.support.made_data import ring_poses
from utils.errors import InputError
from utils.meshing.mesh import transformed

TAU = 0.01  # of Barn
OURS = np.array([[0.0, -0.5, 0, 7], [0.5, 0, 0, -3], [0, 0, 0.5, 2], [0, 0, 0, 1]])  # from the truth into our world
FRAME = np.array([[0.0, 0, 2, 1], [2, 0, 0, 0], [0, 2, 0, -1], [0, 0, 0, 1]])  # from the truth into that of its .log


def sheet(height: float = 0.0, *, side: float = 1.0, step: float = 0.008) -> np.ndarray:
    """Points on a wavy square [0, side]^2: uneven, so that it fits in one place only."""
    steps = np.arange(0, side, step)
    x, y = (axis.ravel() for axis in np.meshgrid(steps, steps))
    return np.column_stack([x, y, height + 0.1 * np.sin(5 * x) * np.cos(4 * y) + 0.05 * x])


def as_mesh(points: np.ndarray) -> trimesh.Trimesh:
    """Only vertices count: any faces do."""
    return trimesh.Trimesh(points, np.arange(len(points) // 3 * 3).reshape(-1, 3), process=False)


def written(folder: Path, points: np.ndarray, **crop: Any) -> Path:
    """The official files of Barn: the truth, a crop [-1, 2]^2 x [-1, 2], the cameras in a frame of their own."""
    scene = folder / "Barn"
    scene.mkdir()
    trimesh.PointCloud(points).export(scene / "Barn.ply")
    corners = [[-1.0, -1.0, 0.0], [2.0, -1.0, 0.0], [2.0, 2.0, 0.0], [-1.0, 2.0, 0.0]]
    volume = {"orthogonal_axis": "Z", "axis_min": -1.0, "axis_max": 2.0, "bounding_polygon": corners} | crop
    (scene / "Barn.json").write_text(json.dumps(volume))
    np.savetxt(scene / "Barn_trans.txt", np.linalg.inv(FRAME))
    lines = []
    for number, pose in enumerate(ring_poses(12)):
        placed = np.eye(4)
        placed[:3, 3] = moved(pose[None, :3, 3], FRAME)[0]
        lines.append(f"{number} {number} 0\n" + "\n".join(" ".join(map(str, row)) for row in placed))
    (scene / "Barn_COLMAP_SfM.log").write_text("\n".join(lines) + "\n")
    return scene


def seen(similarity: np.ndarray, wrong: int = 0) -> Any:
    """The same cameras in our world, some of them astray."""
    poses = ring_poses(12)
    poses[:, :3, 3] = moved(poses[:, :3, 3], similarity)
    poses[:wrong, :3, 3] += [3.0, 1.0, -2.0]
    cameras = Cameras.make(poses, [20.0, 20.0, 10.0, 10.0], [20, 20])
    return lambda: Sight(cameras, np.arange(12), lambda: None, lambda points: np.ones(len(points), np.int64))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("tanks"), sheet())


@pytest.mark.parametrize("wrong", [0, 3])
def test_the_truth_in_another_world_is_found(official: Path, wrong: int) -> None:
    """Turned, half as large, with cameras of which three are astray: it is brought back, and all of it is right."""
    mesh = transformed(as_mesh(sheet()), OURS)
    found = TanksAndTemplesProtocol().score(Subject(mesh, official, sight=seen(OURS, wrong)))
    assert found.numbers["scale"] == pytest.approx(2, rel=1e-3)
    assert found.numbers["f_score"] == pytest.approx(1) and found.numbers["accuracy"] < 1e-3
    np.testing.assert_allclose(found.mesh.vertices, sheet(), atol=1e-3)


def test_shares_within_tau(official: Path) -> None:
    """Half of it 2.5 tau too high, the upper third of the truth missing."""
    points = sheet()
    points = points[points[:, 1] < 2 / 3]
    high = points[:, 0] >= 0.5
    points[high, 2] += 2.5 * TAU
    found = TanksAndTemplesProtocol(align="none").score(Subject(as_mesh(points), official)).numbers
    # Of 125 x 125 points 0.008 apart: one row and one column beside what is right are within tau of it too.
    precision, recall = 63 / 125, (84 + 1) * (63 + 1) / 125**2
    assert found["precision"] == pytest.approx(precision, abs=1e-3)
    assert found["recall"] == pytest.approx(recall, abs=1e-3)
    assert found["f_score"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-3)
    one = TanksAndTemplesProtocol(align="none", tau=0.1).score(Subject(as_mesh(sheet()), official)).numbers
    assert (one["precision"], one["recall"], one["f_score"]) == (1, 1, 1)


def test_a_shift_is_undone_by_nearest_points_alone(official: Path) -> None:
    """Without cameras a mesh that lies 3 tau beside itself and 1 % too large is found, unless align is none."""
    off = np.diag([1.01, 1.01, 1.01, 1.0])
    off[:3, 3] = 3 * TAU
    mesh = transformed(as_mesh(sheet()), off)
    assert TanksAndTemplesProtocol(align="nearest").score(Subject(mesh, official)).numbers["f_score"] > 0.99
    assert TanksAndTemplesProtocol(align="none").score(Subject(mesh, official)).numbers["f_score"] < 0.5


def test_what_is_outside_of_the_crop_does_not_count(tmp_path: Path) -> None:
    """A triangle in the plane x, z: half of the unit square; what lies beside it, or beyond 0.75, does not count."""
    rng = np.random.default_rng(0)
    crop = {"orthogonal_axis": "Y", "axis_min": 0.25, "axis_max": 0.75,
            "bounding_polygon": [[0.0, 9.0, 0.0], [1.0, 9.0, 0.0], [0.0, 9.0, 1.0]]}  # fmt: skip
    points = rng.random((20_000, 3))
    folder = written(tmp_path, points, **crop)
    found = TanksAndTemplesProtocol(align="none").score(Subject(as_mesh(points), folder))
    inside = (points[:, 0] + points[:, 2] < 1) & (np.abs(points[:, 1] - 0.5) < 0.25)
    assert (np.isfinite(found.error) == inside).all()
    assert found.numbers["f_score"] == 1
    with pytest.raises(InputError, match="nothing is left"):
        TanksAndTemplesProtocol(align="none").score(Subject(as_mesh(points + 5), folder))


def test_similarities_are_found() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(fit_similarity(points, moved(points, OURS)), OURS, atol=1e-12)
    targets = moved(points, OURS)
    targets[:20] += np.random.default_rng(1).normal(size=(20, 3))
    np.testing.assert_allclose(robust_similarity(points, targets, reach=1e-3, sample=4), OURS, atol=1e-9)
    assert (nearest_similarity(points, points + 100, reach=1.0, most=20) == np.eye(4)).all()
    flat = points * [1, 1, 0]
    assert np.linalg.det(fit_similarity(flat, flat)[:3, :3]) == pytest.approx(1), "no mirror"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scene: (scene / "Barn.json").write_text("{}"), "orthogonal_axis"),
        (lambda scene: (scene / "Barn.json").write_text("[" * 9999), "Barn.json"),
        (lambda scene: (scene / "Barn_trans.txt").write_text("1 2 3"), "16 finite"),
        (lambda scene: (scene / "Barn_trans.txt").unlink(), "Barn_trans.txt"),
        (lambda scene: (scene / "Barn_COLMAP_SfM.log").write_text("0 0 0\n1 0"), "19 for each"),
        (lambda scene: (scene / "Barn.ply").unlink(), "Barn.ply"),
        (lambda scene: scene.rename(scene.with_name("Shed")), "Courthouse"),
    ],
)
def test_scenes_that_are_none(tmp_path: Path, change: Any, words: str) -> None:
    change(written(tmp_path, sheet(step=0.2)))
    folder = next(tmp_path.iterdir())
    with pytest.raises(InputError, match=words) as caught:
        TanksAndTemplesProtocol(align="none").score(Subject(as_mesh(sheet(step=0.2)), folder))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_other_cameras_are_refused(official: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.log").write_text("0 0 0\n" + " ".join(map(str, np.eye(4).ravel())))
    assert read_trajectory(tmp_path / "ours.log").tolist() == [[0, 0, 0]]
    with pytest.raises(InputError, match="12 official cameras - got 1"):
        TanksAndTemplesProtocol(trajectory=str(tmp_path / "ours.log")).score(Subject(as_mesh(sheet()), official))
    with pytest.raises(InputError, match="--data"):
        TanksAndTemplesProtocol().score(Subject(as_mesh(sheet()), official))
