"""Ground between the cameras and the unit sphere, against where rays meet a plane."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.bounds.outside import OutsideBounds
from models.fields.base import Field
from models.model import Model, ModelConfig
from models.rendering.surface import Surface
from models.samples import FieldSample, Points
from tests.support.analytic import FOREGROUND, Sphere, color_at, rays_at_sphere

GROUND = -0.05  # its height
BACKGROUND: dict[str, object] = {
    "sampler": {"type": "inverse_radius", "samples": 24, "coarse": 64},
    "field": {"type": "outside_sdf", "geometry": {"layers": 1, "width": 8, "activation": "softplus"}, "features": 3},
    "appearance": {"type": "direct", "activation": "none"},
    "opacity": {"type": "laplace", "initial_beta": 2e-4},
}


class Ground(Field):
    """All below a height is solid, colored by position."""

    features, has_gradient = 3, False

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = torch.nn.Parameter(torch.tensor(height))

    def value(self, x: Tensor) -> Tensor:
        return x[..., 2] - self.height

    def forward(self, at: Points) -> FieldSample:
        return FieldSample(self.value(at.x), color_at(at.x))


class BallOnGround(Sphere):
    """The same ground within the sphere, and a ball in it."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def value(self, x: Tensor) -> Tensor:
        return torch.minimum(super().value(x), x[..., 2] - self.height)

    def gradient(self, x: Tensor) -> Tensor:
        ground = x[..., 2:] - self.height < super().value(x)[..., None]
        return torch.where(ground, torch.tensor([0.0, 0.0, 1.0]), super().gradient(x))


def model(*, from_camera: bool, height: float = GROUND) -> Model:
    """A ball on ground without end."""
    background = {**BACKGROUND, "bounds": {"type": "outside", "from_camera": from_camera}}
    foreground = {**FOREGROUND, "opacity": {"type": "logistic", "initial_s": 500}}
    made = Model(ModelConfig.model_validate({"foreground": foreground, "background": background}))
    made.foreground.field = BallOnGround(height)
    assert made.background is not None
    made.background.field = Ground(height)
    made.refresh(0)
    return made.eval()


def test_ground_before_the_sphere_is_seen_where_it_is() -> None:
    rays = rays_at_sphere(6000, spread=2.5)
    above = (rays.origins[:, 2] > GROUND + 0.1) & (rays.directions[:, 2] < -0.05)
    rays = rays[above.nonzero()[:, 0]]
    seen = model(from_camera=True)
    meets = (GROUND - rays.origins[:, 2]) / rays.directions[:, 2]
    there, before = rays.at(meets[:, None])[:, 0], OutsideBounds(from_camera=True).before(rays)
    hits = (rays.at(before.far[:, None])[:, 0].norm(dim=-1) - 1).abs() < 1e-4
    met = meets < before.far - 0.02
    later = meets > before.far + 0.02
    assert (met & hits).sum() > 50 and (met & ~hits).sum() > 50 and (later & hits).sum() > 200
    with torch.no_grad():
        found, blind = seen(rays), model(from_camera=False)(rays)
    for part, color, depth in ((met & hits, 0.02, 0.03), (met & ~hits, 0.08, 0.1)):
        off = (found.color[part] - color_at(there[part])).abs().amax(-1)
        assert off.quantile(0.95) < color
        assert ((found.depth[part] - meets[part]).abs() / meets[part]).quantile(0.95) < depth
        assert (blind.color[part] - color_at(there[part])).abs().max() > 0.3
    assert (found.opacity[met] < 1e-3).all()
    torch.testing.assert_close(found.color[later], blind.color[later])
    torch.testing.assert_close(found.opacity[later], blind.opacity[later], atol=2e-3, rtol=0)


def test_the_surface_alone_is_covered_by_it_too() -> None:
    rays = rays_at_sphere(2000, spread=1.2)
    rays = rays[(rays.origins[:, 2] > GROUND + 0.1).nonzero()[:, 0]]
    made = model(from_camera=True)
    with torch.no_grad():
        whole, alone = made(rays), Surface(made)(rays)
    off = (whole.color - alone.color).abs().amax(-1)
    assert off.quantile(0.97) < 0.05  # but at the ball's edge
    assert ((whole.opacity - alone.opacity).abs() < 0.05).float().mean() > 0.97
    assert ((whole.depth - alone.depth).abs() < 0.05).float().mean() > 0.97


@pytest.mark.parametrize("height", [-50.0, 50.0])
def test_where_nothing_is_met_nothing_changes(height: float) -> None:
    """Neither where no ray is beneath a surface at the sphere, nor for cameras within what they never come out of."""
    rays = rays_at_sphere(200, spread=0.9)
    with torch.no_grad():
        one, other = (model(from_camera=each, height=height)(rays) for each in (True, False))
    for name in ("color", "opacity", "depth", "normal"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert (one.opacity.max() > 0.9) == (height < 0)


def test_what_is_seen_there_teaches_the_background() -> None:
    rays = rays_at_sphere(2000, spread=2.0)
    seen = model(from_camera=True)
    assert seen.background is not None
    pieces = seen.background.bounds.before(rays)
    under = ((rays.origins[:, 2] > GROUND) & (pieces.at(pieces.far[:, None])[:, 0, 2] < GROUND - 0.05)).nonzero()[:, 0]
    assert len(under) > 20
    seen(rays[under]).color.sum().backward()
    field = seen.background.field
    assert isinstance(field, Ground) and field.height.grad is not None and field.height.grad.abs() > 0


def test_a_sampler_that_cannot_look_there_is_refused() -> None:
    sampler = {"type": "occupancy_grid", "resolution": 32, "levels": 3}
    background = {**BACKGROUND, "sampler": sampler, "bounds": {"type": "outside", "from_camera": True}}
    foreground = {**FOREGROUND, "opacity": {"type": "logistic"}}
    with pytest.raises(ValidationError, match="which sampler: occupancy_grid does not place; expected"):
        ModelConfig.model_validate({"foreground": foreground, "background": background})
