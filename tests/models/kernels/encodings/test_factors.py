"""Products of interpolated tables against PyTorch in float64: values, input gradient, and the gradients of both."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.kernels.encodings.factors import Factors, factor_features, factor_features_with_vjp, layout_of
from models.kernels.runtime.launch import set_threads
from tests.support.second_order import check_pullback, check_values

VM = [[0, 1], [2], [0, 2], [1], [1, 2], [0]]
KINDS: dict[str, tuple[Sequence[Sequence[int]], int]] = {
    "planes and lines": (VM, 2),
    "lines": ([[0], [1], [2]], 3),
    "grid": ([[0, 1, 2]], 1),
    "planes": ([[0, 1], [0, 2], [1, 2]], 3),  # whose axes they share
}
SIDES, BOX = (4, 7, 5), (-0.9, -0.8, -1.0, 0.9, 1.0, 0.7)
WIDTHS = (1, 4, 16, 20, 32)


def made(kind: str, width: int, sides: Sequence[int] = SIDES) -> tuple[Factors, Tensor]:
    axes, together = KINDS[kind]
    layout, rows = layout_of(axes, sides)
    table = torch.randn(rows, width, generator=torch.Generator().manual_seed(1))
    return Factors(layout, torch.tensor(sides, dtype=torch.int32), torch.tensor(BOX), together), table


def on(factors: Factors, device: torch.device) -> Factors:
    layout, resolution, box = (x.to(device) for x in (factors.layout, factors.resolution, factors.box))
    return Factors(layout, resolution, box, factors.together)


def places(count: int, spread: float = 2.2) -> Tensor:
    return spread * (torch.rand(count, 3, generator=torch.Generator().manual_seed(2)) - 0.5)


def reference(points: Tensor, table: Tensor, factors: Factors, lead: int = 0) -> Tensor:
    """Factor by factor, corner by corner."""
    low, high = factors.box.double().chunk(2)
    n = factors.resolution
    u = ((points - low) / (high - low)).clamp(0, 1) * n
    cell = u.detach().floor().long().clamp_max(n - 1)
    fraction, values = u - cell, []
    for count, *axes, first in factors.layout.tolist():
        value = torch.zeros(len(points), table.shape[1], dtype=points.dtype)
        for corner in itertools.product((0, 1), repeat=count):
            row, step, weight = torch.full((len(points),), first), 1, torch.ones(len(points), dtype=points.dtype)
            for axis, bit in zip(axes, corner, strict=False):
                row = row + step * (cell[:, axis] + bit)
                step *= int(n[axis]) + 1
                weight = weight * (fraction[:, axis] if bit else 1 - fraction[:, axis])
            value = value + weight[:, None] * table[row]
        values.append(value)
    terms = [torch.stack(values[i : i + factors.together]).prod(0) for i in range(0, len(values), factors.together)]
    return torch.cat([points[:, :lead], *terms], 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count, lead", [(0, 3), (1, 0), (203, 3)])
def test_values_and_gradients(kind: str, width: int, count: int, lead: int, device: torch.device) -> None:
    (factors, table), points = made(kind, width), places(count)
    check_values(
        lambda p, t: factor_features(p, t, on(factors, device), lead=lead),
        lambda p, t: reference(p, t, factors, lead),
        points,
        table,
        device,
        values=(1e-4, 1e-4),
        gradients=2e-3,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 4, 16])
def test_sums(kind: str, width: int, device: torch.device) -> None:
    (factors, table), points = made(kind, width), places(203)
    p64, t64 = points.double().requires_grad_(), table.double().requires_grad_()
    expected = reference(p64, t64, factors).sum(-1, keepdim=True)
    wanted = torch.autograd.grad(expected.sin().sum(), [p64, t64])
    p, t = points.to(device).requires_grad_(), table.to(device).requires_grad_()
    got = factor_features(p, t, on(factors, device), summed=True)
    grads = torch.autograd.grad(got.sin().sum(), [p, t])
    torch.testing.assert_close(got.cpu().double(), expected.detach(), atol=1e-4, rtol=1e-4)
    for mine, truth in zip(grads, wanted, strict=True):
        torch.testing.assert_close(mine.cpu().double(), truth, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 4, 16])
@pytest.mark.parametrize("count, lead", [(0, 0), (1, 3), (203, 3)])
def test_pullback_and_its_gradients(kind: str, width: int, count: int, lead: int, device: torch.device) -> None:
    """The double backward of an eikonal loss: gradients of the input gradient in table, points and weights."""
    (factors, table), points = made(kind, width), places(count)
    check_pullback(
        lambda p, t: factor_features_with_vjp(p, t, on(factors, device), lead=lead),
        lambda p, t: reference(p, t, factors, lead),
        points,
        table,
        device,
    )


def test_beyond_the_box_nothing_changes(device: torch.device) -> None:
    factors, table = made("planes and lines", 16)
    points = torch.tensor([[1.5, 0.2, -0.3], [0.1, -2.0, 0.4]])
    value, vjp = factor_features_with_vjp(points.to(device), table.to(device), on(factors, device))
    gradient = vjp(torch.ones_like(value)).cpu()
    assert gradient[0, 0] == 0 and gradient[1, 1] == 0 and gradient[0, 1] != 0 and gradient[1, 2] != 0


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_the_sums(kind: str) -> None:
    (factors, table), points = made(kind, 32), places(6000)
    results = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            t = table.clone().requires_grad_()
            value, vjp = factor_features_with_vjp(points, t, factors)
            slope = vjp(value.cos())
            results.append(torch.autograd.grad(value.sin().sum() + slope.sin().sum(), t)[0])
    finally:
        set_threads(1)
    assert torch.equal(*results)


def test_lookups_in_one_table_add_up(device: torch.device) -> None:
    """A value and features of one table in one backward pass, twice through the same graph."""
    (factors, table), points = made("planes and lines", 16), places(50)
    t64 = table.double().requires_grad_()
    first, second = (reference(p, t64, factors) for p in (points.double(), -points.double()))
    wanted = torch.autograd.grad((first.sin().sum() + second.sum(-1).cos().sum()), t64)[0]
    t, here = table.to(device).requires_grad_(), on(factors, device)
    features = factor_features(points.to(device), t, here)
    loss = features.sin().sum() + factor_features(-points.to(device), t, here, summed=True).cos().sum()
    for _ in range(2):
        got = torch.autograd.grad(loss, t, retain_graph=True)[0]
        torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-3, rtol=1e-4)


def several(width: int, count: int) -> tuple[Factors, Tensor]:
    """Three grids in one table, which points take in turn."""
    factors, table = made("grid", width)
    base = torch.arange(count, dtype=torch.int32) % 3 * len(table)
    return replace(factors, base=base), torch.cat([table, -table.flip(0), table.cos()])


@pytest.mark.parametrize("width", [1, 4, 16])
def test_each_point_looks_up_its_own_tables(width: int, device: torch.device) -> None:
    """All gradients of several grids in one table are those of each alone."""
    (factors, table), points = several(width, 203), places(203)
    weights = torch.randn(203, width, generator=torch.Generator().manual_seed(5))
    assert factors.base is not None
    here = replace(on(factors, device), base=factors.base.to(device))

    def gradients(points: Tensor, table: Tensor, factors: Factors, weight: Tensor) -> list[Tensor]:
        p, t, w = (x.to(device).requires_grad_() for x in (points, table, weight))
        value, vjp = factor_features_with_vjp(p, t, factors)
        pulled = vjp(w)
        found = torch.autograd.grad(value.sin().sum() + pulled.sin().sum(), [p, t, w])
        return [x.detach().cpu() for x in (value, pulled, *found)]

    value, pulled, at_points, at_table, at_weights = gradients(points, table, here, weights)
    for number, own in enumerate(at_table.chunk(3)):
        mine, part = slice(number, None, 3), table.chunk(3)[number]
        alone = gradients(points[mine], part, on(made("grid", width)[0], device), weights[mine])
        for got, truth in zip((value[mine], pulled[mine], at_points[mine], own, at_weights[mine]), alone, strict=True):
            torch.testing.assert_close(got, truth, atol=1e-5, rtol=1e-5)
