"""Cases for tables of several levels on the same points: corners of cubic cells, and vertices of simplices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kernel_cases import baseline
from benchmarks.kernel_cases.case import Case, Inputs, Least, Results, backward, both
from models.kernels.encodings.hash_encode import HashLevels, hash_encode, hash_encode_with_vjp
from models.kernels.encodings.permutohedral import (
    PermutohedralLevels,
    permutohedral_encode,
    permutohedral_encode_with_vjp,
)

Levels = HashLevels | PermutohedralLevels


def hash_cases(inputs: Inputs) -> Iterator[Case]:
    """Eight corners."""
    forms = (hash_encode, hash_encode_with_vjp), (baseline.hash_encode, baseline.hash_encode_with_vjp)
    return level_cases("hash encoding", inputs.points, inputs.levels, *forms, corners=8)


def permutohedral_cases(inputs: Inputs) -> Iterator[Case]:
    """Four vertices, of as many in the cube."""
    sides, rows = inputs.levels.resolution, int(inputs.levels.first_row.diff().max())
    found = {"base": int(sides[0]), "top": int(sides[-1]), "log2_rows": (rows - 1).bit_length()}
    levels = PermutohedralLevels.geometric(len(sides), **found, shift=1 + torch.rand(len(sides), 3))
    forms = (permutohedral_encode, permutohedral_encode_with_vjp), (looked_up, looked_up_with_vjp)
    on_device = levels.to(inputs.points.device)
    return level_cases("permutohedral encoding", inputs.points, on_device, *forms, corners=4)


def level_cases(
    name: str,
    points: Tensor,
    levels: Levels,
    ours: tuple[Callable[..., Tensor], Callable[..., Any]],
    simple: tuple[Callable[..., Tensor], Callable[..., Any]],
    *,
    corners: int,
) -> Iterator[Case]:
    """The encoding; with its gradient in the points; the way back of both, for the latter with second derivatives."""
    count, active, device = len(points), len(levels.first_row) - 1, points.device
    rows = count * corners * active
    table = (0.1 * torch.randn(levels.rows, 2, device=device)).requires_grad_()
    weight = torch.randn(count, 2 * active, device=device, requires_grad=True)
    grads = torch.randn(count, 2 * active, device=device), torch.randn(count, 3, device=device)

    def encoded(how: Any) -> Results:
        return (how(points, table, levels, active=active),)

    def with_gradient(how: Any) -> Results:
        value, vjp = how(points, table, levels, active=active)
        return value, vjp(weight)

    forms, pulled = both(encoded, ours[0], simple[0]), both(with_gradient, ours[1], simple[1])
    yield Case(name, count, both(torch.no_grad()(encoded), ours[0], simple[0]), Least(read=rows))
    yield Case("  backward", count, backward(forms, [table], grads[:1]), Least(added=rows))
    yield Case(f"{name} with gradient", count, pulled, Least(read=2 * rows))
    yield Case("  double backward", count, backward(pulled, [table, weight], grads), Least(added=rows, read=rows))


def looked_up(points: Tensor, table: Tensor, levels: PermutohedralLevels, *, active: int) -> Tensor:
    """[M, 3] -> [M, 2 active]: the fractions sorted, level by level; differentiable twice by autograd."""
    unit = (points * 0.5 + 0.5).clamp(0, 1)
    first = levels.first_row.tolist()
    parts = []
    for level in range(active):
        at = unit * levels.cells[level] + levels.shift[level]
        u = at.roll(-1, 1) + at.roll(1, 1)
        vertex = u.detach().floor()
        fraction, order = (u - vertex).sort(1, descending=True)
        steps = F.pad(F.one_hot(order, 3).cumsum(1), (0, 0, 1, 0))
        row = _rows(vertex.long()[:, None] + steps, int(levels.sides[level]), first[level + 1] - first[level])
        weight = -F.pad(fraction, (1, 0), value=1.0).diff(dim=1, append=torch.zeros_like(fraction[:, :1]))
        parts.append((weight[..., None] * table[first[level] + row]).sum(1))
    return torch.cat(parts, 1)


def _rows(vertices: Tensor, side: int, rows: int) -> Tensor:
    """[..., 3] -> [...] rows of vertices, from the level's first one on."""
    u, v, w = vertices.unbind(-1)
    if side:
        z = u + v - w
        return (w - u + z // 2) + side * (w - v + z // 2 + side * z)
    return (u * baseline.PRIMES[0] ^ v * baseline.PRIMES[1] ^ w * baseline.PRIMES[2]) & (rows - 1)


def looked_up_with_vjp(
    points: Tensor, table: Tensor, levels: PermutohedralLevels, *, active: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The features, and their gradient in the points by nested automatic differentiation."""
    points = points.detach().requires_grad_()
    features = looked_up(points, table, levels, active=active)
    return features, partial(_gradient, features, points)


def _gradient(features: Tensor, points: Tensor, weight: Tensor) -> Tensor:
    """[M, 3], that can be differentiated again."""
    return torch.autograd.grad(features, points, weight, create_graph=True)[0]
