"""Rays through a lattice of values, against the sphere and against a plain walk along each ray."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dataio.cameras import Cameras
from models.kernels.rays.trace import trace
from models.rendering.baked import Baked, bake, render_depth
from models.rendering.frames import render_image
from models.rendering.surface import Surface
from tests.models.test_surface import CASES, surface_model
from tests.support.analytic import RADIUS, clip, hit_distance, rays_at_sphere

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def sphere_values(count: int = 96) -> Tensor:
    axis = torch.linspace(-1, 1, count)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).norm(dim=-1) - RADIUS


def walked(values: Tensor, rays, step: float) -> Tensor:
    """The twin in plain torch: even steps by `grid_sample`, then thirty bisections."""

    def value(t: Tensor) -> Tensor:
        grid = rays.at(t).flip(-1)[None, None, None]  # grid_sample wants z, y, x
        read = torch.nn.functional.grid_sample(
            values[None, None], grid, align_corners=True, mode="bilinear", padding_mode="border"
        )
        return read[0, 0, 0, 0]

    count = int(2 / step) + 2
    ts = torch.stack([torch.minimum(rays.near + k * step, rays.far) for k in range(count)])
    found = torch.stack([value(t) for t in ts])
    enters = (found[:-1] > 0) & (found[1:] <= 0)
    first = enters.int().argmax(0)[None]
    low, high = ts.gather(0, first)[0], ts.gather(0, first + 1)[0]
    for _ in range(30):
        middle = (low + high) / 2
        outside = value(middle) > 0
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    return torch.where(enters.any(0), low, torch.inf)


def traced(values: Tensor, rays, *, trust: float = 1.0, least: float = 0.01) -> Tensor:
    return trace(
        rays.origins, rays.directions, near=rays.near, far=rays.far, values=values, trust=trust, least=least
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_agrees_with_a_plain_walk(device: str, trust: float) -> None:
    """Where values are no distances the steps are the walk's own; random values, so that rays meet often."""
    g = torch.Generator().manual_seed(0)
    values = torch.randn(12, 12, 12, generator=g) if trust == 0 else sphere_values()
    rays = clip(rays_at_sphere(500, spread=1.0), "sphere").to(device)
    found, truth = traced(values.to(device), rays, trust=trust, least=0.01).cpu(), walked(values, rays.to("cpu"), 0.01)
    agree = torch.isinf(found) == torch.isinf(truth)
    assert agree.float().mean() > 0.995
    both = torch.isfinite(found) & torch.isfinite(truth)
    close = (found - truth)[both].abs() < 1e-4
    assert both.sum() > 300 and close.float().mean() > 0.99


def test_the_sphere_is_met_within_a_tenth_of_a_cell() -> None:
    rays = clip(rays_at_sphere(2000, spread=1.0), "sphere")
    hit, found = hit_distance(rays), traced(sphere_values(), rays)
    slope = -(rays.at(hit.float().nan_to_num(posinf=0.0)) * rays.directions).sum(-1) / RADIUS
    clear = torch.isfinite(hit) & (slope > 0.2)
    assert torch.isfinite(found[clear]).all()
    assert ((found.double() - hit)[clear].abs() * slope[clear]).max() < 0.1 * 2 / 95


def test_empty_rays_rays_from_within_and_no_rays() -> None:
    rays = rays_at_sphere(50, spread=0.5)
    values = sphere_values(32)
    assert len(traced(values, rays[:0])) == 0
    empty = clip(rays, "sphere")
    empty.far.copy_(empty.near)
    assert torch.isinf(traced(values, empty)).all()
    within = clip(rays, "sphere")
    within.near.add_(1.5)
    assert torch.isinf(traced(values, within)).all()


@pytest.mark.parametrize("name", ["logistic", "density"])
def test_a_baked_frame_is_that_of_the_surface(name: str) -> None:
    model = surface_model(*CASES[name])
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2.5]])[None]
    cameras = Cameras.make(pose, [160.0, 160.0, 64.0, 48.0], [128, 96])
    baked = bake(model.foreground, 96)
    assert isinstance(baked, Baked) and baked.trust == (name == "logistic")
    frame, truth = render_depth(baked, cameras, 0), render_image(Surface(model), cameras, 0)
    both = (frame.opacity > 0) & (truth.opacity > 0)
    assert (frame.opacity != truth.opacity).float().mean() < 0.01 and both.any()
    assert (frame.depth - truth.depth)[both].abs().median() < 0.25 * 2 / 95
    assert frame.color.shape == (96, 128, 3) and (frame.depth[frame.opacity == 0] == 0).all()
