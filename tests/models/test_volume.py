"""The renderer against closed forms: a sphere, layers of known depth, dense against packed."""

import pytest
import torch

from dataio.cameras import Cameras, Rays
from models.kernels.rays.packed import compact
from models.model import render_rays
from models.rendering.frames import render_image
from models.samples import DenseSamples, FieldSample, MediumRendering, PackedSamples
from tests.support.analytic import RADIUS, clip, color_at, hit_distance, rays_at_sphere, sphere_model


@pytest.mark.parametrize(
    "sampler",
    [{"type": "occupancy_grid", "resolution": 32, "step": [0.004, 0.01]}, {"type": "neus"}],
    ids=["packed", "dense"],
)
def test_a_sharp_sphere_looks_like_the_surface(sampler: dict[str, object]) -> None:
    model = sphere_model(s=2000.0, sampler=sampler).eval()
    rays = rays_at_sphere(400)
    hit = hit_distance(rays).float()
    seen = model(rays)
    inside = (hit < 1e3) & ((rays.at(hit.nan_to_num(posinf=0.0)) * rays.directions).sum(-1) < -0.15)
    outside = torch.isinf(hit) & (rays_gap(rays) > 0.02)
    assert inside.sum() > 100 and outside.sum() > 30
    points = rays.at(hit)[inside]
    torch.testing.assert_close(seen.depth[inside], hit[inside], atol=4e-3, rtol=0)
    torch.testing.assert_close(seen.color[inside], color_at(points), atol=0.02, rtol=0)
    torch.testing.assert_close(seen.normal[inside], points / RADIUS, atol=0.03, rtol=0)
    assert (seen.opacity[inside] > 0.99).all() and (seen.opacity[outside] < 0.01).all()
    torch.testing.assert_close(seen.color[outside], torch.ones_like(seen.color[outside]), atol=0.01, rtol=0)
    assert (seen.depth[outside] == 0).all()


def rays_gap(rays: Rays) -> torch.Tensor:
    """How far the ray passes from the sphere."""
    middle = -(rays.origins * rays.directions).sum(-1)
    return (rays.origins + middle[:, None] * rays.directions).norm(dim=-1) - RADIUS


def layered(counts: list[int]) -> tuple[Rays, PackedSamples, torch.Tensor, torch.Tensor]:
    """Rays with `counts` unit intervals of random optical depth and color."""
    g = torch.Generator().manual_seed(0)
    rays = rays_at_sphere(len(counts))
    offsets = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    starts = torch.arange(len(index), dtype=torch.float32) - offsets[index]
    samples = PackedSamples.from_intervals(rays, starts, starts + 1.0, ray_index=index, offsets=offsets)
    return rays, samples, torch.rand(len(index), generator=g), torch.rand(len(index), 3, generator=g)


