"""A new opacity and a new sampler: defined here, used from a config, no file of ours edited for them."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

import utils.parts
from dataio.cameras import Rays
from models.model import Model, ModelConfig
from models.opacity import Opacity, OpacityConfig
from models.samplers.base import Probed, Sampler, SamplerConfig
from models.samples import DenseSamples, FieldSample, RaySamples
from tests.analytic import FOREGROUND, Sphere, color_at, hit_distance, rays_at_sphere


class Wall(Opacity):
    """Opaque inside, empty outside."""

    surface_level, outside_sign = 0.0, 1.0

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        return (sample.value < 0) * 1e3 * samples.length


class Thirds(Sampler):
    """Three hundred intervals, each third of the ray in a hundred."""

    def forward(self, rays: Rays, medium: Probed) -> DenseSamples:
        share = torch.linspace(0, 1, 301)
        return DenseSamples.from_edges(rays, torch.lerp(rays.near[:, None], rays.far[:, None], share))


def test_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.parts, "_registry", {kind: dict(of) for kind, of in utils.parts._registry.items()})

    class WallConfig(OpacityConfig):
        type: Literal["toy_wall"] = "toy_wall"

        def build(self) -> Opacity:
            return Wall()

    class ThirdsConfig(SamplerConfig):
        type: Literal["toy_thirds"] = "toy_thirds"

        def build(self) -> Sampler:
            return Thirds()

    foreground = {**FOREGROUND, "sampler": {"type": "toy_thirds"}, "opacity": {"type": "toy_wall"}}
    model = Model(ModelConfig.model_validate({"foreground": foreground}))
    model.foreground.field = Sphere()
    model.update(0.5)
    model.refresh(0)
    rays = rays_at_sphere(100, spread=0.5)
    seen, hit = model(rays), hit_distance(rays).float()
    torch.testing.assert_close(seen.depth, hit, atol=0.02, rtol=0)
    torch.testing.assert_close(seen.color, color_at(rays.at(hit)), atol=0.03, rtol=0)
