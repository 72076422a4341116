"""Ground between sparse points, against planes and waves that are known, and a field that starts as it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dataio.shapes.relief import Relief, relief_of
from engine import suits
from engine.experiment import read_config
from models.encodings.hash_grid import HashGridConfig
from models.fields.sdf import SdfConfig
from models.fields.shape_fit import fit_shape
from models.networks.mlp import MlpConfig

ROOT = Path(__file__).resolve().parents[2]
UP = np.array([0.0, 0.0, 1.0])


def scattered(count: int, height, seed: int = 0) -> np.ndarray:
    across = np.random.default_rng(seed).uniform(-0.95, 0.95, (count, 2))
    return np.column_stack([across, height(*across.T)]).astype(np.float32)


def test_over_a_plane_it_is_the_distance() -> None:
    """z = 0.3 x - 0.1 y + 0.05, also beyond the outermost points' triangles only by a little."""
    relief = Relief(scattered(3000, lambda x, y: 0.3 * x - 0.1 * y + 0.05), UP)
    x = torch.from_numpy(np.random.default_rng(1).uniform(-0.6, 0.6, (2000, 3)).astype(np.float32))
    truth = (x[:, 2] - 0.3 * x[:, 0] + 0.1 * x[:, 1] - 0.05) / (1 + 0.3**2 + 0.1**2) ** 0.5
    torch.testing.assert_close(relief(x), truth, atol=2e-3, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_in_any_direction_it_is_the_same_relief_turned(seed: int) -> None:
    points = scattered(20_000, lambda x, y: 0.2 * np.sin(3 * x) * y) * 0.6
    turn = Rotation.random(random_state=seed).as_matrix()
    straight, turned = Relief(points, UP), Relief(points @ turn.T, turn @ UP)
    x = torch.from_numpy(np.random.default_rng(1).uniform(-0.3, 0.3, (2000, 3)).astype(np.float32))
    difference = (straight(x) - turned(x @ torch.from_numpy(turn.astype(np.float32)).T)).abs()
    assert difference.median() < 2e-3 and difference.quantile(0.95) < 0.01


def scene_of(directions: np.ndarray, points: np.ndarray) -> Any:
    """Cameras that look along directions, from 2 units before the origin."""
    poses = np.tile(np.eye(4)[:3], (len(directions), 1, 1))
    poses[:, :, 2], poses[:, :, 3] = directions, -2 * directions
    cameras = SimpleNamespace(camera_to_world=torch.from_numpy(poses).float())
    return SimpleNamespace(points=points, cameras=cameras, quantities={}, room=False, georeference=None)


def test_cameras_before_a_wall_see_its_relief() -> None:
    """A wall across y, seen along +y from several sides: what lies behind it is solid."""
    wall = scattered(3000, lambda x, z: 0.0 * x + 0.1)[:, [0, 2, 1]]
    looks = np.array([[-0.5, 1, 0], [0, 1, 0.2], [0.5, 1, 0]]) / np.linalg.norm([0.5, 1, 0.1])
    relief = relief_of(scene_of(looks / np.linalg.norm(looks, axis=1, keepdims=True), wall))
    assert relief is not None
    x = torch.tensor([[0.0, -0.3, 0.0], [0.2, 0.1, 0.1], [-0.1, 0.4, 0.3]])
    torch.testing.assert_close(relief(x), torch.tensor([0.4, 0.0, -0.3]), atol=0.01, rtol=0)
    assert relief_of(scene_of(np.concatenate([looks, -looks]), wall)) is None  # from all sides
    assert relief_of(scene_of(looks, wall[:50])) is None  # too few points


def test_stray_points_do_not_move_the_ground() -> None:
    """One point in a hundred a unit above it: the middle one of each cell decides where there are several."""
    points = scattered(60_000, lambda x, y: 0.1 * np.sin(4 * x))
    points[::100, 2] += 0.8
    relief = Relief(points, UP)
    x = torch.zeros(400, 3)
    x[:, 0] = torch.linspace(-0.8, 0.8, 400)
    assert (relief(x) + 0.1 * torch.sin(4 * x[:, 0])).abs().median() < 5e-3


def test_stray_points_among_few_leave_no_spikes() -> None:
    """One in 25 anywhere, where no cell has several points; a house of a steep wall keeps its height."""

    def height(x, y):
        return np.where((np.abs(x) < 0.2) & (np.abs(y) < 0.2), 0.25, 0.05 * np.sin(4 * x))

    points = scattered(4000, height)
    points[::25, 2] = np.random.default_rng(2).uniform(-0.5, 0.9, 160)
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-0.8, 0.8, 81), np.linspace(-0.8, 0.8, 81)))
    off = Relief(points, UP)(torch.from_numpy(np.stack([x, y, height(x, y)], -1)).float()).abs().numpy()
    clear = np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.2) > 0.06
    assert off[clear].max() < 0.06 and np.median(off[clear]) < 5e-3


def test_a_field_starts_as_the_ground() -> None:
    torch.manual_seed(0)
    encoding = HashGridConfig(levels=6, base=8, top=64, log2_rows=12)
    geometry = MlpConfig(layers=1, width=32, activation="softplus")
    field = SdfConfig(encoding=encoding, geometry=geometry, features=3, init="ground").build()
    field.reset_parameters()
    fit_shape(field, Relief(scattered(4000, lambda x, y: 0.2 * np.sin(3 * x) * y), UP))
    across = torch.rand(500, 2) * 1.2 - 0.6
    height = 0.2 * torch.sin(3 * across[:, 0]) * across[:, 1]
    with torch.no_grad():
        assert field.value(torch.column_stack([across, height])).abs().mean() < 0.01
        assert (field.value(torch.column_stack([across, height + 0.1])) > 0.03).float().mean() > 0.95


def test_a_sphere_before_a_background_is_warned_of_where_all_look_from_one_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wall = scattered(3000, lambda x, z: 0.0 * x + 0.1)[:, [0, 2, 1]]
    before, around = np.array([[0.0, 1, 0]] * 3), np.eye(3)
    sphere = ["model.foreground.field.init=sphere"]
    for config, changes, looks, said in (
        ("neus_hash_open", sphere, before, True),
        ("neus_hash_open", sphere, np.concatenate([around, -around]), False),
        ("neus_hash_open", [], before, False),
        ("neus_hash_relief", [], before, False),
    ):
        scene = scene_of(looks, wall)
        found = list(suits.warnings(read_config(ROOT / f"configs/{config}.yaml", changes), scene))
        assert any("look from one side" in line for line in found) == said
