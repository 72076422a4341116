"""Which surface is compared with which truth, by which protocol."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dataio.formats.scannet import ScannetData
from engine.evaluation.surfaces import (
    read_protocol,
    score_against_scene,
    score_surface,
    sight_of,
    sight_of_data,
    write_errors,
)
from engine.protocols.base import Scored
from engine.protocols.dtu import DtuProtocol
from engine.protocols.generic import GenericProtocol
from tests.scripts.test_scripts_out import made_up_run
from tests.support import made_data, made_rgbd
from utils.errors import InputError
from utils.meshing.mesh import read_mesh, vertex_colors, write_mesh

PROTOCOL = GenericProtocol(samples=20_000)


def scene_with(truth: trimesh.Trimesh | None) -> Any:
    return SimpleNamespace(reference=None if truth is None else lambda: truth)


def test_mesh_is_measured_against_what_is_known(tmp_path: Path) -> None:
    run, ball = made_up_run(tmp_path), trimesh.creation.icosphere(subdivisions=3)
    assert score_against_scene(run, scene_with(None), None, PROTOCOL) is None
    assert score_against_scene(run, scene_with(ball), None, PROTOCOL) is None, "no mesh was extracted yet"
    assert read_mesh(tmp_path / "meshes" / "reference.ply").faces.shape == ball.faces.shape
    write_mesh(tmp_path / "meshes" / "mesh.ply", ball)
    found = score_against_scene(run, scene_with(ball), None, PROTOCOL)
    assert found is not None and found.numbers["chamfer"] < 1e-6
    write_mesh(tmp_path / "turned.glb", ball, up=run.up)
    found = score_against_scene(run, scene_with(ball), tmp_path / "turned.glb", PROTOCOL)
    assert found is not None and found.numbers["chamfer"] < 1e-6
    other = tmp_path / "other.obj"
    write_mesh(other, trimesh.creation.icosphere(subdivisions=3, radius=1.05))
    score = score_surface(run, tmp_path / "meshes" / "mesh.ply", other, PROTOCOL, None).numbers
    assert score["accuracy"] == pytest.approx(0.05 / 1.05, rel=0.05)
    with pytest.raises(InputError, match="--reference"):
        score_against_scene(run, scene_with(None), other, PROTOCOL)
    with pytest.raises(InputError, match="--reference"):
        score_against_scene(run, scene_with(ball), None, DtuProtocol(scan=1))


def test_protocols_by_name_or_yaml() -> None:
    assert read_protocol(None) == GenericProtocol() == read_protocol("generic")
    assert read_protocol("{type: dtu, scan: 65}") == DtuProtocol(scan=65)
    for wrong, words in (("dtv", "dtu"), ("dtu", "scan"), ("{type: scannet, voxl: 1}", "voxel")):
        with pytest.raises(InputError, match=words):
            read_protocol(wrong)


def test_what_cameras_of_data_saw(tmp_path: Path) -> None:
    """In the world of the data, whatever their scene frame: the ceiling, 2 m up, is seen, what is behind it is not."""
    made_rgbd.scannet(tmp_path)
    scene = ScannetData(path=str(tmp_path)).load()
    for sight in (sight_of(scene), sight_of_data(str(tmp_path))()):
        np.testing.assert_allclose(sight.cameras.centers, made_rgbd.room_poses(10)[:, :3, 3], atol=1e-5)
        points = np.array([[0.9, 0.1, 1.99], [1.3, 0.1, 3.0]])
        seen = sight.times_seen(points)
        assert seen[0] > 0 and seen[1] == 0
        assert sight.masks() is None


def test_masks_of_data_are_those_of_the_pictures(tmp_path: Path) -> None:
    made_data.dtu(tmp_path)
    masks = sight_of_data(str(tmp_path))().masks()
    assert masks is not None and len(masks) == 10 and set(np.unique(masks[0])) == {0, 255}


def test_errors_are_colors(tmp_path: Path) -> None:
    triangle = trimesh.Trimesh(np.eye(3), [[0, 1, 2]], process=False)
    write_errors(tmp_path / "errors.ply", Scored({}, triangle, np.array([0.0, 0.05, np.nan]), worst=0.1))
    colors = vertex_colors(read_mesh(tmp_path / "errors.ply"))
    assert colors is not None and colors[:, :3].tolist() == [[255, 255, 255], [255, 128, 128], [128, 128, 128]]
    assert torch.tensor(colors[:, 3]).eq(255).all()
