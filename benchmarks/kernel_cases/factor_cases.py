"""Cases for products of tables: planes times lines as TensoRF has them, and a dense grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import mul
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kernel_cases.case import FLOAT, Case, Inputs, Least, Results, backward, both
from models.encodings.factors import FactorConfig
from models.encodings.tensor_vm import TensorVmConfig
from models.encodings.voxel_grid import VoxelGridConfig
from models.kernels.encodings.factors import Factors, factor_features, factor_features_with_vjp, layout_of

CELLS, COMPONENTS, VOXELS = 240, 16, 128  # VM-48, and DVGO's features on a CPU


def factor_cases(inputs: Inputs) -> Iterator[Case]:
    """Features beside torch's own interpolation, their gradient beside nested differentiation of plain lookups."""
    planes, voxels = TensorVmConfig(cells=CELLS), VoxelGridConfig(cells=VOXELS)
    yield from lookup_cases("planes and lines", inputs, planes, COMPONENTS)
    yield from gradient_cases("planes and lines", inputs, planes, COMPONENTS)
    yield from lookup_cases("voxels", inputs, voxels, 12)


def layout(config: FactorConfig, width: int, device: torch.device) -> tuple[Factors, Tensor]:
    """Where the rows of a table are, and the table [N, width] with numbers."""
    places, rows = layout_of(config.axes, (config.cells,) * 3)
    resolution = torch.tensor([config.cells] * 3, dtype=torch.int32)
    box = torch.tensor([-1.0, -1, -1, 1, 1, 1])
    factors = Factors(places.to(device), resolution.to(device), box.to(device), config.together)
    return factors, 0.1 * torch.randn(rows, width, device=device)


def lookup_cases(name: str, inputs: Inputs, config: FactorConfig, width: int) -> Iterator[Case]:
    """Values and the way back to the table, beside `grid_sample` on tables in the order that it wants."""
    points, count = inputs.points, len(inputs.points)
    factors, table = layout(config, width, points.device)
    table.requires_grad_()
    leaves = images(table.detach(), config)
    ours, simple = partial(factor_features, points, table, factors), partial(sampled, points, leaves, config)
    grad = torch.randn(count, factors.terms * width, device=points.device)
    size = FLOAT * width * count * sum(2 ** len(axes) for axes in config.axes)
    forms = partial(_one, torch.no_grad()(ours)), partial(_one, torch.no_grad()(simple))
    yield Case(name, count, forms, Least(copied=size + FLOAT * grad.numel()))
    back, _ = backward((partial(_one, ours),) * 2, [table], [grad])
    _, back_simple = backward((partial(_one, simple),) * 2, leaves, [grad])
    yield Case("  backward", count, (back, partial(_as_table, back_simple)), Least(copied=2 * size))


def gradient_cases(name: str, inputs: Inputs, config: FactorConfig, width: int) -> Iterator[Case]:
    """With the gradient in the points, and the way back of both."""
    points, count = inputs.points, len(inputs.points)
    factors, table = layout(config, width, points.device)
    table.requires_grad_()
    weight = torch.randn(count, factors.terms * width, device=points.device, requires_grad=True)
    grads = torch.randn(weight.shape, device=points.device), torch.randn(count, 3, device=points.device)

    def with_gradient(how: Any) -> Results:
        value, vjp = how(points, table, factors)
        return value, vjp(weight)

    forms = both(with_gradient, factor_features_with_vjp, looked_up_with_vjp)
    size = FLOAT * width * count * sum(2 ** len(axes) for axes in config.axes)
    yield Case(f"{name} with gradient", count, forms, Least(copied=2 * size))
    yield Case("  double backward", count, backward(forms, [table, weight], grads), Least(copied=4 * size))


def _one(work: Callable[[], Tensor]) -> Results:
    return (work(),)


def _as_table(work: Callable[[], Results]) -> Results:
    """Gradients of images as the gradient of the table."""
    return (torch.cat([grad[0].movedim(0, -1).flatten(0, -2) for grad in work()]),)


def images(table: Tensor, config: FactorConfig) -> list[Tensor]:
    """The tables as leaves [1, F, *sides], of two axes at least, as TensoRF's and DVGO's code has them."""
    leaves, first = [], 0
    for axes in config.axes:
        count = (config.cells + 1) ** len(axes)
        grid = table[first : first + count].view(*[config.cells + 1] * len(axes), -1).movedim(-1, 0)[None]
        leaves.append((grid if len(axes) > 1 else grid[..., None]).contiguous().requires_grad_())
        first += count
    return leaves


def sampled(points: Tensor, leaves: list[Tensor], config: FactorConfig) -> Tensor:
    """[M, terms F] by `grid_sample`."""
    values = []
    for axes, leaf in zip(config.axes, leaves, strict=True):
        at = points[:, axes] if len(axes) > 1 else F.pad(points[:, axes], (1, 0))
        found = F.grid_sample(leaf, at.view(1, -1, *[1] * (leaf.dim() - 3), at.shape[1]), align_corners=True)
        values.append(found.view(leaf.shape[1], -1))
    return torch.cat(products(values, config.together)).T


def looked_up(points: Tensor, table: Tensor, factors: Factors) -> Tensor:
    """[M, terms F] by rows and weights of each corner; differentiable twice by autograd."""
    low, high = factors.box.chunk(2)
    most = factors.resolution.to(points.dtype)
    u = torch.minimum(((points - low) * (most / (high - low))).clamp_min(0), most)
    cell = torch.minimum(u.detach().long(), factors.resolution.long() - 1)
    fraction, values = u - cell, []
    for count, *axes, first in factors.layout.tolist():
        value = table.new_zeros(len(points), table.shape[1])
        for corner in itertools.product((0, 1), repeat=count):
            row, step, weight = torch.full_like(cell[:, 0], first), 1, torch.ones_like(u[:, 0])
            for axis, bit in zip(axes, corner, strict=False):
                row = row + step * (cell[:, axis] + bit)
                step *= int(factors.resolution[axis]) + 1
                weight = weight * (fraction[:, axis] if bit else 1 - fraction[:, axis])
            value = value + weight[:, None] * table.index_select(0, row)
        values.append(value)
    return torch.cat(products(values, factors.together), 1)


def products(values: list[Tensor], together: int) -> list[Tensor]:
    """Of so many at a time, one after the other: `prod` divides in its backward pass, and loses two digits by it."""
    return [reduce(mul, values[i : i + together]) for i in range(0, len(values), together)]


def looked_up_with_vjp(points: Tensor, table: Tensor, factors: Factors) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The features, and their gradient in the points by nested automatic differentiation."""
    points = points.detach().requires_grad_()
    features = looked_up(points, table, factors)
    return features, lambda weight: torch.autograd.grad(features, points, weight, create_graph=True)[0]