def test_compositing_against_the_papers_product() -> None:
    """sum_i prod_{j<i} (1 - alpha_j) alpha_i c_i, ray by ray in float64; gradients too."""
    _, samples, tau, color = layered([3, 0, 5, 1])
    tau.requires_grad_()
    part = MediumRendering(samples, FieldSample(tau, color), color, tau)
    got = samples.total(part.weight()[:, None] * color)
    expected = []
    reference = tau.detach().double().requires_grad_()
    for a, b in zip(samples.offsets[:-1].tolist(), samples.offsets[1:].tolist(), strict=True):
        through, total = torch.ones((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for i in range(a, b):
            alpha = 1 - torch.exp(-reference[i])
            total = total + through * alpha * color[i].double()
            through = through * (1 - alpha)
        expected.append(total)
    truth = torch.stack(expected)
    torch.testing.assert_close(got.double(), truth, atol=1e-6, rtol=1e-6)
    weights = torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    mine = torch.autograd.grad((got * weights).sum(), tau)[0]
    torch.testing.assert_close(
        mine.double(), torch.autograd.grad((truth * weights.double()).sum(), reference)[0], atol=1e-6, rtol=1e-5
    )


def test_dense_and_packed_agree() -> None:
    rays, packed, tau, color = layered([4] * 6)
    dense = DenseSamples.from_edges(rays, torch.arange(5.0).expand(6, 5))
    one = MediumRendering(packed, FieldSample(tau, color), color, tau)
    two = MediumRendering(dense, FieldSample(tau.view(6, 4), color.view(6, 4, 3)), color.view(6, 4, 3), tau.view(6, 4))
    torch.testing.assert_close(one.weight(), two.weight().flatten())
    torch.testing.assert_close(packed.total(color), dense.total(color.view(6, 4, 3)))
    torch.testing.assert_close(packed.positions, dense.positions.reshape(-1, 3))
    torch.testing.assert_close(packed.preceding(tau), dense.preceding(tau.view(6, 4)).flatten())
    index, offsets, _ = compact(tau > 0.5, packed.offsets)
    kept = packed.at(index, offsets)
    torch.testing.assert_close(kept.total(tau[tau > 0.5]), (tau * (tau > 0.5)).view(6, 4).sum(1))


def test_a_second_medium_adds_behind_the_first() -> None:
    """A background behind the sphere gives every ray that passes its color, and no other."""
    model = sphere_model(s=2000.0).eval()
    rays = rays_at_sphere(200)
    front = model(rays)
    behind = render_rays(rays, [model.foreground, Fog()], torch.zeros(3))
    through = 1 - front.opacity
    fog = torch.tensor([0.2, 0.4, 0.6])
    only = front.color - through[:, None] * model.background_color
    torch.testing.assert_close(behind.color, only + through[:, None] * fog, atol=2e-3, rtol=0)
    assert len(behind.media[1].tau) == int((through > 1e-3).sum())
    assert len(front.color) == len(behind.color)


class Fog(torch.nn.Module):
    """A medium of one opaque interval of one color."""

    def forward(self, rays: Rays) -> MediumRendering:
        edges = torch.tensor([5.0, 6.0]).expand(len(rays), 2)
        samples = DenseSamples.from_edges(rays, edges)
        color = torch.tensor([0.2, 0.4, 0.6]).expand(len(rays), 1, 3)
        tau = torch.full((len(rays), 1), 20.0)
        return MediumRendering(samples, FieldSample(tau, color), color, tau)


def test_bounds() -> None:
    rays = rays_at_sphere(100, spread=1.5)
    inside, outside = clip(rays, "sphere"), clip(rays, "outside")
    hit = inside.far > inside.near
    assert hit.any() and not hit.all()
    torch.testing.assert_close(inside.at(inside.near)[hit].norm(dim=-1), torch.ones(int(hit.sum())), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.far[hit], outside.near[hit])
    assert torch.isinf(outside.far).all()
    within = Rays(rays.origins * 0.1, rays.directions, rays.near, rays.far, rays.camera)
    assert (clip(within, "sphere").near == 0.05).all()


def test_an_image_does_not_depend_on_its_chunks() -> None:
    model = sphere_model(s=300.0)
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2.5]])[None]
    cameras = Cameras.make(pose, [40.0, 40.0, 16.0, 12.0], [32, 24])
    whole = render_image(model, cameras, 0)
    pieces = render_image(model, cameras, 0, samples=500)
    assert whole.color.shape == (24, 32, 3) and whole.depth.shape == (24, 32)
    for name in ("color", "depth", "normal", "opacity"):
        torch.testing.assert_close(getattr(whole, name), getattr(pieces, name))
    assert whole.opacity[12, 16] > 0.99 and whole.opacity[0, 0] < 0.01
    assert whole.normal[12, 16, 2] < -0.95
    assert model.training


def test_a_chunk_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image from a GPU with room for 300 rays; an error where there is room for none."""
    model = sphere_model(s=300.0)
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2.5]])[None]
    cameras = Cameras.make(pose, [40.0, 40.0, 16.0, 12.0], [32, 24])
    whole, forward, room = render_image(model, cameras, 0), model.forward, 300

    def crowded(rays: Rays) -> object:
        if len(rays) > room:
            raise torch.OutOfMemoryError("no room")
        return forward(rays)

    monkeypatch.setattr(model, "forward", crowded)
    torch.testing.assert_close(render_image(model, cameras, 0).color, whole.color)
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        render_image(model, cameras, 0)
