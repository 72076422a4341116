"""A surface beyond the unit sphere: its coordinates, its gradient, its start from points, the losses that hold it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataio.shapes.carved import carved_by
from models.bounds.contraction import ContractionConfig, expanded
from models.bounds.outside import OutsideBounds
from models.bounds.sphere import Sphere
from models.encodings.hash_grid import HashGridConfig
from models.fields.outside_sdf import OutsideSdf, OutsideSdfConfig
from models.fields.sdf import Wall
from models.losses.background_points import BackgroundPointsLoss
from models.losses.eikonal import EikonalLoss
from models.networks.mlp import MlpConfig
from models.opacities.laplace import LaplaceConfig
from models.samplers.inverse_radius import InverseRadiusConfig
from models.samples import Points
from tests.dataio.test_sparse_points import seen_from_around
from tests.models.losses.test_losses import batch
from tests.models.losses.test_points import directions, radial
from tests.models.losses.test_points import step as step_of
from tests.support.analytic import rays_at_sphere

WALL = 2.0  # radius of the wall around everything
AT = 1 - 0.5 / WALL  # of the same, contracted


def field(**config: Any) -> OutsideSdf:
    torch.manual_seed(0)
    encoding = HashGridConfig(levels=4, top=64, log2_rows=10, initial=0.05)
    geometry = MlpConfig(layers=2, width=32, activation="softplus")
    built = OutsideSdfConfig(encoding=encoding, geometry=geometry, features=4, feature_scale=1.0, **config).build()
    built.reset_parameters()
    return built


def beyond(count: int) -> Tensor:
    return directions(count) * (1.05 + 4 * torch.rand(count, 1, generator=torch.Generator().manual_seed(1)))


def test_the_inverse_of_the_contraction() -> None:
    x = torch.randn(500, 3, dtype=torch.float64) * 3
    torch.testing.assert_close(expanded(ContractionConfig().build().contract(x)), x)
    assert expanded(torch.tensor([[0.0, 0.0, 1.0], [0.9, 0.9, 0.9]])).isfinite().all()


def test_it_is_the_distance_of_the_contracted_point() -> None:
    surface, x = field(radius=AT), beyond(200)
    found = surface(Points(x, -directions(200)))
    torch.testing.assert_close(found.value, surface.value(x))
    assert found.gradient is None and found.features.shape == (200, 4)
    on_sphere = surface.value(directions(9))
    torch.testing.assert_close(surface.value(0.1 * directions(9)), on_sphere)  # moved onto it


@pytest.mark.parametrize("learned", [1.0, -1.0])
def test_a_wall_ends_every_ray_whatever_is_learned(learned: float) -> None:
    """No ray goes on behind the wall, however wide the opacity; what is nearer is as it was learned."""
    surface = field(radius=AT, wall=Wall(radius=0.985, slope=20))
    plain = field(radius=AT)
    with torch.no_grad():
        for each in (surface, plain):
            each.geometry.linears()[-1].bias[0] += 100 * learned
    x = directions(200) * torch.logspace(0.01, 3, 200)[:, None]
    size = 1 - 0.5 / x.norm(dim=-1)
    found = surface(Points(x, -directions(200))).value
    torch.testing.assert_close(found, surface.value(x))
    if learned < 0:
        assert (found < -90).all()
        return
    torch.testing.assert_close(found, 20 * (0.985 - size))
    torch.testing.assert_close(surface.own_gradient(x), plain.own_gradient(x))
    opacity = LaplaceConfig(initial_beta=0.02).build()
    sampler = InverseRadiusConfig(samples=12, coarse=32).build().eval()
    rays = OutsideBounds().clip(rays_at_sphere(40))
    medium: Any = SimpleNamespace(
        value=surface.value, estimated_optical_depth=lambda v, samples: opacity.density(v) * samples.length
    )
    with torch.no_grad():
        samples = sampler(rays, medium)
        depth = opacity.density(surface.value(samples.positions)) * samples.length
    assert (depth.sum(1) > 1).all()


def test_its_gradients_against_differences() -> None:
    """In the scene frame, of values; in its own coordinates, of values at expanded points. Within cells of the grid."""
    surface, x = field(radius=AT), beyond(300)
    h = 1e-3
    with torch.no_grad():
        columns = [(surface.value(x + d) - surface.value(x - d)) / (2 * h) for d in torch.eye(3) * h]
        y = ContractionConfig().build().contract(x)
        around = [
            (surface.value(expanded(y + d)) - surface.value(expanded(y - d))) / (2 * h) for d in torch.eye(3) * h
        ]
        for numeric, found in ((columns, surface.gradient(x)), (around, surface.own_gradient(x))):
            off = (torch.stack(numeric, -1) - found).norm(dim=-1)
            assert off.median() < 0.02 * found.norm(dim=-1).mean()


def test_points_on_a_wall_around_everything_leave_what_is_behind_it() -> None:
    """Of a wall at twice the radius the half below is measured; above, everything is free, to very far away."""
    out = np.random.default_rng(0).normal(size=(4000, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    out[:, 2] = -np.abs(out[:, 2])
    cameras, points = seen_from_around(WALL * out, out)
    inside = cameras.camera_to_world[:, :, 3].mul_(0.2)  # into the wall, and turned to look outward
    cameras.camera_to_world[:, :, 2].mul_(-1)
    cameras.camera_to_world[:, :, 0].mul_(-1)
    assert inside.norm(dim=-1).max() < 1
    view, point = np.nonzero((cameras.forward.double().numpy()[:, None] * out).sum(-1) > 0.85)
    found = carved_by(cameras, type(points)(points.position, point, view), expanded)
    assert found is not None
    below = directions(600)
    below = below[below[:, 2] < -0.4]
    for size, truth in ((0.6, AT - 0.6), (0.7, AT - 0.7), (0.8, AT - 0.8)):
        torch.testing.assert_close(found(size * below).median(), torch.tensor(truth), atol=0.03, rtol=0)
    above = below * torch.tensor([1.0, 1.0, -1.0])
    assert (found(0.9 * above) > 0).float().mean() > 0.9 and (found(0.995 * above) < 0).all()


def walled(off: float = 0.0) -> Any:
    """A model whose background is the distance to a wall, contracted, and the gradient of the same."""

    def value(x: Tensor) -> Tensor:
        return AT + off - (1 - 0.5 / x.norm(dim=-1).clamp_min(1.0))

    own = SimpleNamespace(own_gradient=lambda x: -torch.nn.functional.normalize(x, dim=-1))
    background = SimpleNamespace(
        bounds=OutsideBounds(), opacity=LaplaceConfig().build(), value=value, field=own, sampler=None
    )
    return SimpleNamespace(foreground=SimpleNamespace(bounds=Sphere()), background=background)


@pytest.mark.parametrize("off", [0.0, 0.001, 0.02, -0.02])
def test_the_surface_is_held_to_points_beyond_the_sphere(off: float) -> None:
    """|off| beyond what a point may be off, shrunk; and where the wall stands before the points, by how much."""
    seen = radial(WALL * directions(300), camera=3.0, doubt=0.016)  # 0.002, contracted
    torch.manual_seed(0)
    found = BackgroundPointsLoss(count=20_000)(step_of(walled(off), seen)).item()
    way = torch.linspace(0, 0.95 * 5.0, 100_000, dtype=torch.float64)
    radius = (way - 3.0).abs()
    value = AT + off - (1 - 0.5 / radius.clamp_min(1))
    before = (2e-3 - value).clamp_min(0)[radius >= 1].mean().item()
    assert found == pytest.approx(max(abs(off) - 0.002, 0) + before, rel=0.03, abs=1e-5)


def test_nothing_stands_between_the_cameras_and_the_sphere() -> None:
    """Cameras behind the wall, points within the sphere: the wall is in the way."""
    torch.manual_seed(0)
    found = BackgroundPointsLoss(count=20_000)(step_of(walled(), radial(0.5 * directions(300), camera=4.0))).item()
    radius = torch.linspace(1, 4, 100_000, dtype=torch.float64)
    truth = (2e-3 - AT + (1 - 0.5 / radius)).clamp_min(0).mean().item()
    assert found == pytest.approx(truth, rel=0.03)


def test_the_eikonal_loss_asks_the_background_too() -> None:
    """A gradient of length two of the background adds one, with and without rays that reach it."""
    plain = SimpleNamespace(
        background=None, random_gradient=lambda count, device: torch.nn.functional.normalize(torch.rand(count, 3))
    )
    model = walled()
    model.random_gradient = plain.random_gradient
    model.background.field.own_gradient = lambda x: 2 * torch.nn.functional.normalize(x, dim=-1)
    loss = EikonalLoss(random_points=64)
    gradient = torch.nn.functional.normalize(torch.rand(3, 3), dim=-1)
    rays = rays_at_sphere(5)
    for reached in (0, 5):
        samples = InverseRadiusConfig(samples=4).build()(OutsideBounds().clip(rays[:reached]), model.background)
        media = [
            SimpleNamespace(
                field=SimpleNamespace(gradient=gradient),
                samples=SimpleNamespace(total=lambda x: x.sum()[None], count=lambda: torch.tensor(3.0)),
            ),
            SimpleNamespace(samples=samples),
        ]
        rendering = SimpleNamespace(media=media, depth=torch.zeros(5))
        step: Any = SimpleNamespace(rendering=rendering, batch=batch(5), model=plain)
        found = [loss(step).item()]
        step.model = model
        found.append(loss(step).item())
        assert found == pytest.approx([0.0, 1.0], abs=1e-5)


def test_samples_go_where_light_is_lost() -> None:
    """A thin wall: of 12 intervals ten edges lie within the coarse interval that holds it; the ends stay."""
    sampler = InverseRadiusConfig(samples=12, coarse=32, reach=1000.0).build().eval()
    rays = OutsideBounds().clip(rays_at_sphere(40))
    wall = SimpleNamespace(
        value=lambda x: x, estimated_optical_depth=lambda x, samples: 1e4 * ((x.norm(dim=-1) - WALL).abs() < 0.1)
    )
    samples: Any = sampler(rays, wall)
    assert samples.t0.shape == (40, 12) and (samples.t1 >= samples.t0).all()
    edges = torch.cat([samples.t0, samples.t1[:, -1:]], 1)
    radius = rays.at(edges).norm(dim=-1)
    assert (((radius - WALL).abs() < 0.3).sum(1) >= 10).all()
    torch.testing.assert_close(radius[:, 0], torch.ones(40), atol=1e-3, rtol=0)
    torch.testing.assert_close(radius[:, -1], torch.full((40,), 1000.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(samples.t0[:, 1:], samples.t1[:, :-1])
