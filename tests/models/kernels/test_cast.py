"""Rays at triangles, against a twin that tries every triangle."""

from __future__ import annotations

import pytest
import torch
import trimesh
from torch import Tensor

from models.kernels.rays.cast import Triangles
from tests.support.analytic import rays_at_sphere

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def tried(vertices: Tensor, faces: Tensor, origins: Tensor, directions: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Moeller and Trumbore (1997) in float64: distance [R] and barycentric coordinates [R, 3]."""
    a, b, c = vertices.double()[faces.long()].unbind(1)
    o, d = origins.double()[:, None], directions.double()[:, None]
    side = torch.cross(d.expand(-1, len(a), 3), (c - a).expand(len(o), -1, 3), dim=-1)
    volume = (side * (b - a)).sum(-1)
    u = ((o - a) * side).sum(-1) / volume
    across = torch.cross(o - a, (b - a).expand(len(o), -1, 3), dim=-1)
    v = (d * across).sum(-1) / volume
    t = ((c - a) * across).sum(-1) / volume
    t = torch.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > near[:, None]), t, torch.inf)
    first = t.min(1)
    share = torch.stack([1 - u - v, u, v], -1)[torch.arange(len(t)), first.indices]
    return first.values, share


def soup(count: int = 40) -> tuple[Tensor, Tensor]:
    """Triangles of all sizes, in each other's way."""
    g = torch.Generator().manual_seed(3)
    return torch.randn(3 * count, 3, generator=g) * 0.4, torch.arange(3 * count, dtype=torch.int32).view(-1, 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("near", [0.05, 2.5])
def test_agrees_with_trying_all(device: str, near: float) -> None:
    vertices, faces = soup()
    rays = rays_at_sphere(2000)
    start = torch.full((2000,), near)
    given = [x.to(device) for x in (rays.origins, rays.directions, start)]
    t, face, share = (x.cpu() for x in Triangles(vertices.to(device), faces.to(device)).cast(*given[:2], near=given[2]))
    truth, true_share = tried(vertices, faces, rays.origins, rays.directions, start)
    agree = torch.isfinite(t) == torch.isfinite(truth)
    assert agree.float().mean() > 0.998  # the others graze an edge
    both = torch.isfinite(t) & torch.isfinite(truth)
    assert both.sum() > 500 and ((t - truth)[both].abs() < 1e-4).float().mean() > 0.998
    same = both & ((t - truth).abs() < 1e-4)
    corners = vertices[faces[face[same].long()].long()]
    torch.testing.assert_close((corners * share[same, :, None]).sum(1), rays.at(t)[same], atol=1e-4, rtol=0)
    assert ((share[same] - true_share[same]).abs() < 1e-2).float().mean() > 0.99
    assert (face[~torch.isfinite(t)] == -1).all() and (share[~torch.isfinite(t)] == 0).all()


def test_no_rays_and_rays_with_a_gradient() -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    triangles = Triangles(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).int())
    rays = rays_at_sphere(3)
    t, face, share = triangles.cast(rays.origins[:0], rays.directions[:0], near=rays.near[:0])
    assert t.shape == (0,) and face.shape == (0,) and share.shape == (0, 3)
    with pytest.raises(RuntimeError, match="no gradient"):
        triangles.cast(rays.origins.requires_grad_(), rays.directions, near=rays.near)
