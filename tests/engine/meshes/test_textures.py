"""Textures baked from photographs, and what else extract_mesh.py makes of a surface: a ball whose color is known."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

import extract_mesh
from engine.meshes.finishing import faces_kept
from engine.meshes.observed import Observed, between_pixels
from engine.meshes.points import PointColors
from engine.meshes.streamed import Wanted, write_streamed
from engine.meshes.surface import scene_surface
from engine.meshes.texture import textured
from engine.meshes.views import sights_of, views_of
from models.rendering.renderers.mesh import MeshRenderer
from tests.engine.meshes.test_photographs import BALL, color_at, photographed, run_from
from tests.engine.meshes.test_views import around, run_with
from utils.errors import InputError
from utils.meshing.lattice import Box
from utils.meshing.mesh import read_mesh, texture_of, vertex_colors, write_mesh


def drawn(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Colors [N, 3] of a mesh where a camera sees it, and the points [N, 3] there."""
    cameras = run_with(around(1, seed=7)).cameras
    grid = cameras.pixel_grid(0)
    rays = cameras.rays(torch.zeros(len(grid), dtype=torch.int64), grid)
    seen = MeshRenderer(mesh, torch.ones(3)).look(rays)
    hit = seen.opacity > 0
    assert seen.color is not None and hit.sum() > 300
    return seen.color[hit].numpy(), rays.at(seen.depth)[hit].numpy()


@pytest.fixture(scope="module")
def ball_with_texture() -> trimesh.Trimesh:
    run = run_from(around(30), 0.08)
    scene = photographed(run.cameras)
    scene.images[3][30:40, 30:50] = 0  # something dark before the ball
    return textured(run, scene, BALL, BALL, 256)


def test_a_texture_has_the_colors_of_the_photographs(ball_with_texture: trimesh.Trimesh) -> None:
    colors, points = drawn(ball_with_texture)
    off = np.abs(colors - color_at(torch.from_numpy(points)).numpy())
    assert np.quantile(off, 0.99) < 0.012 and off.max() < 0.04, "the photographs are 8 bits and 80 pixels wide"


def test_where_no_camera_saw_a_texture_has_the_color_of_the_field() -> None:
    run = run_from(np.array([[3.0, 0, 0], [2.9, 0.5, 0]]), 0.08)
    colors = PointColors(run, photographed(run.cameras), BALL, 1e-3)
    points = np.asarray(BALL.vertices)
    found, truth = colors(points, points) / 255, color_at(torch.from_numpy(points)).numpy()
    far, near = points[:, 0] < -0.1, points[:, 0] > 0.3
    np.testing.assert_allclose(found[far], truth[far] + 0.08, atol=0.003)
    assert np.quantile(np.abs(found - truth)[near], 0.98) < 0.01
    alone = PointColors(run, None, BALL, 1e-3)(points, points) / 255
    np.testing.assert_allclose(alone, truth + 0.08, atol=0.003)


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_a_textured_mesh_comes_back(tmp_path: Path, suffix: str, ball_with_texture: trimesh.Trimesh) -> None:
    path = tmp_path / f"ball{suffix}"
    write_mesh(path, ball_with_texture, up=(0, 0, 1))
    back = read_mesh(path, up=(0, 0, 1))
    uv, picture = texture_of(ball_with_texture)  # type: ignore[misc]
    found_uv, found = texture_of(back)  # type: ignore[misc]
    np.testing.assert_array_equal(found, picture)
    np.testing.assert_allclose(found_uv[back.faces], uv[ball_with_texture.faces], atol=1e-6)
    np.testing.assert_allclose(back.triangles, ball_with_texture.triangles, atol=1e-6)
    outward = back.vertices / np.linalg.norm(back.vertices, axis=1, keepdims=True)
    assert (back.vertex_normals * outward).sum(1).min() > 0.99, "no seams in the normals"
    np.testing.assert_allclose(drawn(back)[0], drawn(ball_with_texture)[0], atol=0.01)


