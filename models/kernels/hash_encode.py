"""Multi-resolution hash encoding with its Jacobian, and every derivative that training an SDF asks for.

Source: Müller et al., "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding" (2022), section 3.
The Jacobian is an output of the forward pass, from the same gathers; one backward pass then scatters the gradients of
the features and of the Jacobian together, which is the whole second-order derivative that an eikonal loss needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.launch import as_warp, launch

FEATURES = 2  # per level; a level's entry is one 8-byte load
PRIME_Y = wp.constant(wp.uint32(2654435761))
PRIME_Z = wp.constant(wp.uint32(805459861))


@dataclass(frozen=True)
class HashLevels:
    """Layout of the table: per level the cells per axis and the first row; dense where it fits, hashed above.

    resolution: [L] int32, cells over the cube's side. first_row: [L+1] int32, rows of level l are
    first_row[l] .. first_row[l+1]-1. A hashed level has a power of two of rows.
    """

    resolution: Tensor
    first_row: Tensor

    @staticmethod
    def geometric(levels: int, *, base: int, top: int, log2_rows: int) -> HashLevels:
        """`levels` resolutions from `base` to `top` in geometric progression, at most 2^log2_rows rows each."""
        growth = (top / base) ** (1 / max(levels - 1, 1))
        resolution = [int(base * growth**level + 0.5) for level in range(levels)]
        rows = [min((n + 1) ** 3, 2**log2_rows) for n in resolution]
        first = torch.tensor([0, *rows]).cumsum(0)
        return HashLevels(torch.tensor(resolution, dtype=torch.int32), first.to(torch.int32))

    def to(self, device: torch.device) -> HashLevels:
        return HashLevels(self.resolution.to(device), self.first_row.to(device))

    @property
    def rows(self) -> int:
        return int(self.first_row[-1])


def hash_encode(points: Tensor, table: Tensor, levels: HashLevels, *, active: int) -> Tensor:
    """Trilinear features of `points`.

    points: [M, 3] float32 in the cube [-1, 1]^3 (clamped to it). table: [rows, 2] float32. active: the levels from
    this one on are zero (coarse to fine training). Returns [M, 2L], level by level.
    Differentiable once, in `points` and `table`; use `hash_encode_with_jacobian` where gradients of the input
    gradient are wanted.
    """
    return _HashEncode.apply(points, table, levels, active, False)[0]


def hash_encode_with_jacobian(
    points: Tensor, table: Tensor, levels: HashLevels, *, active: int
) -> tuple[Tensor, Tensor]:
    """As `hash_encode`, and the Jacobian d(features)/d(points), [M, 3, 2L].

    Both outputs are differentiable in `points` and `table`. The Jacobian is piecewise constant along each axis;
    its mixed second derivatives within a cell are in the backward pass.
    """
    return _HashEncode.apply(points, table, levels, active, True)


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, table: Tensor, levels: HashLevels, active: int, with_jacobian: bool
    ) -> tuple[Tensor, Tensor]:
        points = points.contiguous()
        count, width = len(points), FEATURES * len(levels.resolution)
        features = points.new_empty(count, width)
        jacobian = points.new_empty(count, 3, width) if with_jacobian else points.new_empty(0, 3, width)
        rows = as_warp(table, wp.vec2)
        inputs = [points, rows, levels.resolution, levels.first_row, active, features, jacobian]
        launch(_encode, count * len(levels.resolution), inputs, device=points.device, block=max(count, 1))
        ctx.save_for_backward(points, table)
        ctx.levels, ctx.active, ctx.with_jacobian = levels, active, with_jacobian
        return features, jacobian

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_features: Tensor, grad_jacobian: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        points, table = ctx.saved_tensors
        levels, count = ctx.levels, len(points)
        grads = [grad_features.contiguous(), grad_jacobian.contiguous()]
        shared = [points, levels.resolution, levels.first_row, ctx.active]
        grad_table = grad_points = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            items = count * len(levels.resolution)
            # Blocks of one level each: a level's rows are written by one thread, in the order of the samples.
            rows = as_warp(grad_table, wp.vec2)
            launch(_scatter, items, [*shared, *grads, rows], device=points.device, block=max(count, 1))
        if ctx.needs_input_grad[0]:
            grad_points = torch.zeros_like(points)
            inputs = [*shared, as_warp(table, wp.vec2), *grads, grad_points]
            launch(_point_gradient, count, inputs, device=points.device)
        return grad_points, grad_table, None, None, None


@wp.struct
class Cell:
    """Where a point lies within a level: lower corner, fraction in the cell, and the level's rows."""

    x: int
    y: int
    z: int
    fx: float
    fy: float
    fz: float
    side: int
    first_row: int
    rows: int
    dense: bool


