"""Colors of a mesh from photographs: a ball whose color is known, photographed from all sides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dataio.cameras import Cameras
from engine.meshes.finishing import as_seen
from engine.meshes.photographs import colors_as_photographed, photographs_of
from models.kernels.rays.cast import Triangles
from tests.engine.meshes.test_views import around, run_with

BALL = trimesh.creation.icosphere(3, 0.5)


def color_at(points: torch.Tensor) -> torch.Tensor:
    """[N, 3] from 0.5 to 0.9, linear in the place: right between vertices too."""
    return 0.7 + 0.4 * points


def photographed(cameras: Cameras) -> Any:
    """A scene of the ball, with masks; beyond them the photographs are black."""
    triangles = Triangles(torch.tensor(BALL.vertices).float(), torch.tensor(np.array(BALL.faces)).int())
    images, masks = [], []
    for view in range(len(cameras)):
        grid = cameras.pixel_grid(view)
        rays = cameras.rays(torch.full((len(grid),), view), grid)
        t, _, _ = triangles.cast(rays.origins, rays.directions, near=rays.near)
        hit = torch.isfinite(t)[:, None]
        color = torch.where(hit, color_at(rays.at(t.nan_to_num(posinf=0.0))), 0.0)
        images.append((255 * color).round().byte().view(80, 80, 3).numpy())
        masks.append((255 * hit).byte().view(80, 80).numpy())
    return SimpleNamespace(cameras=cameras, images=images, masks=masks, splits={"train": np.arange(len(cameras))})


def run_from(centers: np.ndarray, off: float) -> Any:
    """A run whose field is brighter than the ball by `off`, on all sides."""
    run = run_with(centers)
    run.surface_color = lambda points, directions: color_at(points) + off
    run.model = SimpleNamespace(media=[SimpleNamespace(per_image=None)])
    return run


@pytest.mark.parametrize("with_masks", [True, False])
def test_vertices_have_the_colors_of_the_photographs(with_masks: bool) -> None:
    run = run_from(around(30), 0.08)
    scene = photographed(run.cameras)
    scene.images[3][30:40, 30:50] = 0  # something dark before the ball
    if not with_masks:
        scene.masks = None
    vertices = torch.tensor(BALL.vertices).float()
    found = colors_as_photographed(run, scene, BALL, (color_at(vertices) + 0.08).numpy(), torch.ones(30, 3))
    np.testing.assert_allclose(found, color_at(vertices).numpy(), atol=0.006)


def test_what_no_photograph_shows_keeps_its_color() -> None:
    run = run_from(np.array([[3.0, 0, 0], [2.9, 0.5, 0]]), 0.08)
    vertices = torch.tensor(BALL.vertices).float()
    given = (color_at(vertices) + 0.08).numpy()
    found = colors_as_photographed(run, photographed(run.cameras), BALL, given, torch.ones(2, 3))
    far, near = BALL.vertices[:, 0] < -0.1, BALL.vertices[:, 0] > 0.3
    assert (found[far] == given[far]).all()
    np.testing.assert_allclose(found[near], color_at(vertices).numpy()[near], atol=0.006)


def test_a_few_pixels_of_many_photographs_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_from(around(30), 0.08)
    scene = photographed(run.cameras)
    asked: list[int] = []

    def field(points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        asked.append(len(points))
        return color_at(points)

    run.surface_color = field
    monkeypatch.setattr("engine.meshes.photographs.PIXELS", 30 * 50)
    given = np.full((len(BALL.vertices), 3), 0.7, np.float32)
    found = colors_as_photographed(run, scene, BALL, given, torch.ones(30, 3))
    assert 0 < max(asked) <= 50
    assert np.abs(found - color_at(torch.tensor(BALL.vertices)).numpy()).mean() < 0.05


def test_without_photographs_the_field_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_from(around(12), 0.08)
    assert photographs_of(run) is None and "no such folder" in capsys.readouterr().err
    run.model.media[0].per_image = "tint"
    assert photographs_of(run) is None and capsys.readouterr().err == ""
    mesh = as_seen(run, BALL.copy(), cell=0.05, color=True, close=False).mesh
    expected = 255 * (color_at(torch.tensor(BALL.vertices)) + 0.08)
    np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3], expected, atol=1)  # type: ignore[union-attr]
    run.model.media[0].per_image, run.load_scene = None, lambda: photographed(run.cameras)
    mesh = as_seen(run, BALL.copy(), cell=0.05, color=True, close=False).mesh
    np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3], expected - 255 * 0.08, atol=2)  # type: ignore[union-attr]
