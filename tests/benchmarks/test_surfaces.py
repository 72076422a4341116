"""Where a mesh is wrong, on a box whose wrong side is known; what a loss costs, of a run that takes a moment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from benchmarks.surfaces.errors import openness, parts
from benchmarks.surfaces.loss_cost import by_turns
from benchmarks.train_step import running, short_run
from dataio.cameras import Cameras
from models.kernels.rays.cast import Triangles
from tests.support.made_data import ring_poses


def test_the_side_that_is_wrong_is_found() -> None:
    """The bottom of a box lies too low by a tenth of its radius, and no camera of a ring above looks at it."""
    truth = trimesh.creation.box((1, 1, 1)).subdivide().subdivide()
    mesh = truth.copy()
    mesh.vertices[mesh.vertices[:, 2] < -0.49, 2] -= 0.1 * np.sqrt(0.75)
    cameras = Cameras.make(ring_poses(8), [200, 200, 100, 100], [200, 200])
    up = np.array([0.0, 0.0, 1.0])
    rows = {row["part"]: row for row in parts(mesh, truth, cameras, up, 3000)}
    down = rows["faces down"]
    # Near the edges the sides are nearer: the mean of min(h, e) over a unit square, e the distance to its edge.
    mean = 100 * (1 - (1 - 2 * 0.1 * 0.75**0.5) ** 3) / 6 / 0.75**0.5
    assert down["share"] == pytest.approx(1 / 6, abs=0.02) and down["mean"] == pytest.approx(mean, abs=0.3)
    assert rows["faces up"]["mean"] < 0.01 and down["error"] > 0.8 and down["beyond"] > 0.95
    assert rows["seen by 0 to 0"]["share"] == pytest.approx(1 / 6, abs=0.02)
    assert sum(row["share"] for name, row in rows.items() if name.startswith("seen")) == pytest.approx(1)


def test_how_open_a_place_is() -> None:
    """Half of the sky over a floor at the foot of an endless wall."""
    wall = torch.tensor([[0.0, -99, -99], [0, 99, -99], [0, 0, 99]])
    triangles = Triangles(wall, torch.tensor([[0, 1, 2]], dtype=torch.int32))
    points, up = torch.tensor([[1e-3, 0.0, 0], [80, 0, 0]]), torch.tensor([[0.0, 0, 1]]).expand(2, 3)
    near, far = openness(triangles, points, up).tolist()
    assert near == pytest.approx(0.5, abs=0.15) and far > near + 0.2


def test_what_a_loss_costs() -> None:
    made = ["data={type: procedural, views: 6, test_views: 1, size: 24}", "train.rays=64", "device=cpu"]
    small = ["model.foreground.field.encoding.log2_rows=10", "model.foreground.field.init=sphere"]
    patches = "losses={views: {type: patch_ncc, side: 3, sources: 3, weight: 0.3}}"
    with running(short_run("configs/neus_hash.yaml", [*made, *small, patches], 100)) as run:
        found = by_turns(run, "views", warmup=1, turns=1)
        assert run.step == 21 and found["share"] == pytest.approx(found["s_with"] / found["s_without"] - 1)
        assert found["s_of_loss"] == pytest.approx(found["s_with"] - found["s_without"])