@wp.func
def _cell(points: wp.array2d(dtype=float), i: int, resolution: int, first_row: int, rows: int):
    n = float(resolution)
    ux = wp.clamp(points[i, 0] * 0.5 + 0.5, 0.0, 1.0) * n
    uy = wp.clamp(points[i, 1] * 0.5 + 0.5, 0.0, 1.0) * n
    uz = wp.clamp(points[i, 2] * 0.5 + 0.5, 0.0, 1.0) * n
    cell = Cell()
    cell.x = wp.min(int(ux), resolution - 1)
    cell.y = wp.min(int(uy), resolution - 1)
    cell.z = wp.min(int(uz), resolution - 1)
    cell.fx = ux - float(cell.x)
    cell.fy = uy - float(cell.y)
    cell.fz = uz - float(cell.z)
    cell.side = resolution + 1
    cell.first_row = first_row
    cell.rows = rows
    # In floats: the cube of a fine level's side does not fit 32 bits. Coarse products are exact.
    cell.dense = (n + 1.0) * (n + 1.0) * (n + 1.0) <= float(rows)
    return cell


@wp.func
def _row(cell: Cell, cx: int, cy: int, cz: int):
    row = cell.first_row
    if cell.dense:
        row += ((cell.z + cz) * cell.side + cell.y + cy) * cell.side + cell.x + cx
    else:
        mixed = wp.uint32(cell.x + cx) ^ (wp.uint32(cell.y + cy) * PRIME_Y) ^ (wp.uint32(cell.z + cz) * PRIME_Z)
        row += int(mixed & wp.uint32(cell.rows - 1))
    return row


@wp.func
def _weights(cell: Cell, cx: int, cy: int, cz: int):
    """The corner's weight on each axis."""
    return wp.vec3(
        wp.where(cx == 1, cell.fx, 1.0 - cell.fx),
        wp.where(cy == 1, cell.fy, 1.0 - cell.fy),
        wp.where(cz == 1, cell.fz, 1.0 - cell.fz),
    )


@wp.func
def _signs(cx: int, cy: int, cz: int):
    return wp.vec3(wp.where(cx == 1, 1.0, -1.0), wp.where(cy == 1, 1.0, -1.0), wp.where(cz == 1, 1.0, -1.0))


@wp.kernel(enable_backward=False)
def _encode(
    first: int,
    points: wp.array2d(dtype=float),
    table: wp.array(dtype=wp.vec2),
    resolution: wp.array(dtype=int),
    first_row: wp.array(dtype=int),
    active: int,
    features: wp.array2d(dtype=float),
    jacobian: wp.array3d(dtype=float),
):
    item = first + wp.tid()
    level = item // points.shape[0]
    i = item - level * points.shape[0]
    value = wp.vec2(0.0, 0.0)
    dx = wp.vec2(0.0, 0.0)
    dy = wp.vec2(0.0, 0.0)
    dz = wp.vec2(0.0, 0.0)
    if level < active:
        cell = _cell(points, i, resolution[level], first_row[level], first_row[level + 1] - first_row[level])
        for corner in range(8):
            cx = corner & 1
            cy = (corner >> 1) & 1
            cz = corner >> 2
            w = _weights(cell, cx, cy, cz)
            s = _signs(cx, cy, cz)
            entry = table[_row(cell, cx, cy, cz)]
            value += entry * (w[0] * w[1] * w[2])
            dx += entry * (s[0] * w[1] * w[2])
            dy += entry * (s[1] * w[0] * w[2])
            dz += entry * (s[2] * w[0] * w[1])
    slope = 0.5 * float(resolution[level])
    for f in range(2):
        column = 2 * level + f
        features[i, column] = value[f]
        if jacobian.shape[0] > 0:
            jacobian[i, 0, column] = dx[f] * slope
            jacobian[i, 1, column] = dy[f] * slope
            jacobian[i, 2, column] = dz[f] * slope


