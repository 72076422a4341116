"""The scripts that write videos, meshes and numbers: their parts that need no trained run."""

from __future__ import annotations

import argparse
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
from dataio.cameras import Cameras
from dataio.georeference import Georeference
from engine.meshes.finishing import as_seen
from engine.meshes.surface import scene_surface
from tests.models.test_surface import CASES, surface_model
from tests.support.analytic import Sphere
from tests.support.sources import ROOT
from utils.errors import InputError
from utils.meshing.mesh import read_mesh, vertex_colors, write_mesh
from utils.meshing.scales import smooth_normals
from utils.paths.camera_paths import look_at

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
        names=[f"view_{i}" for i in range(10)],
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
        ["render.py", "{}", "--size", "30"],
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
    found = as_seen(run, mesh, cell=2 / 70, color=True, close=False)
    colored, said = found.mesh, found.said
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
