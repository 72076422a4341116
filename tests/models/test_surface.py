"""The surface by tracing rays, against the distance to a sphere in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dataio.cameras import Cameras, Rays
from models.fields.base import Field
from models.model import Model, ModelConfig
from models.rendering.frames import render_image
from models.rendering.surface import Surface, intersect
from models.samples import FieldSample, Points
from tests.support.analytic import (
    DENSITY_FIELD,
    FOREGROUND,
    LOGIT_FIELD,
    RADIUS,
    Sphere,
    clip,
    color_at,
    hit_distance,
    rays_at_sphere,
)

OUTSIDE: dict[str, object] = {
    "bounds": "outside",
    "sampler": {"type": "inverse_radius", "samples": 8},
    "field": {"type": "outside", "density": {"layers": 1, "width": 8}},
    "opacity": {"type": "density"},
}


class Steep(Sphere):
    """Values that exaggerate the distance, and bend."""

    def value(self, x: Tensor) -> Tensor:
        f = super().value(x)
        return 1.3 * f + 0.2 * f**2


class Cloud(Field):
    """A density that falls through 10 at the radius; no gradient."""

    features = 3

    def value(self, x: Tensor) -> Tensor:
        return 10 * torch.exp(8 * (RADIUS - x.norm(dim=-1)))

    def forward(self, at: Points) -> FieldSample:
        return FieldSample(self.value(at.x), color_at(at.x))


class Logit(Sphere):
    """Larger inside."""

    def value(self, x: Tensor) -> Tensor:
        return -4 * super().value(x)

    def gradient(self, x: Tensor) -> Tensor:
        return -4 * super().gradient(x)


CASES: dict[str, tuple[dict[str, object], Field]] = {
    "logistic": ({"type": "logistic"}, Sphere()),
    "laplace": ({"type": "laplace"}, Sphere()),
    "not quite a distance": ({"type": "laplace"}, Steep()),
    "occupancy": ({"type": "occupancy"}, Sphere()),
    "logits": ({"type": "occupancy", "scale": 1.0}, Logit()),
    "density": ({"type": "density", "activation": "relu"}, Cloud()),
}


def surface_model(opacity: dict[str, object], field: Field, background: dict[str, object] | None = None) -> Model:
    stand_in = LOGIT_FIELD if isinstance(field, Logit) else DENSITY_FIELD if isinstance(field, Cloud) else {}
    foreground = {**FOREGROUND, "opacity": opacity, **({"field": stand_in} if stand_in else {})}
    config = {"foreground": foreground, "background": background, "background_color": "white"}
    model = Model(ModelConfig.model_validate(config)).eval()
    model.foreground.field = field
    return model


@pytest.mark.parametrize("name", CASES)
def test_hits_color_and_normal_are_those_of_the_sphere(name: str) -> None:
    model = surface_model(*CASES[name])
    rays = rays_at_sphere(3000, spread=1.1)
    hit = hit_distance(rays)
    points = rays.at(hit.float().nan_to_num(posinf=0.0))
    clear = torch.isfinite(hit) & ((points * rays.directions).sum(-1) < -0.02)
    seen = Surface(model)(rays)
    assert clear.sum() > 1000 and (seen.opacity[clear] == 1).all()
    assert (seen.opacity[torch.isinf(hit)] == 0).all()
    assert (seen.depth.double() - hit)[clear].abs().max() < 1e-4
    torch.testing.assert_close(seen.color[clear], color_at(points[clear]), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.normal[clear], points[clear] / RADIUS, atol=2e-3, rtol=0)
    missed = seen.opacity == 0
    assert (seen.color[missed] == 1).all() and (seen.depth[missed] == 0).all() and (seen.normal[missed] == 0).all()


def test_rays_from_within_and_empty_rays_miss() -> None:
    model, rays = surface_model(*CASES["logistic"]), rays_at_sphere(100, spread=0.5)
    within = Rays(rays.origins * 0.1, rays.directions, rays.near, rays.far, rays.camera)
    away = Rays(rays.origins, -rays.directions, rays.near, rays.far, rays.camera)
    for other in (within, away, rays[:0]):
        assert torch.isinf(intersect(clip(other, "sphere"), model.foreground)).all()


def test_what_does_not_converge_is_a_miss() -> None:
    class Jump(Sphere):
        """Never near zero."""

        def value(self, x: Tensor) -> Tensor:
            return torch.where(super().value(x) > 0, 0.5, -0.5)

    model = surface_model({"type": "logistic"}, Jump())
    assert torch.isinf(intersect(clip(rays_at_sphere(50, spread=0.5), "sphere"), model.foreground)).all()


def test_the_background_lies_behind() -> None:
    torch.manual_seed(0)
    model = surface_model({"type": "logistic", "initial_s": 5000.0}, Sphere(), OUTSIDE)
    model.refresh(0)
    rays = rays_at_sphere(300, spread=1.1)
    missed = torch.isinf(hit_distance(rays))
    seen, volume = Surface(model)(rays), model(rays)
    assert missed.any() and (seen.color[missed] - 1).abs().max() > 0.1
    clear = missed & (volume.opacity < 1e-4)
    torch.testing.assert_close(seen.color[clear], volume.color[clear], atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.depth[clear], volume.depth[clear], atol=1e-2, rtol=1e-2)


def test_evaluates_only_rays_on_their_way() -> None:
    """Far fewer evaluations than rays times steps: sphere tracing at most 30 for a ray that is sent at the sphere."""

    class Counted(Sphere):
        asked = 0

        def value(self, x: Tensor) -> Tensor:
            self.asked += x.shape[0]
            return super().value(x)

    field = Counted()
    rays = rays_at_sphere(1000, spread=0.8)
    intersect(clip(rays, "sphere"), surface_model({"type": "logistic"}, field).foreground)
    assert field.asked < 30 * len(rays)


def test_a_wide_step_does_not_jump_over_the_object() -> None:
    """Values of three times the distance: no step is longer than a fifth, and the middle of the object is met."""

    class Threefold(Sphere):
        def value(self, x: Tensor) -> Tensor:
            return 3 * super().value(x)

    rays = rays_at_sphere(200, spread=0.5)
    t = intersect(clip(rays, "sphere"), surface_model({"type": "logistic"}, Threefold()).foreground)
    assert (t.double() - hit_distance(rays)).abs().max() < 1e-4


def test_a_frame_of_the_surface() -> None:
    model = surface_model(*CASES["laplace"]).train()
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2.5]])[None]
    cameras = Cameras.make(pose, [40.0, 40.0, 16.0, 12.0], [32, 24])
    frame = render_image(Surface(model), cameras, 0)
    assert frame.depth.shape == (24, 32) and frame.opacity[12, 16] == 1 and frame.opacity[0, 0] == 0
    assert frame.depth[12, 16].item() == pytest.approx(2.5 - RADIUS, abs=3e-3)
