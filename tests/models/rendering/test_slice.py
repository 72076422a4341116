"""A plane through an analytic sphere: where it is met, and what its colors say."""

from __future__ import annotations

import pytest
import torch

from models.rendering.renderers.slice import BAND, INSIDE, LINE, OUTSIDE, RANGE, SliceRenderer, value_colors
from tests.models.rendering.test_renderers import camera
from tests.models.test_surface import CASES, surface_model
from tests.support.analytic import RADIUS


def test_a_plane_across_the_sphere() -> None:
    """The camera looks along z from -2.5: the plane z = 0.1 is 2.6 away, its black line as far out as the sphere's."""
    frame = SliceRenderer(surface_model(*CASES["logistic"]), "z", 0.1)(camera(), 0)
    rays = camera().rays(torch.zeros(128 * 96, dtype=torch.long), camera().pixel_grid(0))
    points = rays.at(2.6 / rays.directions[:, 2]).view(96, 128, 3)
    inside = (points.abs() <= 1).all(-1)
    assert torch.equal(frame.opacity > 0, inside) and 0.5 < inside.float().mean() < 1
    expected = (2.6 / rays.directions[:, 2]).view(96, 128)
    assert (frame.depth - expected)[inside].abs().max() < 1e-5 and (frame.depth[~inside] == 0).all()
    distance = points.norm(dim=-1) - RADIUS
    black = (frame.color < 0.1).all(-1)
    assert black.any() and distance[black].abs().max() < 0.02
    orange, blue = frame.color[..., 0] > frame.color[..., 2], frame.color[..., 2] > frame.color[..., 0]
    assert orange[inside & (distance < -0.03)].all() and blue[inside & (distance > 0.03)].all()
    assert (frame.color[~inside] == 1).all()


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_plane_along_the_view_is_seen_from_its_edge(axis: str) -> None:
    """And rays within it are no accident."""
    frame = SliceRenderer(surface_model(*CASES["logistic"]), axis, 0.0)(camera(), 0)  # type: ignore[arg-type]
    assert torch.isfinite(frame.color).all() and torch.isfinite(frame.depth).all()


def test_colors_of_values() -> None:
    value = torch.tensor([2 * RANGE, -2 * RANGE, 0.0, 3 * BAND, 3.5 * BAND])
    color = value_colors(value, torch.full((5,), 0.01))
    assert color[0].tolist() == pytest.approx([0.75 * c for c in OUTSIDE]), "on a line of equal value"
    assert color[1].tolist() == pytest.approx([0.75 * c for c in INSIDE])
    assert color[2].tolist() == pytest.approx(LINE)
    share = 3.5 * BAND / RANGE
    assert color[4].tolist() == pytest.approx([1 - share * (1 - c) for c in OUTSIDE])
