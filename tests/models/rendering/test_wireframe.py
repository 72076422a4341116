"""The wireframe: lines where edges are, as wide as was said, and none where they would cover all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from engine.showing import read_renderer
from models.rendering.renderers.wireframe import INK
from tests.models.rendering.test_renderers import WORLD, camera, source
from utils.errors import InputError
from utils.meshing.mesh import transformed, write_mesh

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def wall(path: Path, cells: int) -> Path:
    """A square of 2 x 2 before the camera, 2.5 away: 128 pixels wide; its edges lie on every 128 / cells-th pixel."""
    at = np.linspace(-1.0, 1.0, cells + 1)
    corners = np.array([(x, y, 0.0) for y in at for x in at])
    first = np.array([y * (cells + 1) + x for y in range(cells) for x in range(cells)])
    faces = np.concatenate([np.stack([first, first + 1, first + cells + 1], 1),
                            np.stack([first + 1, first + cells + 2, first + cells + 1], 1)])  # fmt: skip
    write_mesh(path, transformed(trimesh.Trimesh(corners, faces, process=False), WORLD))
    return path


@pytest.mark.parametrize("device", DEVICES)
def test_lines_are_where_edges_are(tmp_path: Path, device: str) -> None:
    text = f"{{type: wireframe, width: 2, path: {wall(tmp_path / 'wall.ply', 4)}}}"
    frame = read_renderer(text).build(source(tmp_path, device=device))(camera().to(device), 0)
    row = frame.color[5]  # of 96, three pixels below an edge's end, far from crossings but for the diagonals
    ink = torch.tensor(INK)
    for edge in (32, 64, 96):  # between two pixels: a line of two pixels covers both
        assert (row[edge - 1 : edge + 1] - ink).abs().max() < 0.15, "soft at its own edges"
    between = [column for column in range(128) if min(abs(column + 0.5 - e) for e in range(0, 129, 32)) > 2.0]
    light = (row[between].mean(-1) > 0.8).float().mean()
    assert light > 0.8, "only the diagonal crosses between them"
    assert (frame.opacity == 1).all() and (frame.normal.abs() - torch.tensor([0.0, 0, 1])).abs().max() < 1e-5


def test_where_triangles_are_as_small_as_pixels_there_are_no_lines(tmp_path: Path) -> None:
    text = f"{{type: wireframe, path: {wall(tmp_path / 'wall.ply', 100)}}}"
    frame = read_renderer(text).build(source(tmp_path))(camera(), 0)
    assert frame.color.min() > 0.85


def test_it_needs_a_mesh(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"extract_mesh\.py"):
        read_renderer("wireframe").build(source(tmp_path))
