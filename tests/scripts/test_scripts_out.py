"""The scripts that write videos, meshes and numbers: their parts that need no trained run."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

import bake
import extract_mesh
import render
from dataio.cameras import Cameras
from dataio.georeference import Georeference
from engine.meshes.finishing import as_seen
from engine.meshes.surface import scene_surface
from engine.showing import open_shown, read_renderer, source_of
from models.rendering.frames import Frame
from tests.models.test_surface import CASES, surface_model
from tests.support.analytic import RADIUS, Sphere
from tests.support.sources import ROOT
from utils.errors import InputError
from utils.meshing.mesh import read_mesh, vertex_colors, write_mesh
from utils.meshing.scales import smooth_normals
from utils.paths.camera_paths import look_at
from utils.paths.path_file import read_path

WORLD = np.array([[0.0, -2.0, 0.0, 5.0], [2.0, 0.0, 0.0, -1.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]])


def made_up_run(folder: Path) -> Any:
    """What the scripts ask of a run: ten cameras around a red sphere of radius 0.5, in a world of its own."""
    turn = np.linspace(0.0, 2.0 * np.pi, 10, endpoint=False)
    centers = 3.0 * np.stack([np.cos(turn), np.sin(turn), 0.4 + 0.0 * turn], 1)
    poses = look_at(centers, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    focal = np.arange(60.0, 70.0)
    intrinsics = np.stack([focal, focal, np.full(10, 30.0), np.full(10, 20.0)], 1)
    return SimpleNamespace(
        folder=folder,
        device=torch.device("cpu"),
        cameras=Cameras.make(poses, intrinsics, [60, 40]),
        splits={"train": np.arange(9), "test": np.array([9])},
        world_from_scene=WORLD,
        model=SimpleNamespace(media=[SimpleNamespace(per_image="tint")]),  # so no photographs are asked
        georeference=None,
        up=np.array([0.0, 0.0, 1.0]),
        surface_value=lambda points: points.norm(dim=1) - 0.5,
        surface_color=lambda points, directions: torch.tensor([1.0, 0.0, 0.0]).expand(len(points), 3),
    )


@pytest.mark.parametrize(
    "command",
    [
        ["render.py", "{}"],
        ["render.py", "{}", "--frames", "0"],
        ["render.py", "{}", "--baked"],
        ["render.py", "{}", "--modes", "rgb,dpeth"],
        ["render.py", "{}", "--renderer", "latice"],
        ["render.py", "{}", "--renderer", "mesh", "--surface"],
        ["render.py", "{}", "--renderer", "lattice", "--modes", "rgb"],
        ["bake.py", "{}"],
        ["bake.py", "{}", "--resolution", "8"],
        ["extract_mesh.py", "{}", "--out", "mesh.off"],
        ["extract_mesh.py", "{}", "--keep", "most"],
        ["evaluate.py", "{}"],
    ],
)
def test_mistakes_end_with_code_2_and_one_line(tmp_path: Path, command: list[str]) -> None:
    words = [word.format(tmp_path) for word in command]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("path", ["spiral", "interpolate"])
def test_path_cameras_have_median_intrinsics(tmp_path: Path, path: str) -> None:
    cameras = render.path_cameras(source_of(made_up_run(tmp_path)), path, 7)
    assert len(cameras) == 7
    assert cameras.intrinsics.tolist() == [[64.0, 64.0, 30.0, 20.0]] * 7
    assert cameras.size.tolist() == [[60, 40]] * 7
    inward = -(cameras.centers * cameras.forward).sum(1) / cameras.centers.norm(dim=1)
    assert inward.min() > 0.99


def written_path(folder: Path, **changes: Any) -> Path:
    """A path of two cameras in the world, as nerfstudio writes it."""
    matrix = np.eye(4)  # OpenGL axes: looks along -z, y is up
    matrix[:3, 3] = [5.0, -1.0, 9.0]
    camera = {"camera_to_world": matrix.ravel().tolist(), "fov": 90.0, "aspect": 1.5}
    data = {"render_width": 60, "render_height": 40, "fps": 24, "camera_path": [camera, camera]} | changes
    (folder / "path.json").write_text(json.dumps(data))
    return folder / "path.json"


def test_path_file_is_read_in_the_world_frame(tmp_path: Path) -> None:
    source = source_of(made_up_run(tmp_path))
    cameras = render.path_cameras(source, str(written_path(tmp_path)), 99)
    assert len(cameras) == 2, "the file says how many"
    assert cameras.size.tolist() == [[60, 40]] * 2
    assert cameras.intrinsics[0].tolist() == pytest.approx([20.0, 20.0, 30.0, 20.0]), "vertical field of view"
    pixel, depth = cameras.project(torch.tensor([[0.0, 0.0, 0.0]]), 0)
    assert pixel[0].tolist() == pytest.approx([30.0, 20.0], abs=1e-4), "it looks at the scene's center"
    assert depth.item() == pytest.approx(3.0, abs=1e-5), "six world units are three of the scene"


def test_path_files_of_a_map_keep_their_places(tmp_path: Path) -> None:
    """At UTM coordinates float32 would move a camera by half a meter."""
    run = made_up_run(tmp_path)
    run.world_from_scene = WORLD + np.array([[0, 0, 0, 5e5], [0, 0, 0, 5.6e6], [0] * 4, [0] * 4])
    matrix = np.eye(4)
    matrix[:3, 3] = [500_005.25, 5_599_999.125, 9.0]
    camera = {"camera_to_world": matrix.ravel().tolist(), "fov": 90.0, "aspect": 1.5}
    cameras = render.path_cameras(source_of(run), str(written_path(tmp_path, camera_path=[camera])), 1)
    assert cameras.centers[0].tolist() == pytest.approx([0.0625, -0.125, 3.0], abs=1e-6)


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"camera_path": []}, "camera_path"),
        ({"camera_path": [{"fov": 50.0}]}, "camera_to_world"),
        ({"camera_path": [{"camera_to_world": [0.0] * 16, "fov": 50.0}]}, "rotation"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 180.0}]}, "fov"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 10**399}]}, "fov"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 1e-300}]}, "fov"),
        ({"camera_path": [{"camera_to_world": [10**399] * 16, "fov": 50.0}]}, "camera_to_world"),
        ({"camera_path": [{"camera_to_world": [1e200] * 16, "fov": 50.0}]}, "rotation"),
        ({"camera_path": [{"camera_to_world": (np.eye(4) + np.eye(4, k=3) * 1e300).ravel().tolist(), "fov": 50.0}]},
         "rotation"),
        ({"camera_path": [{"camera_to_world": (np.eye(4) + np.eye(4, k=-3)).ravel().tolist(), "fov": 50.0}]},
         "rotation"),
        ({"render_width": 0}, "render_width"),
        ({"render_width": 10**399}, "render_width"),
        ({"render_width": True}, "render_width"),
        ({"render_height": float("nan")}, "render_height"),
    ],
)
def test_wrong_path_files_are_named(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=key) as caught:
        read_path(written_path(tmp_path, **changes))
    assert "path.json" in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 150


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_broken_path_files_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "path.json").write_text(content)
    with pytest.raises(InputError, match=r"path\.json"):
        read_path(tmp_path / "path.json")
    with pytest.raises(InputError, match="missing"):
        read_path(tmp_path / "missing.json")


def test_panels_show_the_modes_in_order() -> None:
    opacity = torch.ones(4, 6)
    opacity[0] = 0.0
    frame = Frame(torch.zeros(4, 6, 3), torch.full((4, 6), 2.0), torch.ones(4, 6, 3), opacity)
    directions = np.tile(np.array([0.0, 0.0, -1.0], np.float32), (4, 6, 1))
    wanted = ("normal", "rgb", "depth", "shape")
    normal, rgb, depth, shape = render.panels(frame, directions, wanted, (1.0, 3.0), 10.0)
    assert [panel.caption for panel in (normal, rgb, depth, shape)] == ["normals", "color", "depth", "shape"]
    assert (rgb.picture == 0).all()
    assert all((panel.picture[0] == 255).all() for panel in (normal, depth, shape)), "empty is white"
    assert (normal.picture[1:] == 201).all()
    assert (shape.picture[1:] == round(255 * (0.2 + 0.7 / 3**0.5))).all()
    assert depth.span == (10.0, 30.0) and normal.span is None
    assert render.modes("depth, rgb") == ("depth", "rgb")


def test_directions_are_those_of_the_pixels(tmp_path: Path) -> None:
    cameras = made_up_run(tmp_path).cameras
    directions = render.ray_directions(cameras, 4)
    assert directions.shape == (40, 60, 3)
    pixel = torch.tensor([[7.5, 3.5]])
    assert directions[3, 7] == pytest.approx(cameras.rays(torch.tensor([4]), pixel).directions[0].numpy())


@pytest.mark.parametrize(
    "size, count, expected", [((200, 200), 4, (316, 316)), ((1600, 1200), 4, (632, 474)), ((601, 800), 1, (601, 800))]
)
def test_cameras_of_a_video_are_enlarged_or_made_small(
    size: tuple[int, int], count: int, expected: tuple[int, int]
) -> None:
    """Two rows of 316 lines with captions are 720, of 474 they are 1080."""
    cameras = Cameras.make(np.eye(4)[None], [100.0, 100.0, 50.0, 50.0], size)
    assert tuple(cameras.scaled(render.own_scale(cameras, "spiral", count, 2)).size[0].tolist()) == expected
    assert render.own_scale(cameras, "some/path.json", count, 2) == 1.0, "a path file says its size"


def test_shape_is_made_of_normals() -> None:
    assert render.makable(read_renderer(None), None) == ("rgb", "shape", "normal", "depth")
    assert render.makable(read_renderer("lattice"), None) == ("shape", "normal", "depth")
    with pytest.raises(InputError, match="no shape - expected some of depth"):
        render.makable(read_renderer("{type: lattice, normals: false}"), ("shape",))


@pytest.mark.parametrize(
    "given, expected",
    [
        ([], None),
        (["--surface"], "surface"),
        (["--renderer", "mesh"], "mesh"),
        (["--surface", "--baked", "--modes", "depth"], "{type: lattice, normals: false}"),
    ],
)
def test_options_that_stand_for_a_renderer(given: list[str], expected: str | None) -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--surface", "--baked"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--renderer")
    parser.add_argument("--modes", type=render.modes)
    text = render.named_renderer(parser.parse_args(given))
    assert text == expected
    assert render.makable(read_renderer(text), None)


def test_a_run_is_baked_and_shown_without_it(tmp_path: Path) -> None:
    """The frame of the sphere from the folder alone: the middle ray meets it, and its path is that of the run."""
    run = made_up_run(tmp_path)
    run.model = surface_model(*CASES["logistic"])
    asset = bake.baked_asset(run, 48)
    asset.write(tmp_path / "asset")
    source, renderer = open_shown(tmp_path / "asset", None, "cpu")
    along = render.path_cameras(source, "spiral", 5)
    assert torch.equal(along.camera_to_world, render.path_cameras(source_of(run), "spiral", 5).camera_to_world)
    frame = renderer(source.cameras, 0)
    distance = float(source.cameras.centers[0].norm())
    assert frame.depth[20, 30].item() == pytest.approx(distance - RADIUS, abs=0.01)
    pictures = list(render.frames(renderer, along.scaled(0.5), ("rgb", "depth", "normal", "shape"), columns=2))
    assert [picture.shape for picture in pictures] == 5 * [(2 * (16 + 20 + 2) + 2, 2 * (30 + 2) + 2, 3)]
    with pytest.raises(InputError, match="is an asset"):
        open_shown(tmp_path / "asset", read_renderer("surface"), "cpu")
    beside = read_renderer("asset").build(source_of(run))(source.cameras, 0)
    assert torch.equal(beside.color, frame.color)
    run.world_from_scene = np.eye(4)
    with pytest.raises(InputError, match="scene frame"):
        read_renderer("asset").build(source_of(run))


def test_a_run_without_a_surface_is_not_baked(tmp_path: Path) -> None:
    class Empty(Sphere):
        def value(self, x: torch.Tensor) -> torch.Tensor:
            return super().value(x) + 9

    run = made_up_run(tmp_path)
    run.model = surface_model(CASES["logistic"][0], Empty())
    with pytest.raises(InputError, match="no surface yet"):
        bake.baked_asset(run, 16)


def test_surface_of_a_run(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    mesh = scene_surface(run, 70)
    assert mesh.is_watertight and mesh.volume == pytest.approx(4 / 3 * np.pi * 0.125, rel=1e-2)
    colored, said = as_seen(run, mesh, cell=2 / 70, color=True, close=False)
    assert colored.is_watertight and (vertex_colors(colored)[:, :3] == (255, 0, 0)).all()  # type: ignore[index]
    assert re.fullmatch(r"\d+% of it unseen", said)


def test_a_mesh_in_a_frame(tmp_path: Path) -> None:
    """WORLD is turned by 90 degrees about z and twice as large; what is up stays up."""
    run, mesh = made_up_run(tmp_path), trimesh.creation.icosphere(subdivisions=1)
    scene, up, meters = extract_mesh.framed(run, mesh, "scene")
    assert meters is None and up / np.linalg.norm(up) == pytest.approx([0, 0, 1])
    assert scene.vertices == pytest.approx(mesh.vertices)
    run.georeference = Georeference(51.0, 7.0, 100.0)
    assert extract_mesh.framed(run, mesh, "scene")[2] == pytest.approx(2.0)
    world, up, meters = extract_mesh.framed(run, mesh, "world")
    assert (meters, up.tolist()) == (1.0, [0, 0, 1])
    assert world.vertices.mean(0) == pytest.approx([5, -1, 3]) and world.extents == pytest.approx(2 * mesh.extents)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
@pytest.mark.parametrize("scale, place", [(1.0, (5e5, 5.6e6, 112.0)), (1e-6, (0.0, 0.0, 0.0))])
def test_a_surface_on_a_map_and_a_tiny_one(tmp_path: Path, suffix: str, scale: float, place: tuple[float, ...]) -> None:
    """A sphere of diameter `scale`, from the function to the file: its radius, its faces, its normals."""
    run = made_up_run(tmp_path)
    run.world_from_scene = np.diag([scale, scale, scale, 1.0])
    run.world_from_scene[:3, 3] = place
    mesh, up, _ = extract_mesh.framed(run, scene_surface(run, 40), "world")
    write_mesh(tmp_path / f"mesh{suffix}", mesh, up=up)
    back = read_mesh(tmp_path / f"mesh{suffix}", up=up)
    away = back.vertices - place
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), scale / 2, rtol=2e-3)
    assert (back.area_faces > 0).mean() > 0.999 and back.is_watertight
    outward = (smooth_normals(back) * away).sum(1) / (scale / 2)
    assert outward.min() > 0.98


def test_what_a_glb_cannot_hold_is_said() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=1)
    paths = [Path("a.ply"), Path("a.glb")]
    assert extract_mesh.offset_said(mesh, paths) == ""
    mesh.apply_translation([5e5, 5.6e6, 0.0])
    assert extract_mesh.offset_said(mesh, paths) == ", .glb less 500000, 5600000, 0 (the `offset` of a .glb)"
    assert extract_mesh.offset_said(mesh, paths[:1]) == "", "a .ply has doubles"


def test_what_to_keep() -> None:
    assert [extract_mesh.keep(text) for text in ("all", "largest", "0.5")] == ["all", "largest", 0.5]
    for wrong in ("some", "-1", "nan", "2"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            extract_mesh.keep(wrong)