@wp.func
def _pair(grad: wp.array3d(dtype=float), i: int, axis: int, column: int, slope: float):
    pair = wp.vec2(0.0, 0.0)
    if grad.shape[0] > 0:
        pair = wp.vec2(grad[i, axis, column], grad[i, axis, column + 1]) * slope
    return pair


@wp.kernel(enable_backward=False)
def _scatter(
    first: int,
    points: wp.array2d(dtype=float),
    resolution: wp.array(dtype=int),
    first_row: wp.array(dtype=int),
    active: int,
    grad_features: wp.array2d(dtype=float),
    grad_jacobian: wp.array3d(dtype=float),
    grad_table: wp.array(dtype=wp.vec2),
):
    item = first + wp.tid()
    level = item // points.shape[0]
    i = item - level * points.shape[0]
    if level < active:
        cell = _cell(points, i, resolution[level], first_row[level], first_row[level + 1] - first_row[level])
        slope = 0.5 * float(resolution[level])
        column = 2 * level
        g = wp.vec2(grad_features[i, column], grad_features[i, column + 1])
        gx = _pair(grad_jacobian, i, 0, column, slope)
        gy = _pair(grad_jacobian, i, 1, column, slope)
        gz = _pair(grad_jacobian, i, 2, column, slope)
        for corner in range(8):
            cx = corner & 1
            cy = (corner >> 1) & 1
            cz = corner >> 2
            w = _weights(cell, cx, cy, cz)
            s = _signs(cx, cy, cz)
            share = g * (w[0] * w[1] * w[2]) + gx * (s[0] * w[1] * w[2])
            share += gy * (s[1] * w[0] * w[2]) + gz * (s[2] * w[0] * w[1])
            wp.atomic_add(grad_table, _row(cell, cx, cy, cz), share)


@wp.kernel(enable_backward=False)
def _point_gradient(
    first: int,
    points: wp.array2d(dtype=float),
    resolution: wp.array(dtype=int),
    first_row: wp.array(dtype=int),
    active: int,
    table: wp.array(dtype=wp.vec2),
    grad_features: wp.array2d(dtype=float),
    grad_jacobian: wp.array3d(dtype=float),
    grad_points: wp.array2d(dtype=float),
):
    i = first + wp.tid()
    total = wp.vec3(0.0, 0.0, 0.0)
    for level in range(wp.min(active, resolution.shape[0])):
        cell = _cell(points, i, resolution[level], first_row[level], first_row[level + 1] - first_row[level])
        slope = 0.5 * float(resolution[level])
        column = 2 * level
        g = wp.vec2(grad_features[i, column], grad_features[i, column + 1])
        gx = _pair(grad_jacobian, i, 0, column, slope)
        gy = _pair(grad_jacobian, i, 1, column, slope)
        gz = _pair(grad_jacobian, i, 2, column, slope)
        for corner in range(8):
            cx = corner & 1
            cy = (corner >> 1) & 1
            cz = corner >> 2
            w = _weights(cell, cx, cy, cz)
            s = _signs(cx, cy, cz)
            entry = table[_row(cell, cx, cy, cz)]
            h = wp.dot(entry, g)
            jx = wp.dot(entry, gx)
            jy = wp.dot(entry, gy)
            jz = wp.dot(entry, gz)
            # The trilinear weights have no second derivative along one axis, only mixed ones.
            total += (
                wp.vec3(
                    s[0] * (h * w[1] * w[2] + jy * s[1] * w[2] + jz * s[2] * w[1]),
                    s[1] * (h * w[0] * w[2] + jx * s[0] * w[2] + jz * s[2] * w[0]),
                    s[2] * (h * w[0] * w[1] + jx * s[0] * w[1] + jy * s[1] * w[0]),
                )
                * slope
            )
    for axis in range(3):
        grad_points[i, axis] = total[axis] * wp.where(wp.abs(points[i, axis]) < 1.0, 1.0, 0.0)
