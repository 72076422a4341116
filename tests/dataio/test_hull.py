"""The visual hull of a sphere's silhouettes, and networks that start as it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from dataio.shapes.hull import VisualHull
from models.encodings.hash_grid import HashGridConfig
from models.fields.sdf import SdfConfig
from models.fields.shape_fit import fit_shape
from models.networks.mlp import MlpConfig

RADIUS, SIZE, FOCAL = 0.5, 120, 150.0


def ball_seen_from(directions: torch.Tensor, *, wrong: int = 0) -> VisualHull:
    """Cameras at distance 3 that look at a ball; the masks of the first `wrong` show nothing but a corner."""
    poses, masks = [], []
    for i, direction in enumerate(torch.nn.functional.normalize(directions, dim=-1).double()):
        z = -direction
        x = torch.nn.functional.normalize(torch.linalg.cross(z, torch.tensor([0.3, 0.5, 0.81]).double()), dim=-1)
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = torch.stack([x, torch.linalg.cross(z, x), z], 1)
        pose[:3, 3] = 3 * direction
        poses.append(pose)
        y, x = np.mgrid[:SIZE, :SIZE] + 0.5
        outline = FOCAL * RADIUS / np.sqrt(9 - RADIUS**2)
        mask = np.hypot(x - SIZE / 2, y - SIZE / 2) < outline
        if i < wrong:
            mask[:] = False
            mask[:3, :3] = True
        masks.append((255 * mask).astype(np.uint8))
    intrinsics = np.tile([FOCAL, FOCAL, SIZE / 2, SIZE / 2], (len(poses), 1))
    cameras = Cameras.make(torch.stack(poses), intrinsics, [(SIZE, SIZE)] * len(poses))
    return VisualHull(cameras, masks)


def test_of_a_ball_it_is_the_ball() -> None:
    torch.manual_seed(0)
    hull = ball_seen_from(torch.randn(40, 3))
    x = torch.randn(4000, 3).clamp(-0.55, 0.55)
    true = x.norm(dim=-1) - RADIUS
    found = hull(x)
    near = true.abs() < 0.1
    assert (found - true)[near].abs().mean() < 0.01 and (found - true)[near].abs().max() < 0.06
    assert (found[true < -0.01] < 0).all() and (found <= true.clamp_min(0) + 0.02)[found > 0].all()


def test_few_wrong_masks_carve_nothing_away() -> None:
    torch.manual_seed(0)
    hull = ball_seen_from(torch.randn(40, 3), wrong=1)
    assert float(hull(torch.zeros(1, 3))) < -0.4


def test_masks_that_say_nothing_are_refused() -> None:
    hull = ball_seen_from(torch.randn(4, 3))
    hull.maps = {}
    with pytest.raises(ValueError, match="no mask"):
        hull(torch.zeros(1, 3))


def test_a_network_starts_as_the_hull_and_as_the_sphere_without_masks() -> None:
    torch.manual_seed(0)
    config = SdfConfig(
        init="hull",
        radius=0.7,
        encoding=HashGridConfig(levels=4, top=64, log2_rows=12),
        geometry=MlpConfig(layers=1, width=32, activation="softplus"),
        features=7,
    )
    shell = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    field = config.build()
    field.reset_parameters()
    fit_shape(field, lambda x: x.norm(dim=-1) - 0.4)
    with torch.no_grad():
        assert field.value(0.4 * shell).abs().mean() < 5e-3 and (field.value(0.9 * shell) > 0.4).all()
    field = config.build()
    field.reset_parameters()
    field.initialize(None)
    with torch.no_grad():
        assert field.value(0.7 * shell).mean().abs() < 0.1 and (field.value(0.1 * shell) < -0.3).all()
