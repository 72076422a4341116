"""Lookups in a table against float64: values, gradients, and the double backward of an eikonal loss."""

from collections.abc import Callable

import torch
from torch import Tensor


def points_and_table(count: int, rows: int) -> tuple[Tensor, Tensor]:
    """Points [M, 3] of the cube [-1, 1]^3, M = `count`, and a table [N, 2] of `rows` = N rows; always the same."""
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, generator=generator) * 1.8 - 0.9, torch.randn(rows, 2, generator=generator)


def check_values(
    features: Callable[[Tensor, Tensor], Tensor],
    reference: Callable[[Tensor, Tensor], Tensor],
    points: Tensor,
    table: Tensor,
    device: torch.device,
    *,
    values: tuple[float, float],
    gradients: float,
) -> None:
    """Features [M, W] of points [M, 3] and a table [N, F] on the device, and their gradients in both.

    reference: features that torch differentiates. values: tolerances, absolute and relative; gradients: absolute.
    """
    p64, t64 = (x.double().requires_grad_() for x in (points, table))
    expected = reference(p64, t64)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5))
    wanted = torch.autograd.grad((expected * weights.double()).sum(), [p64, t64])

    p, t = (x.to(device).requires_grad_() for x in (points, table))
    found = features(p, t)
    grads = torch.autograd.grad((found * weights.to(device)).sum(), [p, t])
    torch.testing.assert_close(found.cpu().double(), expected.detach(), atol=values[0], rtol=values[1])
    for mine, truth in zip(grads, wanted, strict=True):
        torch.testing.assert_close(mine.cpu().double(), truth, atol=gradients, rtol=1e-4)


def check_pullback(
    with_vjp: Callable[[Tensor, Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]],
    reference: Callable[[Tensor, Tensor], Tensor],
    points: Tensor,
    table: Tensor,
    device: torch.device,
) -> None:
    """Gradients of values and of the input gradient in points [M, 3], table [N, F] and weights.

    with_vjp: features [M, W] on the device and their vjp. reference: features that torch differentiates.
    """
    p64, t64 = (x.double().requires_grad_() for x in (points, table))
    features = reference(p64, t64)
    generator = torch.Generator().manual_seed(7)
    columns = features.shape[1]
    weight, for_value, for_gradient = (torch.randn(len(points), n, generator=generator) for n in (columns, columns, 3))
    w64 = weight.double().requires_grad_()
    pulled = torch.autograd.grad((features * w64).sum(), p64, create_graph=True)[0]
    loss = (features * for_value.double()).sum() + (pulled * for_gradient.double()).sum()
    wanted = torch.autograd.grad(loss, [p64, t64, w64])

    p, t, w = (x.to(device).requires_grad_() for x in (points, table, weight))
    value, vjp = with_vjp(p, t)
    slope = vjp(w)
    mine = (value * for_value.to(device)).sum() + (slope * for_gradient.to(device)).sum()
    grads = torch.autograd.grad(mine, [p, t, w])
    torch.testing.assert_close(slope.cpu().double(), pulled.detach(), atol=1e-3, rtol=1e-4)
    for got, truth in zip(grads, wanted, strict=True):
        scale = truth.abs().max().clamp_min(1.0) if truth.numel() else 1.0
        torch.testing.assert_close(got.cpu().double() / scale, truth / scale, atol=1e-5, rtol=1e-4)
