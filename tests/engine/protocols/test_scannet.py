"""The protocol of rooms on a cubic room whose distances are known by hand; what no camera saw is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dataio.cameras import Cameras
from engine.protocols.base import Sight, Subject
from engine.protocols.generic import GenericProtocol
from engine.protocols.scannet import ScannetProtocol
from tests.engine.protocols.test_dtu import joined
from tests.support.made_rgbd import room_poses
from utils.errors import InputError
from utils.evaluation.point_sets import voxel_means
from utils.meshing.mesh import write_mesh

FINE = 0.02  # meters between vertices


def wall(z: float, *, side: float = 2.0, at: float = -1.0) -> trimesh.Trimesh:
    """A square at a height, its vertices `FINE` apart, from `at` on along x and y."""
    count = round(side / FINE) + 1
    steps = at + FINE * np.arange(count)
    x, y = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    corner = (np.arange(count - 1)[:, None] * count + np.arange(count - 1)).ravel()
    one = np.stack([corner, corner + count, corner + 1], 1)
    other = np.stack([corner + count, corner + count + 1, corner + 1], 1)
    return trimesh.Trimesh(np.column_stack([x, y, np.full(len(x), z)]), np.concatenate([one, other]), process=False)


def looking_down(height: float = 2.5, focal: float = 100.0) -> Any:
    """One camera above the middle, 200 x 200 pixels: it sees a square of side 2 height, at focal 100."""
    pose = np.array([[1.0, 0, 0, 0.0031], [0, -1, 0, 0.0017], [0, 0, -1, height]])
    cameras = Cameras.make(pose[None], [focal, focal, 100.0, 100.0], [200, 200])
    return lambda: Sight(cameras, np.array([0]), lambda: None, lambda points: (points[:, 0] > 0) * 2)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("room") / "truth.ply"
    write_mesh(path, wall(0.0))
    return path


@pytest.mark.parametrize(("shift", "share"), [(0.03, 1.0), (0.06, 0.0)])
def test_a_shifted_wall(truth: Path, shift: float, share: float) -> None:
    found = ScannetProtocol().score(Subject(wall(shift), truth, sight=looking_down()))
    assert found.numbers["precision"] == found.numbers["recall"] == found.numbers["f_score"] == share
    assert found.numbers["accuracy"] == pytest.approx(shift, abs=1e-3)
    assert found.numbers["completeness"] == pytest.approx(shift, abs=1e-3)
    assert found.error == pytest.approx(shift, abs=1e-3) and found.numbers["seen_share"] == 1


def test_a_wall_behind_another_was_not_seen(truth: Path) -> None:
    """A second wall half a meter below costs no precision; one that is seen does; so does the first where all count."""
    both = joined(wall(0.0), wall(-0.5))
    hidden = ScannetProtocol().score(Subject(both, truth, sight=looking_down()))
    assert hidden.numbers["precision"] == pytest.approx(1, abs=1e-3)
    behind = both.vertices[:, 2] < -0.1
    assert np.isnan(hidden.error[behind]).all() and np.isfinite(hidden.error[~behind]).all()
    for seen in (ScannetProtocol(cull=False), ScannetProtocol()):
        mesh = both if not seen.cull else joined(wall(0.0), wall(-0.5, at=1.2))
        found = seen.score(Subject(mesh, truth, sight=looking_down(4.0)))
        assert found.numbers["precision"] == pytest.approx(0.5, abs=0.02)
        assert found.numbers["recall"] == 1


def test_what_is_beyond_the_frame_or_five_meters_was_not_seen(truth: Path) -> None:
    """A camera 0.5 m above sees the square of side 1 in the middle: a quarter of the wall."""
    found = ScannetProtocol().score(Subject(wall(0.0), truth, sight=looking_down(0.5)))
    assert found.numbers["precision"] == 1
    assert found.numbers["recall"] == pytest.approx((1.1 / 2) ** 2, abs=0.02), "5 cm beside it count too"
    assert found.numbers["seen_share"] == pytest.approx(0.25, abs=0.01)
    with pytest.raises(InputError, match="a camera saw"):
        ScannetProtocol().score(Subject(wall(0.0), truth, sight=looking_down(5.1)))
    with pytest.raises(InputError, match="--data"):
        ScannetProtocol().score(Subject(wall(0.0), truth))


def test_one_camera_in_ten_looks(truth: Path) -> None:
    cameras = Cameras.make(room_poses(10), [100.0, 100.0, 100.0, 100.0], [200, 200])
    down = looking_down()().cameras
    both = Cameras.from_state({name: torch.cat([a, b]) for (name, a), b in
                               zip(cameras.state().items(), down.state().values(), strict=True)})  # fmt: skip
    sight = Sight(both, np.arange(11), lambda: None, lambda points: np.zeros(len(points), np.int64))
    found = ScannetProtocol().score(Subject(wall(0.0), truth, sight=lambda: sight))
    assert found.numbers["f_score"] == 1, "the eleventh one, which looks down"


def test_points_are_thinned_to_the_means_of_voxels() -> None:
    points = np.array([[0.0, 0, 0], [0.009, 0, 0], [0.012, 0, 0], [0.031, 0, 0]])
    means = voxel_means(points, 0.02)  # voxels begin at -0.01, 0.01, 0.03
    assert sorted(means[:, 0]) == pytest.approx([0.0045, 0.012, 0.031])
    assert voxel_means(points[:0], 0.02).shape == (0, 3)


def test_points_of_any_scene_where_two_views_saw(tmp_path: Path) -> None:
    """The generic protocol: half of a wall was seen; a foreign mesh counts as a whole."""
    path = tmp_path / "points.npz"
    np.savez(path, points=wall(0.0).vertices)
    low = wall(0.01)
    low.vertices[low.vertices[:, 0] < 0, 2] = 3.0
    own = GenericProtocol(samples=20_000).score(Subject(low, path, sight=looking_down()))
    assert own.numbers["accuracy"] == pytest.approx(0.01, abs=4e-3) and own.numbers["min_views"] == 2
    assert np.isnan(own.error[low.vertices[:, 0] < 0]).all()
    foreign = GenericProtocol(samples=20_000).score(Subject(low, path))
    assert foreign.numbers["accuracy"] > 1 and "min_views" not in foreign.numbers


def test_a_ball_in_its_own_size(tmp_path: Path) -> None:
    """10 % larger, far from the origin and small: 0.1 radii; a piece beyond the crop is gray."""
    place = np.array([400.0, -200.0, 1e3])
    truth, ours = (trimesh.creation.icosphere(subdivisions=5, radius=radius) for radius in (0.5, 0.55))
    stray = trimesh.creation.icosphere(subdivisions=1, radius=0.1)
    stray.vertices += [3, 0, 0]
    mesh = joined(ours, stray)
    for one in (truth, mesh):
        one.vertices += place
    write_mesh(tmp_path / "truth.ply", truth)
    found = GenericProtocol(crop=1.0, samples=20_000).score(Subject(mesh, tmp_path / "truth.ply"))
    assert found.numbers["chamfer"] == pytest.approx(0.1, abs=1e-3)
    assert found.numbers["reference_radius"] == pytest.approx(0.5, abs=1e-3)
    kept = np.arange(len(mesh.vertices)) < len(ours.vertices)
    assert found.error[kept] == pytest.approx(0.05, abs=1e-3) and np.isnan(found.error[~kept]).all()
