"""Ground between sparse points, against planes and waves that are known, and a field that starts as it."""

from __future__ import annotations

import numpy as np
import torch

from dataio.relief import Relief
from models.fields.hash_grid import HashGridConfig
from models.fields.mlp import MlpConfig
from models.fields.sdf import SdfConfig


def scattered(count: int, height, seed: int = 0) -> np.ndarray:
    across = np.random.default_rng(seed).uniform(-0.95, 0.95, (count, 2))
    return np.column_stack([across, height(*across.T)]).astype(np.float32)


def test_over_a_plane_it_is_the_distance() -> None:
    """z = 0.3 x - 0.1 y + 0.05, also beyond the outermost points' triangles only by a little."""
    relief = Relief(scattered(3000, lambda x, y: 0.3 * x - 0.1 * y + 0.05))
    x = torch.from_numpy(np.random.default_rng(1).uniform(-0.6, 0.6, (2000, 3)).astype(np.float32))
    truth = (x[:, 2] - 0.3 * x[:, 0] + 0.1 * x[:, 1] - 0.05) / (1 + 0.3**2 + 0.1**2) ** 0.5
    torch.testing.assert_close(relief(x), truth, atol=2e-3, rtol=0)


def test_stray_points_do_not_move_the_ground() -> None:
    """One point in a hundred a unit above it: the middle one of each cell decides where there are several."""
    points = scattered(60_000, lambda x, y: 0.1 * np.sin(4 * x))
    points[::100, 2] += 0.8
    relief = Relief(points)
    x = torch.zeros(400, 3)
    x[:, 0] = torch.linspace(-0.8, 0.8, 400)
    assert (relief(x) + 0.1 * torch.sin(4 * x[:, 0])).abs().median() < 5e-3


def test_a_field_starts_as_the_ground() -> None:
    torch.manual_seed(0)
    encoding = HashGridConfig(levels=6, base=8, top=64, log2_rows=12)
    geometry = MlpConfig(layers=1, width=32, activation="softplus")
    field = SdfConfig(encoding=encoding, geometry=geometry, features=3, start="ground").build()
    field.prepare({"ground": lambda: Relief(scattered(4000, lambda x, y: 0.2 * np.sin(3 * x) * y))})
    across = torch.rand(500, 2) * 1.2 - 0.6
    height = 0.2 * torch.sin(3 * across[:, 0]) * across[:, 1]
    with torch.no_grad():
        assert field.value(torch.column_stack([across, height])).abs().mean() < 0.01
        assert (field.value(torch.column_stack([across, height + 0.1])) > 0.03).float().mean() > 0.95