def test_what_textured_files_say(tmp_path: Path, ball_with_texture: trimesh.Trimesh) -> None:
    from tests.utils.test_mesh_files import parsed

    write_mesh(tmp_path / "ball.glb", ball_with_texture)
    head, _ = parsed(tmp_path / "ball.glb")
    (material,) = head["materials"]
    assert material["extensions"] == {"KHR_materials_unlit": {}} and head["extensionsUsed"] == ["KHR_materials_unlit"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0 and material["doubleSided"]
    write_mesh(tmp_path / "ball.obj", ball_with_texture)
    said = (tmp_path / "ball.mtl").read_text()
    assert "map_Kd ball.png" in said and "Kd 1.00000000 1.00000000 1.00000000" in said
    assert "mtllib ball.mtl" in (tmp_path / "ball.obj").read_text()[:200]
    write_mesh(tmp_path / "ball.stl", ball_with_texture)
    assert read_mesh(tmp_path / "ball.stl").volume == pytest.approx(BALL.volume, rel=1e-5)


def test_between_pixels_by_hand() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 1], image[1, 1] = 102, 204
    mask = np.full((2, 3), 255, np.uint8)
    mask[1, 2] = 254
    scene: Any = SimpleNamespace(images=[image], masks=[mask])
    places = torch.tensor([[1.5, 0.5], [1.25, 1.0], [2.0, 1.0], [0.4, 1.0], [2.6, 1.0]])
    color, known = between_pixels(scene, 0, places)
    assert known.tolist() == [False, True, False, False, False], "of the first, the mask is cut at its corner"
    np.testing.assert_allclose(color[1].numpy(), 0.75 * (0.4 + 0.8) / 2, atol=1e-6)
    scene.masks = None
    color, known = between_pixels(scene, 0, places)
    assert known.tolist() == [True, True, True, False, False] and color[0, 0].item() == pytest.approx(0.4)


def test_a_mean_without_what_is_far_off() -> None:
    colors, every = torch.tensor([0.5] * 9 + [1.0])[:, None].expand(10, 3), torch.zeros(10, dtype=torch.int64)
    assert Observed(1, every, every, colors, torch.ones(10)).alike().mean()[0, 0].item() == pytest.approx(0.5)
    weight = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0, 0, 3.0])
    assert Observed(1, every, every, colors, weight).alike().mean()[0, 0].item() == pytest.approx(0.875)
    assert Observed(1, every, every, colors, torch.zeros(10)).alike().mean().abs().max() == 0


def a_run(centers: np.ndarray) -> Any:
    """A ball of radius 0.5 in a world that is twice as large and moved by (5, 0, 0)."""
    run = run_from(centers, 0.0)
    run.surface_value = lambda points: points.norm(dim=1) - 0.5
    run.load_scene = lambda: photographed(run.cameras)
    run.world_from_scene = np.diag([2.0, 2, 2, 1])
    run.world_from_scene[0, 3] = 5
    run.up, run.georeference = np.array([0.0, 0, 1]), None
    return run


