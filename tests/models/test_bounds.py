"""Bounds: pieces of rays against points along them, contraction against its formula, coordinates that fields get."""

from __future__ import annotations

import pytest
import torch

from models.bounds.base import BoundsConfig
from models.bounds.box import BoxConfig
from models.bounds.contraction import ContractionConfig
from models.bounds.outside import OutsideBoundsConfig
from models.bounds.sphere import SphereConfig
from models.model import Model, ModelConfig
from tests.support.analytic import DENSITY_FIELD, FOREGROUND, RADIUS, Sphere, rays_at_sphere
from utils.config.parts import parts

BOUNDS = {
    "sphere": SphereConfig(),
    "outside": OutsideBoundsConfig(),
    "box": BoxConfig(low=(-0.3, -0.8, -0.5), high=(0.6, 0.2, 0.9)),
    "contraction": ContractionConfig(),
}


def test_every_part_is_tested_here() -> None:
    assert set(parts(BoundsConfig).values()) == {type(config) for config in BOUNDS.values()}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_piece_is_what_the_bounds_contain(name: str) -> None:
    """At 4000 points along each ray: within the piece if and only if within the bounds, but for its ends."""
    bounds, rays = BOUNDS[name].build(), rays_at_sphere(200, spread=1.4)
    pieces = bounds.clip(rays)
    t = torch.linspace(0.06, 6.0, 4000).expand(200, 4000)
    contained = bounds.contains(rays.at(t))
    within = (t >= pieces.near[:, None]) & (t <= pieces.far[:, None])
    ends = torch.stack([pieces.near, pieces.far], 1)[:, None]
    clear = ((t[..., None] - ends).abs() > 5e-3).all(-1)
    if name == "outside":  # what lies before the sphere is the foreground's
        clear &= t > (-(rays.origins * rays.directions).sum(-1))[:, None]
    assert torch.equal(contained[clear], within[clear])
    assert (pieces.far >= pieces.near).all()


def test_a_box_meets_rays_along_its_axes() -> None:
    rays = rays_at_sphere(2)
    along = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    origins = torch.tensor([[0.0, 0.0, -3.0], [0.7, 0.0, -3.0]])
    object.__setattr__(rays, "directions", along)
    object.__setattr__(rays, "origins", origins)
    pieces = BOUNDS["box"].build().clip(rays)
    torch.testing.assert_close(pieces.near, torch.tensor([2.5, 0.05]))
    torch.testing.assert_close(pieces.far, torch.tensor([3.9, 0.05]))  # the second misses
    with pytest.raises(ValueError, match="-1 <= low < high <= 1"):
        BoxConfig(low=(0.5, 0, 0), high=(0.4, 1, 1))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_contraction_is_the_published_one_halved(norm: str) -> None:
    x = torch.randn(500, 3, dtype=torch.float64) * 4
    size = x.norm(dim=-1, keepdim=True) if norm == "l2" else x.abs().amax(-1, keepdim=True)
    published = torch.where(size <= 1, x, (2 - 1 / size) * x / size)
    bounds = ContractionConfig(norm=norm).build()
    found = bounds.contract(x)
    torch.testing.assert_close(found, published / 2)
    assert (found.norm(dim=-1) if norm == "l2" else found.abs().amax(-1)).max() < 1
    y = torch.randn(20, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(bounds.contract, (y * 2,))


def test_a_contracted_medium_asks_its_field_and_its_proposal_within_the_cube() -> None:
    sampler = {"type": "occupancy_grid", "resolution": 32, "levels": 5, "step": [0.05, 0.1], "cone": 0.05}
    foreground = {"bounds": "contraction", "sampler": sampler, "field": DENSITY_FIELD, "opacity": {"type": "density"}}
    model = Model(ModelConfig.model_validate({"foreground": foreground}))
    asked: list[float] = []
    field = model.foreground.field
    inner = field.coordinates

    def spy(x: torch.Tensor) -> torch.Tensor:
        asked.extend(x.abs().amax(-1).flatten().tolist())
        return inner(x)  # type: ignore[operator]

    field.coordinates = spy  # type: ignore[assignment]
    model.refresh(0)
    seen = model(rays_at_sphere(50, spread=0.5))
    assert torch.isfinite(seen.color).all() and max(asked) < 1
    far = torch.tensor([[100.0, 0, 0]])
    torch.testing.assert_close(model.foreground.value(far), field.value(torch.tensor([[0.995, 0, 0]])))


def test_two_media_do_not_fill_the_same_space() -> None:
    sampler = {"type": "occupancy_grid", "resolution": 32, "levels": 4}
    part = {"sampler": sampler, "field": DENSITY_FIELD, "opacity": {"type": "density"}}
    beyond = {"sampler": {"type": "inverse_radius"}, "field": {"type": "outside"}, "opacity": {"type": "density"}}
    for bounds in ("contraction", {"type": "contraction", "norm": "linf"}):
        with pytest.raises(ValueError, match="the two would fill the same stretch"):
            ModelConfig.model_validate(
                {"foreground": {**part, "bounds": bounds}, "background": {**beyond, "bounds": "outside"}}
            )
    with pytest.raises(ValueError, match="background.bounds: outside begins at the unit sphere, where .* box does not"):
        ModelConfig.model_validate(
            {"foreground": {**part, "bounds": "box"}, "background": {**beyond, "bounds": "outside"}}
        )
    with pytest.raises(ValueError, match="occupancy_grid works inside the unit sphere only"):  # with one level
        ModelConfig.model_validate(
            {"foreground": {**part, "sampler": {"type": "occupancy_grid"}, "bounds": "contraction"}}
        )
    with pytest.raises(ValueError, match="inside the unit sphere only, this medium lies in all of space"):
        sdf = {**part, "field": {"type": "sdf"}, "opacity": {"type": "logistic"}, "bounds": "contraction"}
        ModelConfig.model_validate({"foreground": sdf})


def test_there_is_no_surface_outside_of_a_box() -> None:
    foreground = {**FOREGROUND, "bounds": {"type": "box", "low": [-1, -1, -0.2], "high": [1, 1, 0.2]}}
    model = Model(ModelConfig.model_validate({"foreground": {**foreground, "opacity": {"type": "logistic"}}}))
    model.foreground.field = Sphere()
    x = torch.tensor([[0.0, 0, 0.1], [0.0, 0, 0.3], [0.0, 0.59, 0.19], [0.0, 0.9, 0.0]])
    inside = model.foreground.bounds.contains(x)
    assert inside.tolist() == [True, False, True, True]
    value = model.surface_value(x)
    torch.testing.assert_close(value[inside], (x.norm(dim=-1) - RADIUS)[inside])
    assert (value[~inside] > 0).all()
