"""Colors of a mesh along the views that see it, and what is left open: spheres and planes, seen by known cameras."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dataio.cameras import Cameras
from engine.meshes.finishing import as_seen
from engine.meshes.views import colors_as_seen, sights_of, views_of, without_caps
from utils.errors import InputError
from utils.meshing.mesh import extract_surface, vertex_colors
from utils.paths.camera_paths import look_at


def run_with(centers: np.ndarray) -> Any:
    """Cameras that look at the origin, above solid ground; a color that says along which direction a point is seen."""
    poses = look_at(centers, [0.0, 0.0, 0.0], [0.1, 0.2, 1.0])
    return SimpleNamespace(
        device=torch.device("cpu"),
        cameras=Cameras.make(poses, [60.0, 60.0, 40.0, 40.0], [80, 80]),
        splits={"train": np.arange(len(centers))},
        surface_value=lambda points: points[:, 2],
        surface_color=lambda points, directions: 0.5 + 0.5 * directions,
        model=SimpleNamespace(media=[]),
        load_scene=no_photographs,
    )


def no_photographs() -> Any:
    raise InputError("data: no such folder")


def around(count: int, seed: int = 0) -> np.ndarray:
    centers = np.random.default_rng(seed).normal(size=(count, 3))
    return 3.0 * centers / np.linalg.norm(centers, axis=1, keepdims=True)


def test_a_sphere_is_seen_by_who_is_before_it() -> None:
    mesh, centers = trimesh.creation.icosphere(4, 0.5), around(12)
    run = run_with(centers)
    seen = views_of(run, mesh, sights_of(run, mesh, 0.02))
    toward = centers[None] - mesh.vertices[:, None]
    facing = (toward * mesh.vertex_normals[:, None]).sum(-1) / np.linalg.norm(toward, axis=-1)
    clear = (np.abs(facing - 0.1) > 0.05).all(1)
    assert clear.mean() > 0.4
    assert np.array_equal(seen.count.numpy()[clear], (facing > 0.1).sum(1)[clear])
    colors = colors_as_seen(run, mesh, seen)
    for vertex in np.flatnonzero(clear)[::97]:
        order = np.argsort(-facing[vertex])[:12]
        order = order[facing[vertex, order] > 0.1]
        if len(order):
            assert set(seen.best[vertex].tolist()) - {-1} == set(order.tolist())
            ways = -toward[vertex, order] / np.linalg.norm(toward[vertex, order], axis=-1, keepdims=True)
            np.testing.assert_allclose(colors[vertex], np.median(0.5 + 0.5 * ways, axis=0), atol=1e-4)
    unseen = seen.count.numpy() == 0
    np.testing.assert_allclose(colors[unseen], 0.5 - 0.5 * mesh.vertex_normals[unseen], atol=1e-4)


def test_what_stands_before_another_thing_hides_it() -> None:
    """A large ball beside a small one, on the line to the only camera."""
    small = trimesh.creation.icosphere(3, 0.1)
    large = trimesh.creation.icosphere(4, 0.3).apply_translation([0.6, 0, 0])
    faces = np.concatenate([small.faces, large.faces + len(small.vertices)])
    mesh = trimesh.Trimesh(np.concatenate([small.vertices, large.vertices]), faces, process=False)
    run = run_with(np.array([[3.0, 0.0, 0.0]]))
    seen = views_of(run, mesh, sights_of(run, mesh, 0.02))
    assert (seen.count[: len(small.vertices)] == 0).all()
    assert 0.2 < (seen.count[len(small.vertices) :] > 0).float().mean() < 0.5
    assert seen.best.unique().tolist() == [-1, 0]


def test_a_slab_is_opened_where_the_sphere_closed_it() -> None:
    """z < 0 is solid: the disk is seen from above, the half ball below by nobody."""
    mesh = extract_surface(lambda points: points[:, 2], resolution=64, extent=1.0, radius=1.0)
    above = around(10)
    above[:, 2] = np.abs(above[:, 2]) + 1
    run = run_with(above)
    seen = views_of(run, mesh, sights_of(run, mesh, 2 / 64))
    kept, share = without_caps(run, mesh, seen)
    assert share == pytest.approx(2 / 3, abs=0.04)  # 2 pi of 3 pi
    closed = as_seen(run, mesh.copy(), cell=2 / 64, color=True, close=True)
    assert len(closed.mesh.faces) == len(mesh.faces) and "left open" not in closed.said
    found = as_seen(run, mesh.copy(), cell=2 / 64, color=True, close=False)
    opened = found.mesh
    assert len(opened.faces) == kept.sum() and "of the area left open (--close keeps it)" in found.said
    assert opened.vertices[:, 2].min() > -0.1 and not opened.is_watertight
    assert opened.visual.vertex_colors.shape == (len(opened.vertices), 4)  # type: ignore[union-attr]


def test_the_unseen_side_of_an_object_stays() -> None:
    mesh = trimesh.creation.icosphere(4, 0.5)
    run = run_with(np.array([[3.0, 0, 0], [2.9, 0.5, 0]]))
    seen = views_of(run, mesh, sights_of(run, mesh, 0.02))
    assert (seen.count == 0).float().mean() > 0.4
    kept, share = without_caps(run, mesh, seen)
    assert kept.all() and share == 0


def test_a_surface_that_nobody_sees_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    mesh = trimesh.creation.icosphere(3, 0.2)
    run = run_with(np.array([[3.0, 0, 0], [2.9, 0.5, 0]]))
    mesh.apply_translation([0, 0, 40.0])
    said = as_seen(run, mesh, cell=0.02, color=True, close=False).said
    assert "100% of it unseen" in said and "0.0% of the surface is seen by a training view" in capsys.readouterr().err


def test_what_is_kept_is_simplified_after_the_cut() -> None:
    """The disk of the slab has the whole budget; what closed it still hides, and is not in the mesh."""
    mesh = extract_surface(lambda points: points[:, 2], resolution=64, extent=1.0, radius=1.0)
    above = around(10)
    above[:, 2] = np.abs(above[:, 2]) + 1
    found = as_seen(run_with(above), mesh, cell=2 / 64, color=True, close=False, faces=500)
    assert 450 <= len(found.mesh.faces) == found.kept.sum() <= 500 < len(found.whole.faces)
    assert found.mesh.area == pytest.approx(np.pi, rel=0.05) and np.abs(found.mesh.vertices[:, 2]).max() < 0.1
    assert found.whole.vertices[:, 2].min() < -0.9 and vertex_colors(found.mesh) is not None
