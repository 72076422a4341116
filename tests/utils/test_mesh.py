"""Surfaces of functions whose shape is known, against marching cubes on the whole lattice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mcubes
import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from utils.errors import InputError
from utils.meshing import lattice
from utils.meshing.mesh import (
    extract_surface,
    keep_pieces,
    pieces,
    read_mesh,
    transformed,
    vertex_colors,
    with_colors,
    write_mesh,
)

Array = NDArray[np.floating]


def sphere(points: Array, radius: float = 0.5) -> Array:
    return np.asarray(np.linalg.norm(points, axis=-1)) - radius


def torus(points: Array) -> Array:
    ring = np.hypot(points[..., 0] - 0.03, points[..., 1]) - 0.5
    return np.hypot(ring, points[..., 2] - 0.011) - 0.17


def density(points: Array) -> Array:
    """A made-up density's level minus itself: flat far away, and a thousand times as steep as a distance."""
    return 25.0 - 4000.0 / (1.0 + np.exp(60.0 * torus(points)))


def dense(value: Callable[[Array], Array], resolution: int) -> trimesh.Trimesh:
    axis = np.linspace(-1.0, 1.0, resolution)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).astype(np.float32)
    vertices, faces = mcubes.marching_cubes(np.asarray(value(grid), np.float64), 0.0)
    vertices = vertices * (2.0 / (resolution - 1)) - 1.0
    return trimesh.Trimesh(vertices, faces.astype(np.int64)[:, ::-1], process=False)


def farthest_vertex(one: trimesh.Trimesh, other: trimesh.Trimesh) -> float:
    from scipy.spatial import cKDTree

    there, _ = cKDTree(other.vertices).query(one.vertices)
    back, _ = cKDTree(one.vertices).query(other.vertices)
    return float(max(np.max(there), np.max(back)))


@pytest.mark.parametrize("value", [sphere, torus, density])
def test_same_vertices_as_on_the_whole_lattice(value: Callable[[Array], Array]) -> None:
    sparse, whole = extract_surface(value, resolution=128), dense(value, 128)
    assert len(sparse.vertices) == len(whole.vertices)
    assert len(sparse.faces) == len(whole.faces)
    assert farthest_vertex(sparse, whole) < 1e-5
    assert sparse.volume == pytest.approx(whole.volume, rel=1e-6)


@pytest.mark.parametrize("resolution", [9, 60, 65, 101])
def test_torus_is_closed_with_one_hole(resolution: int) -> None:
    mesh = extract_surface(torus, resolution=resolution)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.euler_number == 0
    assert mesh.volume > 0.0


def test_volume_area_and_outward_normals_of_a_sphere() -> None:
    mesh = extract_surface(sphere, resolution=129)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.125, rel=2e-3)
    assert mesh.area == pytest.approx(np.pi, rel=2e-3)
    outward = (mesh.vertex_normals * mesh.vertices).sum(1) / 0.5
    assert outward.min() > 0.99
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.5).max() < 1e-4


def test_lattice_spacing_counts_intervals() -> None:
    mesh = extract_surface(lambda p: np.abs(p).max(-1) - 0.35, resolution=21, extent=1.0)
    steps = np.abs(mesh.vertices / (2.0 / 20) - np.rint(mesh.vertices / (2.0 / 20)))
    assert (np.sort(steps, axis=1)[:, :2] < 1e-6).all(), "a vertex lies on a lattice edge"
    assert mesh.extents == pytest.approx([0.7, 0.7, 0.7], abs=1e-4)


def test_zeros_on_lattice_points_leave_no_cracks() -> None:
    mesh = extract_surface(lambda p: np.abs(p).sum(-1) - 0.5, resolution=65)  # an octahedron
    assert mesh.is_watertight and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * 0.125, rel=1e-3)


def test_only_a_small_share_of_the_lattice_is_evaluated() -> None:
    count = 0

    def counted(points: Array) -> Array:
        nonlocal count
        count += len(points)
        return sphere(points)

    extract_surface(counted, resolution=257)
    assert count < 0.2 * 257**3


def test_surface_is_closed_at_the_sphere_and_nothing_is_asked_beyond() -> None:
    farthest = 0.0

    def ground(points: Array) -> Array:
        nonlocal farthest
        farthest = max(farthest, float(np.linalg.norm(points, axis=1).max()))
        return 1000.0 * (points[:, 2] + 0.2)  # not a distance: steep

    mesh = extract_surface(ground, resolution=97, radius=1.0)
    cap = np.pi * 0.8**2 * (3.0 - 0.8) / 3.0
    assert mesh.is_watertight and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(cap, rel=2e-3)
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 1.0 + 1e-6
    assert farthest <= 1.0 + 1e-6


