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
