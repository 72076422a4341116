"""Functions of the gradients of a distance: mirrored directions of view, and how far they are from unit length.

In torch a handful of short operations each, and two dozen backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES, launch_blocks
from models.kernels.runtime.native import Floats, Rows, native_kernel

GRAIN = 256  # blocks that are worth a second thread


def mirrored(directions: Tensor, gradient: Tensor) -> Tensor:
    """Directions [*N, 3] float32 after a mirror with normals along `gradient` [*N, 3].

    d - 2 (d . g) g / (|g|^2 + 1e-12). Differentiable in gradient, once.
    """
    return _Mirrored.apply(gradient, directions)


def off_unit(gradient: Tensor) -> Tensor:
    """[*N] (|g| - 1)^2 of gradients [*N, 3] float32, |g|^2 with 1e-12 more. Differentiable in gradient, once."""
    return _OffUnit.apply(gradient)


def _by_blocks(kernel: Any, rows: list[Tensor], *rest: Tensor) -> None:
    launch_blocks(kernel, len(rows[0]), [*rows, *rest], device=rows[0].device, grain=GRAIN)


class _Mirrored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, directions: Tensor) -> Tensor:
        rows = [x.contiguous().view(-1, 3) for x in (gradient, directions)]
        ctx.save_for_backward(*rows)
        out = torch.empty_like(rows[0])
        _by_blocks(_mirror, rows, out)
        return out.view(gradient.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out = torch.empty_like(ctx.saved_tensors[0])
        _by_blocks(_mirror_back, list(ctx.saved_tensors), grad.contiguous().view(-1, 3), out)
        return out.view(grad.shape), None


class _OffUnit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        rows = gradient.contiguous().view(-1, 3)
        ctx.save_for_backward(rows)
        out = rows.new_empty(len(rows))
        _by_blocks(_measure, [rows], out)
        return out.view(gradient.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        out = torch.empty_like(rows)
        _by_blocks(_measure_back, [rows], grad.contiguous().view(-1), out)
        return out.view(*grad.shape, 3)


_GRADIENT = (
    TYPES
    + """
    BLOCK_OF(gradient);
    vf x, y, z;
    LOAD3(x, y, z, gradient.data + 3 * start, end);
    const vf square = x * x + y * y + z * z + 1e-12f;
"""
)
_DIRECTION = (
    _GRADIENT
    + """
    vf dx, dy, dz;
    LOAD3(dx, dy, dz, directions.data + 3 * start, end);
    const vf along = dx * x + dy * y + dz * z, twice = 2.0f / square;
"""
)


@native_kernel(
    _DIRECTION
    + """
    const vf far = twice * along;
    STORE3(out.data + 3 * start, end, dx - far * x, dy - far * y, dz - far * z);
"""
)
def _mirror(block: int, gradient: Rows, directions: Rows, out: Rows): ...


@native_kernel(
    _DIRECTION
    + """
    vf wx, wy, wz;
    LOAD3(wx, wy, wz, grad.data + 3 * start, end);
    const vf said = wx * x + wy * y + wz * z;
    const vf of_square = twice * twice * along * said, of_along = -twice * said, own = -twice * along;
    STORE3(out.data + 3 * start, end, of_along * dx + own * wx + of_square * x,
           of_along * dy + own * wy + of_square * y, of_along * dz + own * wz + of_square * z);
"""
)
def _mirror_back(block: int, gradient: Rows, directions: Rows, grad: Rows, out: Rows): ...


@native_kernel(
    _GRADIENT
    + """
    const vf off = ROOT(square) - 1.0f;
    STORE_BLOCK(out.data + start, off * off, end);
"""
)
def _measure(block: int, gradient: Rows, out: Floats): ...


@native_kernel(
    _GRADIENT
    + """
    vf g;
    LOAD_BLOCK(g, grad.data + start, end);
    const vf share = 2.0f * g * (1.0f - 1.0f / ROOT(square));
    STORE3(out.data + 3 * start, end, share * x, share * y, share * z);
"""
)
def _measure_back(block: int, gradient: Rows, grad: Floats, out: Rows): ...
