"""DTU's protocol on made scans in the official layout, whose distances are known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from scipy.io import savemat

from dataio.cameras import Cameras
from engine.protocols.base import UNCOUNTED, Sight, Subject, error_colors
from engine.protocols.dtu import DtuProtocol
from utils.errors import InputError

SIDE = 20.0  # mm
PROTOCOL = DtuProtocol(scan=7)


def square(z: float = 0.0, *, width: float = SIDE, cells: int = 8) -> trimesh.Trimesh:
    """[0, width] x [0, SIDE] at a height."""
    x, y = (np.linspace(0, side, cells + 1) for side in (width, SIDE))
    vertices = np.stack([*np.meshgrid(x, y, indexing="ij"), np.full((cells + 1, cells + 1), z)], -1).reshape(-1, 3)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    one = np.stack([corner, corner + cells + 1, corner + 1], 1)
    other = np.stack([corner + cells + 1, corner + cells + 2, corner + 1], 1)
    return trimesh.Trimesh(vertices, np.concatenate([one, other]), process=False)


def joined(one: trimesh.Trimesh, other: trimesh.Trimesh) -> trimesh.Trimesh:
    """Both as one mesh."""
    faces = np.concatenate([one.faces, other.faces + len(one.vertices)])
    return trimesh.Trimesh(np.concatenate([one.vertices, other.vertices]), faces, process=False)


def written(folder: Path, points: np.ndarray, **changes: Any) -> Path:
    """The official files of scan 7: points, a volume of 1 mm voxels that was all observed, a plane below all."""
    for name in ("Points/stl", "ObsMask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    trimesh.PointCloud(points).export(folder / "Points/stl/stl007_total.ply")
    low = np.floor(points.min(0)) - 30
    size = np.ceil(np.ptp(points, axis=0)).astype(int) + 61
    volume = {"ObsMask": np.ones(size, np.uint8), "BB": np.stack([low, low + size - 1]), "Res": np.array([[1.0]])}
    savemat(folder / "ObsMask/ObsMask7_10.mat", {**volume, **{k: v for k, v in changes.items() if k != "P"}})
    savemat(folder / "ObsMask/Plane7.mat", {"P": changes.get("P", np.array([[0.0, 0.0, 1.0, 1000.0]]).T)})
    return folder


@pytest.fixture(scope="module")
def scanned() -> np.ndarray:
    """Points 0.1 mm apart on the square at height 0."""
    steps = np.arange(0.05, SIDE, 0.1)
    return np.stack([*np.meshgrid(steps, steps, indexing="ij"), np.zeros((200, 200))], -1).reshape(-1, 3)


@pytest.fixture(scope="module")
def official(scanned: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("dtu"), scanned)


def test_a_shifted_square(official: Path) -> None:
    found = PROTOCOL.score(Subject(square(10.0), official))
    assert found.numbers["accuracy"] == pytest.approx(10, rel=1e-3)
    assert found.numbers["completeness"] == pytest.approx(10, rel=1e-3)
    assert found.numbers["overall"] == pytest.approx(10, rel=1e-3)
    assert found.error == pytest.approx(10, rel=1e-3)
    assert (error_colors(found)[:, 0] == 255).all() and error_colors(found)[:, 1].max() < 1, "10 mm are all red"


def test_a_square_that_is_cut(official: Path) -> None:
    """Half of the truth is above nothing: its distance grows as the root of 100 + d^2."""
    found = PROTOCOL.score(Subject(square(10.0, width=SIDE / 2, cells=100), official)).numbers
    beside = (5 * np.sqrt(200) + 50 * np.arcsinh(1.0)) / 10
    assert found["accuracy"] == pytest.approx(10, rel=1e-3)
    assert found["completeness"] == pytest.approx((10 + beside) / 2, rel=1e-3)


def test_a_ball_that_is_scaled(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 3))
    folder = written(tmp_path, 4 * points / np.linalg.norm(points, axis=1, keepdims=True))
    ball = trimesh.creation.icosphere(subdivisions=5, radius=10)
    found = PROTOCOL.score(Subject(ball, folder)).numbers
    assert found["accuracy"] == pytest.approx(6, rel=1e-3)
    assert found["completeness"] == pytest.approx(6, rel=1e-3)


def test_what_is_too_far_does_not_count(official: Path) -> None:
    """A second square 25 mm above: it changes neither mean. One alone is no surface of this scan."""
    both = joined(square(10.0), square(25.0))
    found = PROTOCOL.score(Subject(both, official)).numbers
    assert (found["accuracy"], found["completeness"]) == (pytest.approx(10, rel=1e-3), pytest.approx(10, rel=1e-3))
    with pytest.raises(InputError, match="within 20 mm"):
        PROTOCOL.score(Subject(square(25.0), official))


def test_only_the_observed_volume_counts(scanned: np.ndarray, tmp_path: Path) -> None:
    """A step: 10 mm above up to x = 10, then 5 mm, where nothing was observed: there its vertices are gray."""
    seen = np.ones((82, 82, 61), np.uint8)
    seen[41:] = 0  # voxels are rounded to: x >= 10.5
    folder = written(tmp_path, scanned, ObsMask=seen, BB=np.array([[-30.0, -30, -30], [51, 51, 30]]))
    lower = square(5.0, width=SIDE / 2 - 1)
    lower.vertices += [SIDE / 2 + 1, 0, 0]
    found = PROTOCOL.score(Subject(joined(square(10.0, width=SIDE / 2), lower), folder))
    assert found.numbers["accuracy"] == pytest.approx(10, rel=1e-3)
    hidden = found.mesh.vertices[:, 0] > 10.4
    assert np.isnan(found.error[hidden]).all() and np.isfinite(found.error[~hidden]).all()
    assert (error_colors(found)[hidden] == UNCOUNTED).all()


def test_points_of_the_table_do_not_count(scanned: np.ndarray, tmp_path: Path) -> None:
    """The truth at x < 10 lies below the plane x = 10; the mesh is only above that part."""
    folder = written(tmp_path, scanned, P=np.array([[1.0, 0, 0, -10.0]]))
    found = PROTOCOL.score(Subject(square(10.0, width=SIDE / 2, cells=100), folder)).numbers
    assert found["reference_points"] == len(scanned) / 2
    assert found["completeness"] == pytest.approx((5 * np.sqrt(200) + 50 * np.arcsinh(1.0)) / 10, rel=1e-3)


def test_masks_cull_what_one_view_sees_outside_of_them(official: Path) -> None:
    """A camera straight above, 1 mm per pixel on the mesh: its mask is the left half, grown by 2 pixels."""
    pose = np.array([[1.0, 0, 0, 10.25], [0, -1, 0, 10.25], [0, 0, -1, 110]])
    camera = Cameras.make(pose[None], [100.0, 100.0, 10.0, 15.0], [20, 30])
    mask = np.zeros((30, 20), np.uint8)
    mask[:, :10] = 255
    sight = Sight(camera, np.array([0]), lambda: [mask], lambda points: np.ones(len(points), np.int64))
    subject = Subject(square(10.0, cells=40), official, sight=lambda: sight)
    culled = DtuProtocol(scan=7, dilation=2).score(subject)
    assert culled.mesh.vertices[:, 0].max() == pytest.approx(12.0) and culled.mesh.vertices[:, 0].min() == 0
    assert culled.numbers["culled_by_masks"]
    with pytest.raises(InputError, match="no masks"):
        blind = Sight(camera, np.array([0]), lambda: None, sight.times_seen)
        DtuProtocol(scan=7, dilation=2).score(Subject(square(10.0), official, sight=lambda: blind))
    with pytest.raises(InputError, match="--data"):
        DtuProtocol(scan=7, dilation=2).score(Subject(square(10.0), official))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("ObsMask/ObsMask7_10.mat", {"ObsMask": np.ones((3, 3)), "BB": np.zeros((2, 3)), "Res": 1.0}),
        ("ObsMask/ObsMask7_10.mat", {"ObsMask": np.ones((3, 3, 3)), "BB": np.zeros((2, 3))}),
        ("ObsMask/ObsMask7_10.mat", {"ObsMask": np.ones((3, 3, 3)), "BB": np.zeros((2, 3)), "Res": 0.0}),
        ("ObsMask/ObsMask7_10.mat", b"MATLAB 5.0 MAT-file, cut short"),
        ("ObsMask/Plane7.mat", {"P": np.ones(3)}),
        ("ObsMask/Plane7.mat", None),
        ("Points/stl/stl007_total.ply", b"ply\n"),
    ],
)
def test_files_that_are_not_dtus(tmp_path: Path, file: str, content: Any) -> None:
    folder = written(tmp_path, np.random.default_rng(0).random((50, 3)))
    (folder / file).unlink()
    if isinstance(content, bytes):
        (folder / file).write_bytes(content)
    elif content is not None:
        savemat(folder / file, content)
    with pytest.raises(InputError) as caught:
        PROTOCOL.score(Subject(square(), folder))
    assert "\n" not in str(caught.value) and "7" in str(caught.value)
