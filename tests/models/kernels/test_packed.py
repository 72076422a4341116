"""Choosing among packed samples, against plain loops and by hand."""

import pytest
import torch
from torch import Tensor

from models.kernels.rays.packed import compact, crossings, gather, points, preceding

COUNTS = {"ragged": [3, 0, 1, 7, 0], "no samples": [0, 0], "no rays": [], "long": [4000, 1, 300], "many": [5] * 3000}


def packed(counts: list[int], spare: int = 0) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
    """Offsets, the ray of each sample, a mask; padding belongs to no ray."""
    generator = torch.Generator().manual_seed(1)
    offsets = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    rays = torch.repeat_interleave(torch.arange(len(counts), dtype=torch.int32), torch.tensor(counts).long())
    rays = torch.cat([rays, torch.zeros(spare, dtype=torch.int32)])
    return offsets, rays, torch.rand(len(rays), generator=generator) < 0.4, generator


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("spare", [0, 5])
def test_what_is_chosen(counts: list[int], spare: int, device: torch.device) -> None:
    offsets, rays, mask, _ = packed(counts, spare)
    index, kept, total = compact(mask.to(device), offsets.to(device))
    real = mask.clone()
    real[int(offsets[-1]) :] = False
    assert index.cpu().tolist() == real.nonzero()[:, 0].tolist() and total == len(index) == kept[-1]
    of_ray = torch.bincount(rays[real].long(), minlength=len(counts))
    assert kept.dtype == torch.int32 and kept.cpu().diff().tolist() == of_ray.tolist()


def test_a_room_cuts_off_what_does_not_fit_and_is_filled(device: torch.device) -> None:
    mask = torch.tensor([True, False, True, True, True, True], device=device)
    offsets = torch.tensor([0, 3, 3, 5], dtype=torch.int32, device=device)
    small, large = compact(mask, offsets, 3), compact(mask, offsets, 6)
    assert small.indices.tolist() == [0, 2, 3] and small.offsets.tolist() == [0, 2, 2, 3] and small.total == 4
    assert large.indices.tolist() == [0, 2, 3, 4, 6, 6] and large.offsets.tolist() == [0, 2, 2, 4] and large.total == 4


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_what_is_gathered_and_where_it_is(counts: list[int], device: torch.device) -> None:
    offsets, rays, mask, generator = packed(counts)
    columns = [torch.randn(len(rays), generator=generator) for _ in range(4)]
    origins, directions = (torch.randn(len(counts), 3, generator=generator) for _ in range(2))
    index = mask.nonzero()[:, 0]
    if len(rays):
        index = torch.cat([index, torch.full((3,), len(rays))])  # padding
    inside = index.clamp_max(len(rays) - 1)
    found, of = gather(index.to(device), [x.to(device) for x in columns], rays.to(device))
    assert all(torch.equal(a.cpu(), b[inside]) for a, b in zip(found, columns, strict=True))
    assert torch.equal(of.cpu(), rays[inside])
    of_rays = origins.to(device), directions.to(device), rays.to(device), columns[0].to(device)
    truth = (origins[rays].double() + columns[0][:, None].double() * directions[rays].double()).float()
    torch.testing.assert_close(points(*of_rays).cpu(), truth)
    torch.testing.assert_close(points(*of_rays, index.to(device)).cpu(), truth[inside])


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_the_value_before(counts: list[int], device: torch.device) -> None:
    offsets, rays, _, generator = packed(counts)
    values = torch.randn(len(rays), generator=generator)
    parts = [values[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    truth = [torch.cat([part[:1], part[:-1]]) for part in parts]
    found = preceding(values.to(device), rays.to(device)).cpu()
    assert torch.equal(found, torch.cat(truth) if truth else values)


def test_a_linear_value_is_met_where_it_is_zero(device: torch.device) -> None:
    """Three rays through planes at 0.55 and 0.5 and one that leaves a surface, a tenth apart."""
    t = torch.tensor([0.4, 0.5, 0.6, 0.35, 0.45, 0.55, 0.5, 0.6], device=device)
    value = torch.tensor([0.15, 0.05, -0.05, 0.3, 0.1, -0.1, -0.2, -0.1], device=device)
    rays = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2], dtype=torch.int32, device=device)
    index = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8], device=device)
    starts, ends = t[index.clamp_max(7)] - 0.05, t[index.clamp_max(7)] + 0.05
    found = crossings(value, t, rays, index, starts, ends, steep=0.1)
    expected = [0.4, 0.55, 0.55, 0.5, 0.5, 0.5, 0.6, 0.6]
    torch.testing.assert_close(found.cpu(), torch.tensor(expected), atol=1e-6, rtol=0)


def test_a_slope_that_is_too_gentle_is_not_believed(device: torch.device) -> None:
    """The value falls by 0.001 in 0.1, which says nothing; with a slope of one tenth the zero lies 0.02 ahead."""
    t, value = torch.tensor([0.4, 0.5], device=device), torch.tensor([0.003, 0.002], device=device)
    rays, index = torch.zeros(2, dtype=torch.int32, device=device), torch.tensor([1], device=device)
    found = crossings(value, t, rays, index, t[1:] - 0.05, t[1:] + 0.05, steep=0.1)
    torch.testing.assert_close(found.cpu(), torch.tensor([0.52]))


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_points_move_with_their_rays(counts: list[int], device: torch.device) -> None:
    offsets, rays, _, generator = packed(counts)
    t, weight = torch.rand(len(rays), generator=generator), torch.randn(len(rays), 3, generator=generator)
    ends = [torch.randn(len(counts), 3, generator=generator) for _ in range(2)]
    exact, mine = ([x.to(to).requires_grad_() for x in ends] for to in (torch.float64, device))
    index = rays.long()
    truth = exact[0][index] + t.double()[:, None] * exact[1][index]
    samples = rays.to(device), t.to(device)
    found = points(mine[0], mine[1], *samples, offsets=offsets.to(device))
    assert torch.equal(found.detach(), points(mine[0].detach(), mine[1].detach(), *samples))
    got = torch.autograd.grad((found * weight.to(device)).sum(), mine)
    wanted = torch.autograd.grad((truth * weight.double()).sum(), exact)
    for own, true in zip(got, wanted, strict=True):
        torch.testing.assert_close(own.cpu().double(), true, atol=1e-3, rtol=1e-4)


def test_padding_moves_no_ray(device: torch.device) -> None:
    offsets, rays, _, _ = packed([2, 1], 3)
    origins = torch.zeros(2, 3, device=device, requires_grad=True)
    ones = torch.ones(6, 3, device=device)
    found = points(origins, ones[:2], rays.to(device), ones[:, 0], offsets=offsets.to(device))
    assert torch.autograd.grad(found.sum(), origins)[0].tolist() == [[2.0] * 3, [1.0] * 3]
