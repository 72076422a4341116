"""Packed sums against plain loops in float64, forward and backward."""

import pytest
import torch

from models.kernels.rays.sums import below, exclusive_sum, spread, total, unbroken

COUNTS = {
    "ragged": [3, 0, 1, 7, 0],
    "no samples": [0, 0],
    "no rays": [],
    "long": [4000, 1, 3000],
    "many": [5] * 5000,
}


def packed(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    offsets = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    generator = torch.Generator().manual_seed(1)
    return torch.randn(int(offsets[-1]), generator=generator), offsets


def segments(values: torch.Tensor, offsets: torch.Tensor) -> list[torch.Tensor]:
    return [values[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_exclusive_sum_and_its_gradient(counts: list[int], device: torch.device) -> None:
    values, offsets = packed(counts)
    reference = values.double().requires_grad_()
    parts = [part.cumsum(0) - part for part in segments(reference, offsets)]
    expected = torch.cat(parts) if parts else reference
    weights = torch.linspace(-1, 1, len(values))
    (expected * weights.double()).sum().backward()

    x = values.to(device).requires_grad_()
    got = exclusive_sum(x, offsets.to(device))
    (got * weights.to(device)).sum().backward()

    torch.testing.assert_close(got.cpu().double(), expected, atol=1e-3, rtol=1e-5)
    assert x.grad is not None and reference.grad is not None
    torch.testing.assert_close(x.grad.cpu().double(), reference.grad, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("channels", [None, 4])
def test_total_and_its_gradient(counts: list[int], channels: int | None, device: torch.device) -> None:
    values, offsets = packed(counts)
    if channels:
        values = values[:, None] * torch.arange(1.0, channels + 1)
    reference = values.double().requires_grad_()
    parts = [part.sum(0) for part in segments(reference, offsets)]
    expected = torch.stack(parts) if parts else reference[:0]
    weights = torch.linspace(-1, 1, expected.numel()).reshape(expected.shape)
    (expected * weights.double()).sum().backward()

    x = values.to(device).requires_grad_()
    got = total(x, offsets.to(device))
    (got * weights.to(device)).sum().backward()

    torch.testing.assert_close(got.cpu().double(), expected.detach(), atol=1e-3, rtol=1e-5)
    assert x.grad is not None and reference.grad is not None
    torch.testing.assert_close(x.grad.cpu().double(), reference.grad, atol=1e-4, rtol=1e-5)


def test_a_late_ray_is_as_exact_as_an_early_one(device: torch.device) -> None:
    """A global running sum minus its start would lose 8e-3 here."""
    offsets = torch.arange(0, 2**18 + 1, 64, dtype=torch.int32, device=device)
    values = torch.rand(2**18, device=device, generator=torch.Generator(device).manual_seed(0)) * 10
    got = exclusive_sum(values, offsets)[-64:].double()
    expected = values[-64:].double().cumsum(0) - values[-64:].double()
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_unbroken_until_the_first_gap(counts: list[int], device: torch.device) -> None:
    offsets = torch.tensor([0, *counts], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    rays = torch.repeat_interleave(torch.arange(len(counts), device=device), offsets.diff().long())
    count = len(rays)
    steps = torch.where(torch.rand(count, device=device) < 0.1, 0.16, 0.1).cumsum(0)
    ends = steps + 0.1
    follows = torch.cat([torch.zeros(1, dtype=torch.bool, device=device), rays[1:] == rays[:-1]])[:count]
    gap = follows & (steps - ends.roll(1) > 0.05)
    gaps = gap.long().cumsum(0)
    before = torch.cat([torch.zeros(1, dtype=torch.long, device=device), gaps])[offsets[:-1].long()]
    assert torch.equal(unbroken(steps, ends, offsets), gaps == before[rays])


def test_unbroken_by_hand(device: torch.device) -> None:
    starts = torch.tensor([0.0, 0.1, 0.5, 0.6, 1.0, 2.0, 2.1, 9.0], device=device)
    offsets = torch.tensor([0, 4, 4, 7], dtype=torch.int32, device=device)
    assert unbroken(starts, starts + 0.1, offsets).tolist() == [True, True, False, False, True, False, False, False]


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_where_the_sum_so_far_is_small(counts: list[int], device: torch.device) -> None:
    values, offsets = packed(counts)
    values, counted = values.abs(), values > -0.5
    parts = segments((values * counted).double(), offsets)
    before = torch.cat([part.cumsum(0) - part for part in parts]) if parts else values.double()
    found = below(values.to(device), counted.to(device), offsets.to(device), most=3.0).cpu()
    clear = (before - 3).abs() > 1e-3
    assert torch.equal(found[clear], (before < 3)[clear])


def test_where_the_sum_so_far_is_small_by_hand(device: torch.device) -> None:
    values = torch.tensor([1.0, 1, 5, 1, torch.nan, 1, 1, 0], device=device)
    counted = torch.tensor([True, False, True, True, True, True, False, True], device=device)
    offsets = torch.tensor([0, 4, 4, 7], dtype=torch.int32, device=device)
    assert below(values, counted, offsets, most=2.0).tolist() == [True, True, True, False, True, False, False, False]


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_a_ray_s_row_and_its_gradient(counts: list[int], device: torch.device) -> None:
    offsets = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    rays = torch.repeat_interleave(torch.arange(len(counts), dtype=torch.int32), torch.tensor(counts).long())
    g = torch.Generator().manual_seed(0)
    row, weight = torch.randn(len(counts), 3, generator=g), torch.randn(len(rays), 3, generator=g)
    exact, mine = row.double().requires_grad_(), row.to(device).requires_grad_()
    found, truth = spread(mine, rays.to(device), offsets.to(device)), exact[rays.long()]
    assert torch.equal(found.detach().cpu(), row[rays.long()])
    (got,) = torch.autograd.grad((found * weight.to(device)).sum(), mine)
    (wanted,) = torch.autograd.grad((truth * weight.double()).sum(), exact)
    torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-3, rtol=1e-4)
