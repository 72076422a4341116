"""Losses on sparse points: a sphere whose sdf is known, and a background that is a wall around it."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dataio.seen_points import SeenPoints
from models.bounds.outside import OutsideBounds
from models.bounds.sphere import Sphere
from models.losses.background_points import BackgroundPointsLoss
from models.losses.base import Step
from models.losses.points import PointsLoss
from models.samplers.inverse_radius import InverseRadiusConfig
from models.samples import RaySamples
from tests.models.losses.test_losses import batch, rendering
from tests.support.analytic import RADIUS, sphere_model

BACKGROUND = BackgroundPointsLoss(count=4000)


def step(model: Any, points: SeenPoints | None) -> Step:
    return Step(rendering(4), batch(4), model, points=points)


def radial(ends: Tensor, *, camera: float, doubt: float = 0.0) -> SeenPoints:
    """Points [T, 3] seen along lines through the origin, by cameras beyond it at distance `camera` from it."""
    out = torch.nn.functional.normalize(ends, dim=-1)
    distance = ends.norm(dim=-1) + camera
    return SeenPoints(ends, out, distance, torch.full_like(distance, doubt), int((ends.norm(dim=-1) < 1).sum()))


def directions(count: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.mark.parametrize("off", [0.0, 0.004, 0.1, -0.05])
def test_points_are_on_the_surface_and_nothing_stands_before_them(off: float) -> None:
    """The exact sdf of a sphere, points `off` outside of it that may be 0.005 off, seen from straight above: |sdf| is
    |off|, and before them the sdf is more than the distance to the point where that lies outside, and less than zero
    where it lies inside.
    """
    torch.manual_seed(0)
    out = directions(500)
    seen = SeenPoints((RADIUS + off) * out, -out, torch.full((500,), 2.0), torch.full((500,), 0.005), within=500)
    found = PointsLoss(count=4000, band=0.02)(step(sphere_model(), seen)).item()
    far = 1 - RADIUS - off  # to the unit sphere
    ahead = torch.linspace(0.02, far, 10_000, dtype=torch.float64)
    value = off + ahead  # of the sdf, `ahead` before the point
    before = torch.maximum(torch.exp(-5 * value) - 1, value - ahead).clamp_min(0).mean().item()
    truth = max(abs(off) - 0.005, 0) + before
    assert found == pytest.approx(truth, rel=0.02, abs=1e-6)


def with_background(density: Any) -> Any:
    """A model whose background has this density per 1 / r at points."""

    def optical_depth(value: Tensor, samples: RaySamples) -> Tensor:
        return value * samples.length

    background = SimpleNamespace(
        bounds=OutsideBounds(),
        sampler=InverseRadiusConfig(samples=2000, reach=50.0).build().eval(),
        opacity=SimpleNamespace(reads_distance=False),
        value=density,
        estimated_optical_depth=optical_depth,
    )
    return SimpleNamespace(foreground=SimpleNamespace(bounds=Sphere()), background=background)


def test_light_is_lost_on_the_way_to_the_sphere() -> None:
    """A fog of density 0.3 over two units, before points within the sphere."""
    fog = with_background(lambda x: torch.full(x.shape[:-1], 0.3))
    torch.manual_seed(0)
    found = BACKGROUND(step(fog, radial(0.5 * directions(50), camera=3.0))).item()
    assert found == pytest.approx(1 - math.exp(-0.3 * 2), rel=1e-5)


@pytest.mark.parametrize(("distance", "truth"), [(1.5, 1.0), (2.0, 0.0), (3.0, 1.0)])
def test_the_background_ends_at_points(distance: float, truth: float) -> None:
    """A wall at twice the radius: all light goes on behind a point before it, all is lost before one behind it."""
    wall = with_background(lambda x: 1e6 * (x.norm(dim=-1) > 2.0))
    points = radial(distance * directions(50), camera=3.0, doubt=0.02)
    assert BACKGROUND(step(wall, points)).item() == pytest.approx(truth, abs=1e-4)


def test_no_points_no_background_and_for_the_surface_points_beyond_the_sphere_say_nothing() -> None:
    model = sphere_model()
    assert model.background is None
    for points in (None, radial(2.0 * directions(9), camera=3.0)):
        for loss in (PointsLoss(), BACKGROUND):
            assert loss(step(model, points)).item() == 0
