"""A new opacity, sampler and choice of pixels: defined here, used from a config, no file of ours edited for them."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

import utils.config.parts
from dataio.batches import PixelSampler
from dataio.cameras import Rays
from dataio.pictures.pixel_store import PixelStore
from dataio.selection.base import Chosen, Selection, SelectionConfig
from dataio.selection.permutation import Permutation
from engine import experiment
from models.model import Model, ModelConfig
from models.opacities.base import Opacity, OpacityConfig
from models.samplers.base import Queryable, Sampler, SamplerConfig
from models.samples import DenseSamples, FieldSample, RaySamples
from tests.dataio.test_batches import identity, made_scene
from tests.support.analytic import FOREGROUND, Sphere, color_at, hit_distance, rays_at_sphere
from tests.support.sources import ROOT


class Wall(Opacity):
    """Opaque inside, empty outside."""

    surface_level, outside_sign = 0.0, 1.0

    def optical_depth(self, sample: FieldSample, samples: RaySamples) -> Tensor:
        return (sample.value < 0) * 1e3 * samples.length


class Thirds(Sampler):
    """Three hundred intervals, each third of the ray in a hundred."""

    def forward(self, rays: Rays, medium: Queryable) -> DenseSamples:
        share = torch.linspace(0, 1, 301)
        return DenseSamples.from_edges(rays, torch.lerp(rays.near[:, None], rays.far[:, None], share))


class Evens(Selection):
    """Pixels of even numbers."""

    def choose(self, first: int) -> Chosen:
        return Chosen(2 * self.upcoming(first))


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = utils.config.parts._registry
    monkeypatch.setattr(utils.config.parts, "_registry", {kind: dict(of) for kind, of in registry.items()})


def test_toys() -> None:
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


def test_a_toy_choice_of_pixels() -> None:
    class EvensConfig(SelectionConfig):
        type: Literal["toy_evens"] = "toy_evens"

        def build(self, store: PixelStore, *, rays: int, seed: int) -> Selection:
            return Evens(Permutation(len(store) // 2, seed), rays)

    overrides = ["train.pixels.type=toy_evens", "train.rays=10"]
    train = experiment.read_config(ROOT / "configs/neus_hash.yaml", overrides).train
    with PixelSampler(made_scene(), rays=train.rays, seed=0, pixels=train.pixels) as sampler:
        seen = {pixel for _ in range(4) for pixel in identity(next(sampler))}
    assert len(seen) == 40 and sampler.epoch == 1.0  # of 80 pixels