def options(*words: str, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setattr("sys.argv", ["extract_mesh.py", "RUN", *words])
    return extract_mesh.arguments()


def test_a_mesh_written_part_by_part_is_the_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.meshes.streamed.GUIDE", 48)
    run = a_run(around(12))
    box = Box(run.world_from_scene, np.array([4.0, -2, -2]), np.array([7.0, 2, 0.5]))
    wanted = Wanted(96, box, 0.01, None, close=False, color=True, min_views=0)
    size, said = write_streamed(run, [tmp_path / "new" / "mesh.ply"], wanted, run.world_from_scene)
    mesh, whole = read_mesh(tmp_path / "new" / "mesh.ply"), scene_surface(run, 96, box)
    assert size == f"{len(whole.vertices)} vertices, {len(whole.faces)} faces" and "0 pieces dropped" in said
    assert mesh.area == pytest.approx(4 * whole.area, rel=1e-5) and mesh.triangles_center[:, 2].max() <= 0.5
    truth = color_at(torch.from_numpy((mesh.vertices - [5, 0, 0]) / 2)).numpy()
    colors = vertex_colors(mesh)
    assert colors is not None and np.quantile(np.abs(colors[:, :3] / 255 - truth), 0.98) < 0.02
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mesh.ply"], "no temporary files are left"


def test_the_script_writes_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.meshes.streamed.GUIDE", 32)
    args = options("--resolution", "64", "--no-color", "--frame", "scene", monkeypatch=monkeypatch)
    said = extract_mesh.streamed(a_run(around(3)), args, [tmp_path / "mesh.ply"])
    assert " faces, 0 pieces dropped, " in said
    mesh = read_mesh(tmp_path / "mesh.ply")
    assert mesh.is_watertight and mesh.volume == pytest.approx(4 / 3 * np.pi / 8, rel=0.01)


def test_a_slab_written_part_by_part_is_open_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """z < 0 is solid: the disk is seen from above, the half ball below by nobody; see test_views."""
    monkeypatch.setattr("engine.meshes.streamed.GUIDE", 48)
    above = around(10)
    above[:, 2] = np.abs(above[:, 2]) + 1
    wanted = Wanted(96, None, "all", None, close=False, color=False, min_views=0)
    _, said = write_streamed(run_with(above), [tmp_path / "mesh.ply"], wanted, np.eye(4))
    mesh = read_mesh(tmp_path / "mesh.ply")
    assert "left open (--close keeps it)" in said and not mesh.is_watertight
    assert mesh.area == pytest.approx(np.pi, rel=0.05) and mesh.vertices[:, 2].min() > -0.1


def test_faces_points_and_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cloud = a_run(around(12)), tmp_path / "cloud.ply"
    args = options("--resolution", "48", "--faces", "500", "--no-color", monkeypatch=monkeypatch)
    said = extract_mesh.held(run, args, [tmp_path / "ball.stl"])
    assert " 500 faces" in said and read_mesh(tmp_path / "ball.stl").volume == pytest.approx(4.19, rel=0.03)
    args = options("--resolution", "48", "--points", "999", monkeypatch=monkeypatch)
    assert extract_mesh.held(run, args, [cloud]) == "999 points"
    back = trimesh.load(cloud)
    assert isinstance(back, trimesh.PointCloud)
    away = np.asarray(back.vertices) - [5, 0, 0]
    assert len(away) == 999 and np.abs(np.linalg.norm(away, axis=1) - 1).max() < 0.01
    table = np.frombuffer(cloud.read_bytes().split(b"end_header\n")[1], "<f4,<f4,<f4,<f4,<f4,<f4,u1,u1,u1,u1")
    normals = np.stack([table[f"f{column}"] for column in (3, 4, 5)], -1)
    assert (normals * away).sum(1).min() > 0.99
    np.testing.assert_allclose(table["f6"] / 255, color_at(torch.from_numpy(away / 2))[:, 0].numpy(), atol=0.03)


def test_what_few_views_see_goes() -> None:
    run = a_run(np.array([[3.0, 0, 0], [2.9, 0.5, 0], [0, 0, 3.0]]))
    seen = views_of(run, BALL, sights_of(run, BALL, 0.05))
    kept, said = faces_kept(run, BALL, seen, close=False, min_views=2)
    assert BALL.triangles_center[kept][:, 0].min() > 0 and 0.3 < kept.mean() < 0.5 and "of the faces kept" in said
    assert faces_kept(run, BALL, seen, close=False, min_views=0)[0].all()
    with pytest.raises(InputError, match="--min-views 9"):
        faces_kept(run, BALL, seen, close=False, min_views=9)


@pytest.mark.parametrize(
    "words, suffix, what",
    [
        (("--texture",), ".ply", "expected files in .glb or .obj"),
        (("--points", "9"), ".obj", "expected a file in .ply"),
        (("--points", "9", "--texture"), ".glb", "expected"),
    ],
)
def test_options_that_do_not_go_together(
    words: tuple[str, ...], suffix: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=what):
        extract_mesh.check(options(*words, monkeypatch=monkeypatch), [Path(f"mesh{suffix}")])


def test_what_is_written_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = ("--resolution", "512")
    assert extract_mesh.is_streamed(options(*fine, monkeypatch=monkeypatch), [Path("a.PLY")])
    assert not extract_mesh.is_streamed(options(*fine, monkeypatch=monkeypatch), [Path("a.ply"), Path("b.glb")])
    assert not extract_mesh.is_streamed(options(*fine, "--faces=9", monkeypatch=monkeypatch), [Path("a.ply")])
    assert not extract_mesh.is_streamed(options(monkeypatch=monkeypatch), [Path("a.ply")])
    assert extract_mesh.box("-1,-1,0,1,1,2") == (-1, -1, 0, 1, 1, 2)
    for wrong in ("1,2,3", "0,0,0,1,1,0", "0,0,0,1,1,nan", "a"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            extract_mesh.box(wrong)
