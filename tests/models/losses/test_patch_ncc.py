"""The comparison of patches across photographs, on a ball whose photographs are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dataio.batches import RayBatch
from dataio.cameras import Rays
from dataio.scene import Scene
from dataio.source_views import SourceViews
from models.losses.base import Step
from models.losses.patch_ncc import PatchNccLoss, lies_on, on_patches, surface_at, unhidden
from models.model import Model
from tests.support.analytic import Sphere, sphere_model
from tests.support.textured_ball import RADIUS, scene_of_ball

COUNT = 24


class Shifted(Sphere):
    """A sphere whose center and radius are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.center, self.grown = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(()))

    def value(self, x: Tensor) -> Tensor:
        return (x - self.center).norm(dim=-1) - RADIUS - self.grown

    def gradient(self, x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(x - self.center, dim=-1)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return scene_of_ball(COUNT, 128)


def shifted() -> tuple[Model, Shifted]:
    model, field = sphere_model(s=2000.0), Shifted()
    model.foreground.field = field
    return model, field


def step_of(model: Model, scene: Scene, count: int = 600) -> Step:
    """One of many rays from all views, near the middles of their pictures."""
    pixels = 64 + 16 * (2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) - 1)
    rays = scene.cameras.rays(torch.arange(count) % COUNT, pixels)
    color = torch.zeros(count, 3)
    return Step(model.render(rays), RayBatch(rays, color, None), model, SourceViews(scene, "cpu", least=4))


def cost(scene: Scene, change: Callable[[Shifted], object], **keys: Any) -> tuple[Tensor, Shifted]:
    torch.manual_seed(0)
    model, field = shifted()
    with torch.no_grad():
        change(field)
        model.refresh(16)
    return PatchNccLoss(points=600, sources=4, **keys)(step_of(model, scene)), field


def grow(by: float) -> Callable[[Shifted], object]:
    return lambda field: field.grown.add_(by)


def test_patches_agree_on_the_true_surface_alone(scene: Scene) -> None:
    right, near, far = (cost(scene, grow(by))[0].item() for by in (0.0, 0.01, 0.03))
    assert right < 0.08 and right < 0.6 * near < near < far
    assert cost(scene, grow(-0.02))[0].item() > 2 * right


@pytest.mark.parametrize("by", [0.01, -0.01])
def test_its_gradient_leads_to_the_true_surface(scene: Scene, by: float) -> None:
    found, field = cost(scene, grow(by))
    found.backward()
    assert field.grown.grad is not None
    assert field.grown.grad.sign() == torch.tensor(by).sign()
    # As differences say, at fixed choices of points and sources; both change a little with the surface.
    step = 2e-3
    apart = cost(scene, grow(by + step))[0] - cost(scene, grow(by - step))[0]
    assert field.grown.grad.item() == pytest.approx(apart.item() / (2 * step), rel=0.4)


def rays_at_ball() -> Rays:
    origin = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1) * 2
    one = torch.ones(50)
    return Rays(origin, -origin / 2, 0 * one, 9 * one, torch.zeros(50, dtype=torch.long))


def test_distances_on_rays_are_zeros_of_the_sdf(scene: Scene) -> None:
    model, _ = shifted()
    rays = scene.cameras.rays(torch.arange(COUNT), 64 + 10 * (2 * torch.rand(COUNT, 2) - 1))
    along = rays.origins.norm(dim=-1) - RADIUS + 0.02 * (2 * torch.rand(COUNT) - 1)
    distance, sound = on_patches(model, SourceViews(scene, "cpu"), rays, along, side=7, flatness=0.2)
    assert bool(sound.all())
    torch.testing.assert_close(rays.at(distance).norm(dim=-1), torch.full((COUNT,), RADIUS), atol=1e-4, rtol=0)


def test_a_surface_that_grows_moves_along_its_normals() -> None:
    model, field = shifted()
    rays = rays_at_ball()
    normal, shift = surface_at(model, rays, torch.full((50,), 2 - RADIUS))
    torch.testing.assert_close(normal, rays.origins / 2, atol=1e-4, rtol=0)
    assert not shift.any()
    (by_radius,) = torch.autograd.grad(shift.sum(), field.grown)
    assert by_radius.item() == pytest.approx(50)  # toward the cameras, by as much


def test_a_view_on_the_other_side_does_not_see_a_point(scene: Scene) -> None:
    model, _ = shifted()
    views = SourceViews(scene, "cpu", least=1)
    center = scene.cameras.centers[:1]
    point = RADIUS * torch.nn.functional.normalize(center, dim=-1) * 1.001
    seen = unhidden(model, views, point, torch.tensor([[0, 1, COUNT // 2]]))
    assert seen.tolist() == [[True, True, False]]


def test_a_patch_that_reaches_over_the_edge_does_not_lie_on_the_surface() -> None:
    """Patches across the pole: a small one lies on the ball, a large one and one off it do not."""
    model, _ = shifted()
    reach = torch.linspace(-1, 1, 3)
    square = torch.cartesian_prod(reach, reach)
    square = torch.column_stack([square, torch.zeros(9)])
    pole = torch.tensor([0.0, 0.0, RADIUS])
    patches = torch.stack([pole + 0.05 * square, pole + 0.4 * square, pole + 0.05 * square + 0.05])
    assert lies_on(model.foreground.value(patches), patches, 0.2).tolist() == [True, False, False]


def test_a_plain_picture_says_nothing(scene: Scene) -> None:
    model, _ = shifted()
    step = step_of(model, scene)
    assert step.views is not None
    step.views._pixels = torch.full_like(step.views._pixels, 128)  # the scene has the others
    assert PatchNccLoss(points=100, sources=4)(step).item() == 0


def test_no_rays_are_no_error(scene: Scene) -> None:
    model, _ = shifted()
    assert PatchNccLoss(sources=4)(step_of(model, scene, 0)).item() == 0


def test_patches_have_a_middle_and_enough_sources() -> None:
    for keys, said in (({"side": 8}, "got 8; expected an odd"), ({"best": 7}, "got 7 of 6 sources")):
        with pytest.raises(ValueError, match=said):
            PatchNccLoss(**keys)


def test_no_patch_costs_more_than_the_cap(scene: Scene) -> None:
    plain, capped = (cost(scene, grow(0.03), cap=cap)[0].item() for cap in (2.0, 0.1))
    assert 0.05 < capped <= 0.1 < plain
