"""The gradient of rendered colors in a camera's pose, against differences of renderings at fixed sample distances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dataio.cameras import Cameras, Rays
from engine.experiment import read_config
from models.model import Model
from models.samples import DenseSamples, PackedSamples, RaySamples
from models.volume import Medium

FIELD, COLOR = "model.foreground.field", "model.foreground.appearance.network"
GRID = f"{FIELD}.encoding={{type: hash_grid, levels: 4, base: 4, top: 40, log2_rows: 12, initial: 0.1}}"
# Published networks in small: those wider than 128 go through torch's products, the others through a kernel.
SMALL = [f"{FIELD}.encoding.levels=4", f"{FIELD}.geometry={{layers: 3, width: 144, skip: [2]}}", f"{FIELD}.features=30",
         f"{COLOR}={{layers: 2, width: 144}}"]  # fmt: skip
NEUS = [*SMALL, "model.foreground.sampler={uniform: 16, rounds: 2, per_round: 8}",
        "model.foreground.opacity.initial_s=20"]  # fmt: skip
OUTSIDE = ["model.background.field={features: 30, encoding: {levels: 4}, density: {layers: 2, width: 64, skip: []}}",
           "model.background.sampler.samples=8"]  # fmt: skip
HASH = [GRID, f"{FIELD}.feature_scale=1", "model.foreground.sampler.resolution=16"]
CASES = {
    "neus": [*NEUS, "model.background=null"],
    "neus, both media": [*NEUS, *OUTSIDE],
    "neus_nerfpp": [*NEUS, *OUTSIDE],
    "volsdf": [*SMALL, f"{FIELD}.geometry.width=64", f"{COLOR}.width=64"],
    "volsdf, linear intervals": [*SMALL, "model.foreground.opacity.interval=linear"],
    "nerf": [f"{FIELD}={{initial_value: 1, encoding: {{levels: 5}}, density: {{layers: 3, skip: []}}}}",
             "model.foreground.sampler={coarse: 24, fine: 24}"],
    "neus_hash": HASH,
    "neus_hash, gradient by differences": [*HASH, f"{FIELD}.numerical={{taps: 4, step: 0.03}}"],
    "nerf_hash": HASH[:1] + HASH[2:],
}  # fmt: skip


class Frozen(nn.Module):
    """A sampler that gives the samples it was made with, of other rays."""

    def __init__(self, samples: RaySamples) -> None:
        super().__init__()
        self.samples = samples

    def forward(self, rays: Rays, medium: Medium) -> RaySamples:
        return replace(self.samples, rays=rays)


@contextmanager
def frozen(model: Model, samples: list[RaySamples]) -> Iterator[None]:
    """Within, the model samples at these distances, whatever the rays are."""
    samplers = [medium.sampler for medium in model.media]
    for medium, found in zip(model.media, samples, strict=True):
        medium.sampler = Frozen(found)  # type: ignore[assignment]
    yield
    for medium, sampler in zip(model.media, samplers, strict=True):
        medium.sampler = sampler


def made(name: str) -> Model:
    torch.manual_seed(3)
    config = read_config(f"configs/{name.split(',')[0]}.yaml", CASES[name])
    model = Model(config.model).eval()
    model.update(0.1)
    with torch.no_grad():  # a random color network is nearly gray
        for medium in model.media:
            for layer in medium.appearance.network.linears():  # type: ignore[union-attr, operator]
                layer.set(2 * layer.weight(), layer.bias)
    return model


def seen(pose: Tensor) -> Rays:
    """Rays of a camera before the object, turned and moved by pose [6]: rotation vector and translation."""
    x, y, z = pose[:3].unbind()
    nothing = torch.zeros_like(x)
    turn = torch.linalg.matrix_exp(torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing]).view(3, 3))
    placed = torch.cat([turn, (torch.tensor([0.1, -0.2, -2.0]) + pose[3:])[:, None]], 1)
    cameras = Cameras.make(placed[None], [20.0, 20.0, 8.0, 8.0], [16, 16])
    return cameras.rays(torch.zeros(256, dtype=torch.long), cameras.pixel_grid(0))


def steady(model: Model, samples: RaySamples, poses: list[Tensor]) -> Tensor:
    """[R] which rays have no sample that changes its cell of a grid, where the gradient of a distance jumps."""
    field: Any = model.foreground.field
    sides, taps = field.encoding.resolution, field.taps
    cells = []
    for pose in poses:
        points = replace(samples, rays=seen(pose)).positions
        points = points[:, None] if taps is None else points[:, None] + torch.cat([taps, torch.zeros(1, 3)])
        cells.append(((points[..., None] * 0.5 + 0.5) * sides).floor())
    changes = (torch.stack(cells) != cells[0]).any(0).flatten(1).any(-1).float()
    return samples.total(changes) == 0


@pytest.mark.parametrize("name", CASES)
def test_colors_by_pose(name: str) -> None:
    model, pose = made(name), torch.zeros(6, requires_grad=True)
    step = 1e-4 if "neus_hash" in name else 3e-4
    moved = [way * step * axis for axis in torch.eye(6) for way in (1, -1)]
    rendering = model(seen(pose))
    samples = [part.samples for part in rendering.media]
    assert isinstance(samples[0], PackedSamples if "hash" in name else DenseSamples)
    assert all(not x.requires_grad for part in samples for x in (part.t0, part.t1, part.t, part.length))
    weight = torch.randn(256, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        still = steady(model, samples[0], [torch.zeros(6), *moved]) if "neus_hash" in name else torch.ones(256)
        weight *= still[:, None]
        assert int(still.sum()) > 64, int(still.sum())
    (found,) = torch.autograd.grad((rendering.color * weight).double().sum(), pose)
    with torch.no_grad(), frozen(model, samples):
        torch.testing.assert_close(model(seen(torch.zeros(6))).color, rendering.color.detach(), atol=2e-6, rtol=0)
        colors = [(model(seen(place)).color.double() * weight).sum() for place in moved]
    differences = torch.stack([(a - b) / (2 * step) for a, b in zip(colors[::2], colors[1::2], strict=True)]).float()
    assert float(found.norm()) > 1
    assert float((found - differences).norm() / differences.norm()) <= 1e-2


def test_positions_are_made_anew_where_a_gradient_is_wanted() -> None:
    rays = seen(torch.zeros(6, requires_grad=True))
    t = torch.linspace(1, 2, 256)
    dense = DenseSamples.from_edges(rays, torch.stack([t, t + 1], 1))
    offsets = torch.arange(257, dtype=torch.int32)
    packed = PackedSamples.from_intervals(rays, t, t + 1, ray_index=torch.arange(256), offsets=offsets)
    for samples in (dense, packed):
        with torch.no_grad():
            before = samples.positions, samples.directions
        after = samples.positions, samples.directions
        assert all(b.requires_grad for b in after)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert samples.positions is after[0] and samples.directions is after[1]
        (by_origin,) = torch.autograd.grad(samples.positions.sum() + 0 * samples.directions.sum(), rays.origins)
        assert torch.equal(by_origin, torch.ones(256, 3))


def test_rays_without_a_gradient_cost_no_graph() -> None:
    rays = seen(torch.zeros(6))
    samples = PackedSamples.from_intervals(
        rays, torch.ones(256), torch.ones(256) + 1, ray_index=torch.arange(256), offsets=torch.arange(257).int()
    )
    assert samples.positions.grad_fn is None and samples.directions.grad_fn is None
