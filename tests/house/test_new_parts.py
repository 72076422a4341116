"""New parts of every kind: defined here, chosen from a config, no file of ours edited for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

import utils.config.parts
from dataio.batches import PixelSampler
from dataio.cameras import Cameras, Rays
from dataio.pictures.pixel_store import PixelStore
from dataio.selection.base import Chosen, Selection, SelectionConfig
from dataio.selection.permutation import Permutation
from engine import experiment, showing
from engine.build import build_optimizer
from engine.rendering.modes import makable
from engine.rendering.painter import Painter
from models.model import Model, ModelConfig
from models.opacities.base import Opacity, OpacityConfig
from models.optimizers.base import OptimizerConfig
from models.rendering.frames import Seen, Tile, tiles_of
from models.rendering.renderers.base import Mode, Renderer, RendererConfig, Source
from models.samplers.base import Queryable, Sampler, SamplerConfig
from models.samples import DenseSamples, FieldSample, RaySamples
from tests.dataio.test_batches import identity, made_scene
from tests.support.analytic import FOREGROUND, Sphere, color_at, hit_distance, rays_at_sphere
from tests.support.sources import ROOT
from utils.errors import InputError
from utils.paths.base import Floats, MadePath, Photographs
from utils.pictures.sheets import sheet


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


class Compass(Renderer):
    """The color says where a ray goes; nothing is met."""

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        def look(rays: Rays) -> Seen:
            nothing = torch.zeros(len(rays))
            return Seen(depth=nothing, opacity=nothing, color=0.5 + 0.5 * rays.directions)

        return tiles_of(look, cameras, index, coarse=coarse)


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
    with PixelSampler(made_scene(), rays=train.first_rays, seed=0, pixels=train.pixels) as sampler:
        seen = {pixel for _ in range(4) for pixel in identity(next(sampler))}
    assert len(seen) == 40 and sampler.epoch == 1.0  # of 80 pixels


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_toy_optimizer(everywhere: bool) -> None:
    class ToyConfig(OptimizerConfig):
        type: Literal["toy"] = "toy"
        sign: float = -1.0

        def build(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
            return torch.optim.SGD(groups, lr=self.lr, maximize=self.sign > 0)

    part = "optimizer.parts={foreground.opacity: {type: toy, sign: 1, lr: 0.5}, foreground.field.encoding: 1e-2}"
    chosen = ["optimizer.type=toy", "optimizer.betas=null", "optimizer.eps=null"] if everywhere else []
    config = experiment.read_config(ROOT / "configs/neus_hash.yaml", [part, *chosen])
    model = Model(config.model)
    optimizer = build_optimizer(config.optimizer, model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for found, moved in (1.0, 0.0), (0.0, 1.0):
        optimizer.found_inf = torch.tensor(found)
        optimizer.set_rates(1.0, 1.0)
        optimizer.step()
        scale = config.optimizer.schedule(1.0) * moved
        for name, parameter in model.named_parameters():
            rate = 0.5 if name.startswith("foreground.opacity") else -config.optimizer.of_part(None).lr
            if everywhere or rate > 0:
                own = config.optimizer.parts.get("foreground.field.encoding", 0)
                rate = -float(own) if "field.encoding" in name and isinstance(own, float) and own else rate
                torch.testing.assert_close(parameter.detach(), before[name] + rate * scale, atol=1e-7, rtol=1e-5)


def test_a_toy_renderer() -> None:
    class CompassConfig(RendererConfig):
        type: Literal["toy_compass"] = "toy_compass"

        @property
        def modes(self) -> tuple[Mode, ...]:
            return ("rgb",)

        def build(self, source: Source) -> Renderer:
            return Compass()

    config = showing.read_renderer("toy_compass")
    assert makable(config, None) == ("rgb",)
    with pytest.raises(InputError, match="toy_compass makes no depth - expected some of rgb"):
        makable(config, ("rgb", "depth"))
    cameras = Cameras.make(torch.eye(4)[None].repeat(2, 1, 1), [10.0, 10.0, 4.5, 3.5], [9, 7])
    source = Source(Path("nowhere"), torch.device("cpu"), cameras, np.eye(4), np.array([0.0, 0.0, 1.0]))
    painted = Painter({None: config.build(source)}, cameras, ("rgb",))(1)
    picture = sheet(painted.panels, columns=1)
    assert picture.shape == (7, 9, 3)
    assert picture[3, 4].tolist() == [128, 128, 255], "the middle pixel looks along z"


def test_a_toy_path() -> None:
    class StandPath(MadePath):
        type: Literal["toy_stand"] = "toy_stand"
        height: float = 0.0

        def poses(self, shot: Photographs, frames: int) -> Floats:
            stand = shot.training[0].copy()
            stand[:, 3] += self.height * shot.up
            return np.repeat(stand[None], frames, axis=0)

    poses = np.tile(np.eye(4)[:3], (3, 1, 1))
    shot = Photographs(poses, np.ones((3, 4)), np.full((3, 2), 9), np.array([0.0, 0.0, 1.0]))
    found = showing.read_path("{type: toy_stand, height: 2}").cameras(shot, 5)
    assert found.camera_to_world[:, :, 3].tolist() == [[0.0, 0.0, 2.0]] * 5