def test_thin_parts_between_coarse_points_are_found() -> None:
    """A rod thinner than a coarse cell: the distance tells that it is near."""

    def thin(points: Array) -> Array:
        side = np.hypot(points[:, 0] - 0.031, points[:, 1] - 0.029) - 0.012
        return np.maximum(side, np.abs(points[:, 2]) - 0.9)

    rod = extract_surface(thin, resolution=193)
    assert rod.extents[2] == pytest.approx(1.8, abs=0.02)
    assert rod.is_watertight and rod.euler_number == 2


def test_scikit_image_serves_where_pymcubes_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lattice, "_marching_cubes", lattice._marching_cubes_skimage)
    mesh = extract_surface(torus, resolution=101)
    assert mesh.is_watertight and mesh.euler_number == 0 and mesh.volume > 0.0
    assert farthest_vertex(mesh, dense(torus, 101)) < 1e-4


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        extract_surface(lambda p: np.where(p[:, 0] > 0.5, np.nan, sphere(p)), resolution=33)


@pytest.mark.parametrize("constant", [1.0, -1.0, 0.0])
def test_no_surface_is_said(constant: float) -> None:
    with pytest.raises(InputError, match="no surface"):
        extract_surface(lambda p: np.full(len(p), constant), resolution=33)


def two_spheres() -> trimesh.Trimesh:
    def value(points: Array) -> Array:
        crumb = np.linalg.norm(points - np.array([0.8, 0.8, 0.8]), axis=-1) - 0.04
        return np.minimum(sphere(points), crumb)

    return extract_surface(value, resolution=101)


def test_crumbs_are_dropped_and_counted() -> None:
    mesh = two_spheres()
    assert len(np.unique(pieces(mesh))) == 2
    for keep, count in (("all", 2), ("largest", 1), (0.01, 1), (0.001, 2), (0.0, 2), (1.0, 1)):
        kept, dropped = keep_pieces(mesh, keep)
        assert (kept.body_count, dropped) == (count, 2 - count)
        assert kept.is_watertight and kept.volume > 0.5
    with pytest.raises(ValueError, match="keep"):
        keep_pieces(mesh, 2.0)


def test_mirroring_keeps_faces_outward() -> None:
    mesh = two_spheres()
    mirrored = transformed(mesh, np.diag([-2.0, 2.0, 2.0, 1.0]))
    assert mirrored.volume == pytest.approx(8.0 * mesh.volume)


def colored() -> trimesh.Trimesh:
    mesh = extract_surface(torus, resolution=33)
    color = np.full((len(mesh.vertices), 4), (255, 128, 0, 255), np.uint8)
    return with_colors(mesh, color)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_written_mesh_comes_back(tmp_path: Path, suffix: str) -> None:
    mesh = colored()
    path = tmp_path / "deep" / f"mesh{suffix}"
    write_mesh(path, mesh)
    back = read_mesh(path)
    assert np.abs(back.vertices - mesh.vertices).max() < 1e-6
    assert (back.faces == mesh.faces).all()
    colors = vertex_colors(back)
    assert colors is not None and (colors == (255, 128, 0, 255)).all()
    assert (back.vertex_normals * mesh.vertex_normals).sum(1).min() > 0.9999
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary files are left"


def test_ply_header_is_what_others_read(tmp_path: Path) -> None:
    write_mesh(tmp_path / "mesh.ply", colored())
    header = (tmp_path / "mesh.ply").read_bytes().split(b"end_header")[0].decode()
    assert "format binary_little_endian 1.0" in header
    for name in ("float x", "float nx", "uchar red", "vertex_indices"):
        assert f"{name}\n" in header


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 3\n\xff\xff")
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (tmp_path / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (tmp_path / "cut.glb").write_bytes(b"glTF\x02\0\0\0")
    (tmp_path / "other.glb").write_bytes(b"glTF" + bytes(64))
    for name in ("junk.ply", "points.obj", "nan.obj", "missing.ply", "cut.glb", "other.glb"):
        with pytest.raises(InputError, match=name) as caught:
            read_mesh(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="expected"):
        write_mesh(tmp_path / "mesh.off", colored())
