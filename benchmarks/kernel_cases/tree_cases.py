"""Cases for numbers at the corners of an octree's voxels, three sizes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernel_cases.case import FLOAT, Case, Inputs, Least, Results, backward, both
from models.encodings.tree import first_tree, halved, of_voxels
from models.kernels.encodings.tree import Voxels, tree_features, tree_features_with_vjp
from utils.meshing.cells import cell_centers

SIDE, LEVELS, COMPONENTS = 32, 2, 8  # as of a run on a CPU
MOST_ROWS = 1 << 20


def tree_cases(inputs: Inputs) -> Iterator[Case]:
    """Features and their gradient beside plain lookups, and nested differentiation of these."""
    points, count = inputs.points, len(inputs.points)
    voxels, table = layout(points.device)
    weight = torch.randn(count, COMPONENTS, device=points.device, requires_grad=True)
    grads = torch.randn(weight.shape, device=points.device), torch.randn(count, 3, device=points.device)
    size = FLOAT * COMPONENTS * 8 * count * (1 + LEVELS)

    def values(how: Callable[..., Tensor]) -> Results:
        return (how(points, table, voxels),)

    def with_gradient(how: Callable[..., tuple[Tensor, Callable[[Tensor], Tensor]]]) -> Results:
        value, vjp = how(points, table, voxels)
        return value, vjp(weight)

    forms = both(values, tree_features, looked_up)
    without = partial(torch.no_grad()(forms[0])), partial(torch.no_grad()(forms[1]))
    yield Case("octree", count, without, Least(copied=size))
    yield Case("  backward", count, backward(forms, [table], grads[:1]), Least(copied=2 * size))
    forms = both(with_gradient, tree_features_with_vjp, looked_up_with_vjp)
    yield Case("octree with gradient", count, forms, Least(copied=2 * size))
    yield Case("  double backward", count, backward(forms, [table, weight], grads), Least(copied=4 * size))


def layout(device: torch.device) -> tuple[Voxels, Tensor]:
    """A tree about a sphere of radius 0.5, and the table [N, F] with numbers."""
    tree = first_tree(SIDE)
    shell = ((cell_centers(2 * SIDE).norm(dim=-1) - 0.5).abs() < 0.1).view(3 * (2 * SIDE,)).float()
    for _ in range(LEVELS):
        leaves = tree.leaves
        tree = halved(tree, leaves[of_voxels(tree, shell, "largest")[leaves] > 0], MOST_ROWS)
    children, corners = (x.to(device, torch.int32) for x in (tree.children, tree.corners))
    table = 0.1 * torch.randn(tree.rows, COMPONENTS, device=device)
    return Voxels(children, corners, SIDE), table.requires_grad_()


def looked_up(points: Tensor, table: Tensor, voxels: Voxels) -> Tensor:
    """[M, F] by rows and weights of each corner, size by size; differentiable twice by autograd."""
    u, side = (points * 0.5 + 0.5).clamp(0, 1), voxels.side
    value, cell, here = torch.zeros_like(points[:, :1]) * table[:1], None, torch.arange(len(points), device=u.device)
    while len(here):
        whole = (u[here].detach() * side).long().clamp_max(side - 1)
        x, y, z = whole.unbind(-1)
        cell = (x * side + y) * side + z if cell is None else cell + 4 * (x & 1) + 2 * (y & 1) + (z & 1)
        value = value.index_add(0, here, _interpolated(u[here] * side - whole, table, voxels.corners[cell]))
        child = voxels.children[cell].long()
        here, cell, side = here[child >= 0], child[child >= 0], 2 * side
    return value


def _interpolated(part: Tensor, table: Tensor, corners: Tensor) -> Tensor:
    """[K, F] from fractions [K, 3] within voxels and the rows [K, 8] at their corners."""
    value = table.new_zeros(len(part), table.shape[1])
    for corner, bits in enumerate(itertools.product((0, 1), repeat=3)):
        weight = (corners[:, corner] >= 0).float()
        for axis, bit in enumerate(bits):
            weight = weight * (part[:, axis] if bit else 1 - part[:, axis])
        value = value + weight[:, None] * table.index_select(0, corners[:, corner].clamp_min(0))
    return value


def looked_up_with_vjp(points: Tensor, table: Tensor, voxels: Voxels) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The features, and their gradient in the points by nested automatic differentiation."""
    points = points.detach().requires_grad_()
    features = looked_up(points, table, voxels)
    return features, lambda weight: torch.autograd.grad(features, points, weight, create_graph=True)[0]
