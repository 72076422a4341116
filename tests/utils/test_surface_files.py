"""Surfaces found level by level, welded block by block and written through files, against the whole lattice's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tests.utils.test_mesh import Array, dense, density, sphere, torus
from utils.meshing import lattice, surface_files
from utils.meshing.lattice import Box, Field, Lattice, lattice_surface
from utils.meshing.mesh import extract_surface, keep_pieces, kept_pieces, read_mesh
from utils.meshing.surface_files import SurfaceFiles
from utils.meshing.welding import Welder


def assert_same(mesh: trimesh.Trimesh, other: trimesh.Trimesh) -> None:
    """The same vertices to 1e-5 and the same faces, in any order."""
    off, number = (np.asarray(found) for found in cKDTree(other.vertices).query(mesh.vertices))
    assert off.max() < 1e-5 and len(np.unique(number)) == len(mesh.vertices) == len(other.vertices)
    np.testing.assert_array_equal(ordered(number[mesh.faces]), ordered(np.asarray(other.faces)))


def ordered(faces: NDArray[Any]) -> NDArray[Any]:
    """Faces [F, 3], each begun at its least vertex, in one order."""
    turn = (faces.argmin(1)[:, None] + np.arange(3)) % 3
    turned = np.take_along_axis(faces, turn, axis=1)
    return np.asarray(turned[np.lexsort(turned.T)])


@cache
def whole(value: Callable[[Array], Array]) -> trimesh.Trimesh:
    return dense(value, 128)


def crumbs(points: Array) -> Array:
    """A ball across many blocks, a smaller one, and one that a single block holds."""
    found = [np.linalg.norm(points - place, axis=-1) - size for place, size in BALLS]
    return np.asarray(np.minimum.reduce(found))


BALLS = [(np.array([-0.21, 0.1, 0.0]), 0.4), (np.array([0.72, 0.5, 0.31]), 0.21), (np.array([0.6, -0.7, -0.6]), 0.05)]


def through_files(value: Callable[[Array], Array], resolution: int, folder: Path) -> tuple[SurfaceFiles, Welder]:
    files, welder = SurfaceFiles(folder), Welder(resolution)
    files.take(lattice_surface(Field(value, Lattice(resolution, 1.0)), welder, normals=True))
    return files, welder


def written(files: SurfaceFiles, folder: Path) -> trimesh.Trimesh:
    files.write_ply(folder / "mesh.ply", np.eye(4), None)
    return read_mesh(folder / "mesh.ply")


@pytest.mark.parametrize(
    "value, coarse, step", [(torus, 64, 8), (torus, 5, 32), (torus, 1, 64), (density, 64, 8), (density, 5, 32)]
)
def test_the_same_faces_from_every_coarsest_level(
    value: Callable[[Array], Array], coarse: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lattice, "COARSE", coarse)
    assert Lattice(128, 1.0).step == step
    # a slope that few points far apart show is too small: the margin has to make up for it
    found = extract_surface(value, resolution=128, safety=1.5 if step == 8 else 12.0)
    assert_same(found, whole(value))


def test_a_fine_lattice_has_no_more_coarse_points(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [Lattice(size, 1.0).step for size in (128, 513, 514, 1025, 2048, 4096)] == [8, 8, 16, 16, 32, 64]
    monkeypatch.setattr(lattice, "COARSE", 8)
    counts = []

    def counted(points: Array) -> Array:
        counts.append(len(points))
        return sphere(points)

    mesh = extract_surface(counted, resolution=193)
    assert Lattice(193, 1.0).step == 32 and counts[0] == 7**3
    assert mesh.is_watertight and sum(counts) < 0.3 * 193**3
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.5).max() < 1e-4


def test_files_hold_the_mesh_and_its_normals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface_files, "ROWS", 1000)
    files, _ = through_files(torus, 128, tmp_path)
    mesh = written(files, tmp_path)
    assert (len(mesh.vertices), len(mesh.faces)) == files.size
    assert_same(mesh, whole(torus))
    normals = np.concatenate([normals for _, normals in files.vertices()])
    ring = np.array([[0.03, 0, 0.011]]) + 0.5 * _unit((mesh.vertices - [0.03, 0, 0.011]) * [1, 1, 0])
    assert (normals * _unit(mesh.vertices - ring)).sum(1).min() > 0.995
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "mesh.ply", "normals", "vertices"]


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("keep, most, count", [("all", None, 3), (0.05, None, 2), ("largest", None, 1), (0.0, 2, 2)])
def test_pieces_across_blocks_are_one(tmp_path: Path, keep: str | float, most: int | None, count: int) -> None:
    files, welder = through_files(crumbs, 100, tmp_path)
    assert len(files.area) > 3, "a large ball has labels in several blocks"
    assert files.keep(welder.pieces(), keep, most) == 3 - count
    mesh = written(files, tmp_path)
    expected, dropped = keep_pieces(extract_surface(crumbs, resolution=100), keep, most)
    assert mesh.is_watertight and mesh.body_count == count == 3 - dropped
    assert_same(mesh, expected)
    area = 4 * np.pi * sum(size**2 for _, size in BALLS[:count])
    assert mesh.area == pytest.approx(area, rel=0.01) and files.area[files.kept].sum() == pytest.approx(area, rel=0.01)


def test_what_is_kept_of_pieces() -> None:
    area = np.array([1.0, 5.0, 0.1, 5.0])
    assert kept_pieces(area, "all", None).all() and kept_pieces(area, "all", 9).all()
    assert kept_pieces(area, "largest").tolist() == [False, True, False, False]
    assert kept_pieces(area, 0.2).tolist() == [True, True, False, True]
    assert kept_pieces(area, 0.0, 2).tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="most"):
        kept_pieces(area, "all", 0)


def test_a_box_cuts_and_the_rest_is_not_looked_at() -> None:
    """A box of a frame that is turned by 90 degrees about z, and twice as large: x > 0 of the function."""
    turned = np.array([[0.0, -2, 0, 1], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    box = Box(turned, np.array([-5.0, 0.0, -5.0]), np.array([5.0, 5.0, 0.5]))
    np.testing.assert_allclose(box.bounds(), [[0, -2, -2.5], [2.5, 3, 0.25]])
    asked: list[Array] = []

    def value(points: Array) -> Array:
        asked.append(points)
        return sphere(points)

    mesh = extract_surface(value, resolution=140, region=box)
    middle = mesh.triangles_center
    assert middle[:, 0].min() >= 0 and middle[:, 2].max() <= 0.25
    assert mesh.area == pytest.approx(np.pi * 0.5 * 0.75, rel=0.02)  # half a zone of height 0.75
    assert np.concatenate(asked[1:])[:, 0].min() > -0.1, "after the coarse points"
