"""Gains of photographs: those that were put on known colors come back, and a texture is even."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.meshes.finishing import as_seen
from engine.meshes.gains import fitted_gains, photograph_gains
from engine.meshes.observed import Observed
from engine.meshes.points import PointColors
from tests.engine.meshes.test_photographs import BALL, color_at, photographed, run_from
from tests.engine.meshes.test_views import around

GAINS = torch.tensor([[0.8, 0.9, 1.0], [1.0, 1.0, 1.0], [1.1, 1.05, 1.0], [1.2, 1.1, 1.0]])


def pairs(shown: list[list[int]], gains: torch.Tensor = GAINS, weight: float = 1.0) -> Observed:
    """Points of random colors, each shown by the photographs of its list."""
    generator = torch.Generator().manual_seed(0)
    color = 0.1 + 0.6 * torch.rand(len(shown), 3, generator=generator)
    point = torch.tensor([index for index, views in enumerate(shown) for _ in views])
    view = torch.tensor([view for views in shown for view in views])
    return Observed(len(shown), point, view, color[point] * gains[view], torch.full((len(point),), weight))


def test_gains_come_back_up_to_the_level() -> None:
    found = fitted_gains(pairs([[0, 1], [1, 2, 3], [0, 3], [2, 3]] * 50), 5)
    np.testing.assert_allclose(found[:4] / found[1], GAINS, rtol=0.01)
    assert (found[4] - 1).abs().max() < 0.05, "a photograph that shows nothing"


def test_the_mean_exposure_is_that_of_the_photographs() -> None:
    """Points of one color, shown by all: the level of least squares is the mean gain."""
    found = fitted_gains(pairs([[0, 1, 2, 3]] * 100), 4)
    np.testing.assert_allclose(found, GAINS / GAINS.mean(0), rtol=0.01)


def test_what_is_far_off_hardly_counts() -> None:
    seen = pairs([[0, 1, 2, 3]] * 100)
    seen.color[seen.point % 10 == 0] = seen.color[seen.point % 10 == 0].flip(0)  # gloss, or something before it
    found = fitted_gains(seen, 4)
    np.testing.assert_allclose(found / found[1], GAINS, rtol=0.03)


def test_without_shared_points_a_gain_is_one() -> None:
    assert (fitted_gains(pairs([[0], [1], [2]]), 4) == 1).all()
    assert (fitted_gains(pairs([[0, 1]], weight=0.0), 4) == 1).all()


@pytest.fixture(scope="module")
def uneven() -> tuple[object, object, torch.Tensor]:
    """A run, its photographs of the ball, each with a gain of its own, and the gains [30]; their mean is one."""
    run = run_from(around(30), 0.0)
    scene, gains = photographed(run.cameras), torch.linspace(0.85, 1.1, 30)
    gains = gains / gains.mean()
    for image, gain in zip(scene.images, gains.tolist(), strict=True):
        image[:] = np.rint(image * gain).clip(0, 255)
    run.load_scene = lambda: scene
    return run, scene, gains


def test_gains_of_photographs(uneven: tuple) -> None:
    run, scene, gains = uneven
    found = photograph_gains(run, scene, BALL, 0.02)
    np.testing.assert_allclose(found, (gains / gains.mean())[:, None].expand(30, 3), atol=0.02)


def test_points_and_vertices_are_even(uneven: tuple) -> None:
    run, scene, _ = uneven
    points = np.asarray(BALL.vertices)
    truth = color_at(torch.from_numpy(points)).numpy()
    baked = PointColors(run, scene, BALL, 0.02)(points, points)[:, :3] / 255
    seen = as_seen(run, BALL.copy(), cell=0.05, color=True, close=False).mesh
    for found in (baked, seen.visual.vertex_colors[:, :3] / 255):  # type: ignore[union-attr]
        ratio = found / truth
        assert ratio.std() < 0.006 and ratio.mean() == pytest.approx(1, abs=0.02), "the level is free, the rest is not"
