"""Other photographs, looked into at points: known pixels of known views, and what no view sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataio.formats.procedural import ProceduralData
from dataio.source_views import SourceViews
from utils.errors import InputError


@pytest.fixture(scope="module")
def scene():
    return ProceduralData(views=6, test_views=2, size=24).load()


def test_a_pixel_is_found_along_its_ray(scene) -> None:
    views = SourceViews(scene, "cpu")
    view = torch.tensor([int(views.views[1])] * 3)
    pixels = torch.tensor([[4.5, 7.5], [10.0, 12.5], [23.5, 23.5]])
    rays = scene.cameras.rays(view, pixels)
    color, seen = views.colors(rays.at(torch.full((3,), 2.0)), view)
    picture = torch.from_numpy(np.array(scene.images[int(view[0])])).float() / 255
    expected = torch.stack([picture[7, 4], (picture[12, 9] + picture[12, 10]) / 2, picture[23, 23]])
    assert seen.tolist()[:2] == [True, True]
    torch.testing.assert_close(color[:2], expected[:2], atol=2e-3, rtol=0)


def test_what_lies_behind_or_beside_is_not_seen(scene) -> None:
    views = SourceViews(scene, "cpu")
    view = torch.from_numpy(views.views[:1])
    behind = scene.cameras.centers[view] - scene.cameras.forward[view]
    beside = scene.cameras.rays(view, torch.tensor([[-3.0, 5.0]])).at(torch.ones(1))
    color, seen = views.colors(torch.cat([behind, beside]), view.repeat(2))
    assert not seen.any() and torch.isfinite(color).all()


def test_neighbors_are_training_views_and_never_the_view_itself(scene) -> None:
    views = SourceViews(scene, "cpu", least=3)
    camera = torch.arange(len(scene.cameras))
    beside = views.beside(camera, 3)
    assert beside.shape == (len(camera), 3) and set(beside.flatten().tolist()) <= set(views.views.tolist())
    assert not (beside == camera[:, None]).any()
    apart = torch.cdist(scene.cameras.centers, scene.cameras.centers[views.views])
    first = (scene.cameras.centers[beside[:, 0]] - scene.cameras.centers).norm(dim=-1)
    assert (first <= apart.median(dim=1).values + 1e-6).all()
    with pytest.raises(InputError, match=r"got 6 training views - expected 9"):
        SourceViews(scene, "cpu", least=8)


def test_colors_are_differentiable_in_points(scene) -> None:
    views = SourceViews(scene, "cpu")
    view = torch.from_numpy(views.views[:1])
    rays = scene.cameras.rays(view, torch.tensor([[11.2, 12.7]]))
    x = rays.at(torch.full((1,), 2.0)).requires_grad_()
    color, _ = views.colors(x, view)
    (slope,) = torch.autograd.grad(color.sum(), x)
    step = 1e-3 * torch.nn.functional.normalize(slope, dim=-1)
    with torch.no_grad():
        change = (views.colors(x + step, view)[0] - views.colors(x - step, view)[0]).sum() / 2e-3
    torch.testing.assert_close(change, slope.norm(), rtol=0.05, atol=1e-3)
