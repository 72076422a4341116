"""A sphere with an exact sdf, as field and as medium: truth for samplers and for the renderer."""

from __future__ import annotations

import torch
from torch import Tensor

from dataio.cameras import Rays
from models.bounds.base import BoundsConfig
from models.fields.base import Field
from models.model import Model, ModelConfig
from models.opacities.base import Opacity
from models.opacities.logistic import LogisticConfig
from models.samples import FieldSample, Points, RaySamples
from utils.config.parts import discover, parts

for package in ("appearance", "bounds", "encodings", "fields", "inits", "opacities", "samplers"):
    discover(f"models.{package}")

RADIUS = 0.6
FOREGROUND: dict[str, object] = {
    "bounds": "sphere",
    "sampler": {"type": "occupancy_grid", "resolution": 32},
    "field": {"type": "sdf", "geometry": {"layers": 1, "width": 8, "activation": "softplus"}, "features": 3},
    "appearance": {"type": "direct", "activation": "none"},
}

# Fields of other kinds of value, for what is replaced by a closed form or only looked at by its config.
DENSITY_FIELD: dict[str, object] = {"type": "radiance", "density": {"layers": 1, "width": 8}, "features": 3}
LOGIT_FIELD: dict[str, object] = {**FOREGROUND["field"], "type": "occupancy"}  # type: ignore[dict-item]


class Sphere(Field):
    """sdf |x| - radius, colored by position: its features are the colors."""

    features, has_gradient = 3, True

    def value(self, x: Tensor) -> Tensor:
        return x.norm(dim=-1) - RADIUS

    def gradient(self, x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(x, dim=-1)

    def forward(self, at: Points) -> FieldSample:
        return FieldSample(self.value(at.x), color_at(at.x), self.gradient(at.x))


def color_at(x: Tensor) -> Tensor:
    """Smooth colors in [0, 1]."""
    return 0.5 + 0.3 * torch.sin(3 * x)


class SphereMedium:
    """What a sampler may ask, answered by the sphere."""

    def __init__(self, opacity: Opacity) -> None:
        self.opacity, self.field, self.asked = opacity, Sphere(), 0

    def value(self, x: Tensor) -> Tensor:
        self.asked += x.shape[:-1].numel()
        return self.field.value(x)

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        return self.opacity.occupied(value, reach)

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        return self.opacity.estimated_optical_depth(value, samples)

    def surface_value(self, x: Tensor) -> Tensor:
        return (self.value(x) - self.opacity.surface_level) * self.opacity.outside_sign

    @property
    def has_width(self) -> bool:
        return self.opacity.has_width

    def width(self) -> float | None:
        return self.opacity.width()


def sphere_medium(s: float = 200.0) -> SphereMedium:
    return SphereMedium(LogisticConfig(initial_s=s).build())


def sphere_model(s: float = 500.0, sampler: dict[str, object] | None = None) -> Model:
    """A model whose surface is the sphere, its occupancy grid up to date."""
    foreground = {**FOREGROUND, "opacity": {"type": "logistic", "initial_s": s}}
    if sampler:
        foreground["sampler"] = sampler
    model = Model(ModelConfig.model_validate({"foreground": foreground, "background_color": "white"}))
    model.foreground.field = Sphere()
    model.refresh(0)
    return model


def rays_at_sphere(count: int, *, seed: int = 0, distance: float = 2.5, spread: float = 0.9) -> Rays:
    """Rays from a sphere of cameras towards points within `spread` of the center, near 0.05 and far infinite."""
    g = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1) * distance
    targets = (torch.rand(count, 3, generator=g) * 2 - 1) * spread / 3**0.5
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    near, far = torch.full((count,), 0.05), torch.full((count,), torch.inf)
    return Rays(origins, directions, near, far, torch.zeros(count, dtype=torch.long))


def clip(rays: Rays, bounds: str) -> Rays:
    """The piece of each ray within bounds of a type."""
    return parts(BoundsConfig)[bounds]().build().clip(rays)


def hit_distance(rays: Rays) -> Tensor:
    """Distance to the sphere, infinite for a miss; float64."""
    o, d = rays.origins.double(), rays.directions.double()
    middle = -(o * d).sum(-1)
    gap = RADIUS**2 - (o + middle[:, None] * d).square().sum(-1)
    return torch.where(gap > 0, middle - gap.clamp_min(0).sqrt(), torch.inf)
