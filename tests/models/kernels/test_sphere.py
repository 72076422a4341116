"""Pieces of rays inside and beyond the unit sphere, against the quadratic equation in float64."""

import pytest
import torch

from models.kernels.rays.march import clipped


@pytest.mark.parametrize("count", [0, 1, 37, 3000])
def test_pieces_end_on_the_sphere(count: int, device: torch.device) -> None:
    g = torch.Generator().manual_seed(1)
    origins = torch.randn(count, 3, generator=g) * 1.5
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    near = torch.rand(count, generator=g)
    far = torch.where(torch.rand(count, generator=g) < 0.5, near + 2 * torch.rand(count, generator=g), torch.inf)
    o, d = origins.double(), directions.double()
    b, c = (o * d).sum(-1), (o * o).sum(-1) - 1
    root = (b * b - c).clamp_min(0).sqrt()
    start = torch.maximum(near.double(), -b - root)
    stop = torch.maximum(torch.minimum(far.double(), -b + root), start)
    given = [x.to(device) for x in (origins, directions, near, far)]
    inside, beyond = clipped(*given), clipped(*given, beyond=True)
    clear = (b * b - c).abs() > 1e-3  # where the ray does not graze it
    for found, truth in ((inside[0], start), (inside[1], stop), (beyond[0], torch.maximum(near.double(), -b + root))):
        torch.testing.assert_close(found.cpu().double()[clear], truth[clear], atol=2e-5, rtol=1e-5)
    assert torch.equal(beyond[1].cpu(), far) and bool((inside[1] >= inside[0]).all())
    misses = (b * b - c < -1e-3).to(device)
    assert torch.equal(inside[0][misses], inside[1][misses])


def pieces(o: torch.Tensor, d: torch.Tensor, near: torch.Tensor, far: torch.Tensor) -> list[torch.Tensor]:
    """Inside and beyond, in float64; a direction is brought to unit length, a chord is at least 2e-3 long."""
    d = torch.nn.functional.normalize(d, dim=-1)
    b = (o * d).sum(-1)
    chord = b * b - (o * o).sum(-1) + 1
    root = torch.where(chord > 0, chord.clamp_min(1e-6).sqrt(), 0.0)
    begin, end = torch.maximum(near, -b - root), torch.minimum(far, -b + root)
    return [begin, torch.maximum(end, begin), torch.maximum(near, -b + root), far]


@pytest.mark.parametrize("wanted", range(4))
def test_the_ends_move_with_rays_where_the_sphere_bounds_them(wanted: int, device: torch.device) -> None:
    g = torch.Generator().manual_seed(4)
    origins, along = torch.randn(2000, 3, generator=g) * 1.5, torch.randn(2000, 3, generator=g)
    directions = torch.nn.functional.normalize(along, dim=-1)
    near, far = torch.rand(2, 2000, generator=g) * torch.tensor([[1.0], [3.0]])
    given = origins, directions, near, far
    exact, mine = ([x.to(to).requires_grad_() for x in given] for to in (torch.float64, device))
    found = [*clipped(*mine), *clipped(*mine, beyond=True)][wanted]
    truth = pieces(*exact)[wanted]
    pairs = (found, mine), (truth, exact)
    got, grads = (torch.autograd.grad(x.sum(), leaves, allow_unused=True) for x, leaves in pairs)
    o, d = origins.double(), directions.double()
    b = (o * d).sum(-1)
    clear = (b * b - (o * o).sum(-1) + 1).abs() > 1e-2
    for k, (a, true) in enumerate(zip(got, grads, strict=True)):
        a, true = a.cpu().double(), torch.zeros_like(exact[k]) if true is None else true
        if k == 1:  # along the ray itself a direction does not move
            a = a - (a * d).sum(-1, keepdim=True) * d
        torch.testing.assert_close(a[clear], true[clear], atol=2e-4, rtol=2e-3)


def test_a_ray_that_grazes_the_sphere_has_finite_derivatives(device: torch.device) -> None:
    origins = torch.tensor([[1.0, 0.0, -3.0], [1.0 - 1e-7, 0.0, -3.0]], device=device, requires_grad=True)
    directions = torch.tensor([[0.0, 0.0, 1.0]] * 2, device=device, requires_grad=True)
    near, far = torch.zeros(2, device=device), torch.full((2,), torch.inf, device=device)
    for beyond in (False, True):
        ends = clipped(origins, directions, near, far, beyond=beyond)
        grads = torch.autograd.grad(ends[0].sum() + ends[1].clamp_max(9).sum(), [origins, directions])
        assert all(bool(x.isfinite().all()) for x in grads)
