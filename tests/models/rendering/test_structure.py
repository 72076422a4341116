"""What a structure says of its size, and its slices: colors by depth, borders where cells meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.cells import NOTHING, Cells
from models.encodings import tree as trees
from models.encodings.dense_grid import DenseGridConfig
from models.encodings.linked_voxels import LinkedVoxelsConfig
from models.encodings.octree_blocks import OctreeBlocksConfig
from models.encodings.tensor_vm import TensorVmConfig
from models.encodings.voxel_octree import OctreeConfig
from models.networks.mlp import MlpConfig
from models.rendering.structure import PLANES, SIDE, borders, drawn, pictures_of, points
from models.samplers.base import Sampler
from models.samplers.occupancy_grid import OccupancyGridConfig
from models.structure import measures
from tests.engine.test_structure import stopped
from utils.log import rows_of

CORNER = torch.tensor([[-0.9, -0.9, -0.9], [-0.6, -0.9, -0.9], [0.9, 0.9, 0.9]])


def test_a_grid_that_grows_says_its_cells_and_rows() -> None:
    grid = DenseGridConfig(resolutions=(4, 8), grow=(0.5,)).build()
    assert grid.measures() == {"cells": 4, "rows": 3**3 + 5**3}
    grid.refresh(0.6)
    assert grid.measures() == {"cells": 8, "rows": 5**3 + 9**3} and grid.cells_at(CORNER) is None
    planes: Any = TensorVmConfig(cells=8, grow=(0.5,)).build()
    assert planes.measures() == {"cells": 4, "rows": 3 * 5 + 3 * 5**2}
    assert TensorVmConfig(cells=8).build().measures() == {}


def test_linked_voxels_say_what_was_pruned() -> None:
    voxels: Any = LinkedVoxelsConfig(cells=4, rows=125).build()
    wanted = torch.zeros(5, 5, 5, dtype=torch.bool)
    wanted[0, 0, :2] = True  # z, y, x
    voxels.keep(wanted)
    assert voxels.measures() == {"cells": 4, "rows": 2, "pruned_share": 1 - 2 / 125}
    found = voxels.cells_at(torch.tensor([[-1.0, -1, -1], [-0.6, -1, -1], [0.0, -1, -1], [-1, -0.6, -1]]))
    assert found.depth.tolist() == [0, 0, NOTHING, NOTHING] and found.side.tolist() == [0.5] * 4


def test_halved_voxels_say_their_depth() -> None:
    """Of 2^3 voxels the first is halved, and of its children the first again; the last of all is free."""
    voxels: Any = OctreeConfig(voxels=2, components=1, levels=2, grow=(0.5,), budget=100).build()
    tree = trees.halved(voxels.tree(), torch.tensor([0]), 200)
    tree = trees.halved(tree, torch.tensor([8]), 200)
    voxels._keep(trees.freed(tree, torch.arange(24) == 7))
    found = voxels.measures()
    assert (found["voxels"], found["depth"], found["pruned_share"]) == (24, 2, pytest.approx(1 / 22))
    cells = voxels.cells_at(CORNER)
    assert cells.depth.tolist() == [2, 2, NOTHING] and cells.side.tolist() == [0.25, 0.25, 1]
    assert voxels.cells_at(torch.tensor([[-0.4, -0.9, -0.9], [0.5, -0.5, -0.5]])).depth.tolist() == [1, 0]


def test_blocks_say_their_levels() -> None:
    network = MlpConfig(layers=1, width=8)
    blocks: Any = OctreeBlocksConfig(blocks=8, first=1, deepest=2, corners=2, features=1, network=network).build()
    assert blocks.measures() == {"blocks": 8, "depth": 1, "least_depth": 1}
    assert blocks.cells_at(CORNER).depth.tolist() == [1, 1, 1] and blocks.cells_at(CORNER).side.tolist() == [1, 1, 1]


def test_a_sampler_says_what_is_occupied_under_its_name() -> None:
    sampler = OccupancyGridConfig(resolution=4).build()
    sampler.occupied.zero_()
    sampler.occupied[0, 0, 0] = 1
    model = nn.ModuleDict({"foreground": nn.ModuleDict({"sampler": sampler})})
    assert measures(model) == {"foreground.sampler/occupied_share": 1 / 64}
    assert sampler.cells_at(CORNER).depth.tolist() == [0, 0, NOTHING]  # type: ignore[union-attr]


class Halves(Sampler):
    """Large cells where x < 0, cells half as wide where x > 0 and y > 0, nothing elsewhere."""

    def cells_at(self, x: Tensor) -> Cells:
        fine, free = x[..., 0] > 0, (x[..., 0] > 0) & (x[..., 1] < 0)
        return Cells(torch.where(free, NOTHING, fine.long()), torch.where(fine, 0.25, 0.5))


def test_planes_are_seen_with_their_second_axis_up() -> None:
    corner = points(*PLANES["z = 0"])[0, 0]
    assert corner[0] == -corner[1] == 1 / SIDE - 1 and abs(corner[2]) < 1e-3


def test_depths_have_colors_and_free_space_is_white() -> None:
    picture = drawn(Halves().cells_at(points(0, 1)), 1)
    inside = (slice(3, 29), slice(3, 29))  # of the first small cell from the corner
    left, right = picture[:, : SIDE // 2][inside], picture[:, SIDE // 2 :][inside]
    assert (left == left[0, 0]).all() and (right == right[0, 0]).all() and (left[0, 0] != right[0, 0]).any()
    assert (picture[SIDE // 2 :, SIDE // 2 :] == 255).all()


def test_cells_of_a_side_have_a_border_each() -> None:
    lines = borders(np.full((SIDE, SIDE), 0.5))
    assert lines[:, 10].sum() == lines[10].sum() == 3  # between four cells
    assert not borders(np.full((SIDE, SIDE), 2 / SIDE)).any()  # no wider than a line


def test_each_part_with_cells_is_a_picture_of_three_planes() -> None:
    model = torch.nn.ModuleDict({"sampler": Halves(), "other": Sampler()})
    model.register_buffer("device", torch.zeros(1))
    ((name, picture),) = pictures_of(model)
    assert name == "sampler" and picture.shape[1] > 3 * SIDE and picture.dtype == np.uint8


def test_a_run_logs_its_structure(tmp_path: Path) -> None:
    keys = {"type": "octree", "voxels": 4, "components": 4, "grow": [0.3], "budget": 1000}
    stopped(tmp_path, 4, 4, f"model.foreground.field.encoding={json.dumps(keys)}", "train.validations=0")
    rows = list(rows_of(tmp_path / "metrics.jsonl"))
    name = "structure/foreground.field.encoding"
    assert rows[0][f"{name}/voxels"] == 64 and rows[-1][f"{name}/voxels"] > 64 and rows[-1][f"{name}/depth"] == 1
    assert 0 < rows[-1]["structure/foreground.sampler/occupied_share"] <= 1
