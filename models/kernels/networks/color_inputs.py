"""The inputs of a color network: mirrored directions, harmonics, joined rows; and off_unit, of the same gradients.

In torch these are chains of short operations, each over all points, and twice as many backward: a handful for a mirror,
some fifty for the harmonics. The parts of a row are copied once there, and backward each is cut out again, with zeros
around it where it was a part itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import lanes, launch, launch_blocks
from models.kernels.runtime.native import Floats, Rows, native_kernel

MOST_DEGREE = 3
MOST_PARTS = 3
GRAIN = 256  # blocks that are worth a second thread
ROWS = 128  # blocks of rows to join that are worth one


def mirrored(directions: Tensor, gradient: Tensor) -> Tensor:
    """Directions [*N, 3] float32 after a mirror with normals along `gradient` [*N, 3].

    d - 2 (d . g) g / (|g|^2 + 1e-12). Differentiable in both, once.
    """
    return _Mirrored.apply(gradient, directions)


def off_unit(gradient: Tensor) -> Tensor:
    """[*N] (|g| - 1)^2 of gradients [*N, 3] float32, |g|^2 with 1e-12 more. Differentiable in gradient, once."""
    return _OffUnit.apply(gradient)


def harmonics(x: Tensor, *, degree: int) -> Tensor:
    """The real spherical harmonics up to `degree`, 0 to 3, orthonormal on the sphere.

    x: [M, 3] float32 unit vectors. Returns [M, (degree + 1)^2], by degree and within it by order -l .. l.
    Differentiable in x, once, as polynomials of the three coordinates.
    """
    if not 0 <= degree <= MOST_DEGREE:
        raise ValueError(f"degree {degree}: expected 0 to {MOST_DEGREE}")
    return _Harmonics.apply(x, degree)


def split(output: Tensor) -> tuple[Tensor, Tensor]:
    """A network's output [*N, 1 + F]: its first column [*N], and the others [*N, F], which stay where they are.

    Differentiable in output, once.
    """
    return _Split.apply(output)


def joined(features: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Parts and features side by side in rows [*N, sum of K + F].

    features: [*N, F] float32, as of `split`. parts: at most three [*N, K]. Differentiable in both, once. Raises
    ValueError for more parts.
    """
    if len(parts) > MOST_PARTS:
        raise ValueError(f"{len(parts)} parts: expected at most {MOST_PARTS}")
    return _Joined.apply(features, *parts)


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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        rows, of_directions = grad.contiguous().view(-1, 3), None
        out = torch.empty_like(ctx.saved_tensors[0])
        _by_blocks(_mirror_back, list(ctx.saved_tensors), rows, out)
        if ctx.needs_input_grad[1]:  # a mirror is its own transpose
            of_directions = torch.empty_like(out)
            _by_blocks(_mirror, [ctx.saved_tensors[0], rows], of_directions)
            of_directions = of_directions.view(grad.shape)
        return out.view(grad.shape), of_directions


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


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, degree: int) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        values = x.new_empty(len(x), (degree + 1) ** 2)
        launch_blocks(_expand, len(x), [x, values], device=x.device, grain=GRAIN)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        launch_blocks(_expand_back, len(x), [x, grad.contiguous(), out], device=x.device, grain=GRAIN)
        return out, None


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor) -> tuple[Tensor, Tensor]:
        ctx.shape = output.shape
        ctx.set_materialize_grads(False)
        return output[..., 0].contiguous(), output.detach()[..., 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor | None, of_features: Tensor | None) -> Tensor | None:
        given = of_value if of_value is not None else of_features
        if given is None:
            return None
        shape = ctx.shape[:-1]
        of_value = given.new_zeros(shape) if of_value is None else of_value
        of_features = given.new_zeros(*shape, ctx.shape[-1] - 1) if of_features is None else of_features
        return torch.cat([of_value[..., None], of_features], -1)


def _with_first(features: Tensor) -> Tensor:
    """[N, 1 + F], of which features [*N, F] are the last columns; the same memory where they lie in such rows."""
    width = features.shape[-1] + 1
    steps = list(features.stride())
    rows = [width * features.shape[i + 1 : -1].numel() for i in range(features.dim() - 1)]
    if features.numel() and steps == [*rows, 1] and features.storage_offset() % width == 1 % width:
        count = features.shape[:-1].numel()
        return features.as_strided((count, width), (width, 1), features.storage_offset() - 1)
    return torch.nn.functional.pad(features, (1, 0)).view(-1, width)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, *parts: Tensor) -> Tensor:
        rows = [_with_first(features), *(x.contiguous().view(-1, x.shape[-1]) for x in parts)]
        ctx.shape, ctx.widths = features.shape[:-1], [features.shape[-1], *(x.shape[-1] for x in parts)]
        seen = features.new_empty(len(rows[0]), sum(ctx.widths))
        _by_rows(_join, rows, seen)
        return seen.view(*ctx.shape, seen.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_seen: Tensor) -> tuple[Tensor | None, ...]:
        of_seen = of_seen.contiguous().view(-1, sum(ctx.widths))
        wanted = [need or i == 0 for i, need in enumerate(ctx.needs_input_grad)]
        found = [of_seen.new_empty(len(of_seen) if w else 0, n) for w, n in zip(wanted, ctx.widths, strict=True)]
        _by_rows(_part, found, of_seen)
        return tuple(x.view(*ctx.shape, x.shape[1]) if w else None for x, w in zip(found, wanted, strict=True))


def _by_rows(kernel: Any, rows: list[Tensor], seen: Tensor) -> None:
    nothing, device = seen.new_empty(0, 0), seen.device
    per_block = lanes(device)
    blocks = -(-len(seen) // per_block) if per_block > 1 else seen.numel()
    launch(kernel, blocks, [*rows, *[nothing] * (MOST_PARTS + 1 - len(rows)), seen], device=device, grain=ROWS)


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


# The factors of the basis functions, orthonormal on the sphere, in the order in which they are used.
_FACTORS = """
    const float c0 = 0.28209479177387814f, c1 = 0.4886025119029199f, c2 = 1.0925484305920792f;
    const float c3 = 0.31539156525252005f, c4 = 0.5462742152960396f, c5 = 0.5900435899266435f;
    const float c6 = 2.890611442640554f, c7 = 0.4570457994644658f, c8 = 0.3731763325901154f, c9 = 1.445305721320277f;
    const int width = values.shape[1];
    BLOCK_OF(x);
    vf a, b, c;
    LOAD3(a, b, c, x.data + 3 * (size_t)start, end);
    const vf aa = a * a, bb = b * b, cc = c * c;
"""


@native_kernel(
    TYPES
    + _FACTORS
    + """
    vf y[16];
    y[0] = c0;
    if (width > 1) { y[1] = c1 * b; y[2] = c1 * c; y[3] = c1 * a; }
    if (width > 4) {
        y[4] = c2 * a * b; y[5] = c2 * b * c; y[6] = c3 * (3.0f * cc - 1.0f); y[7] = c2 * a * c; y[8] = c4 * (aa - bb);
    }
    if (width > 9) {
        y[9] = c5 * b * (3.0f * aa - bb); y[10] = c6 * a * b * c; y[11] = c7 * b * (5.0f * cc - 1.0f);
        y[12] = c8 * c * (5.0f * cc - 3.0f); y[13] = c7 * a * (5.0f * cc - 1.0f); y[14] = c9 * c * (aa - bb);
        y[15] = c5 * a * (aa - 3.0f * bb);
    }
    for (int l = 0; l < end; ++l) {
        float* to = values.data + (size_t)(start + l) * width;
        for (int k = 0; k < width; ++k) to[k] = LANE(y[k], l);
    }
"""
)
def _expand(block: int, x: Rows, values: Rows): ...


@native_kernel(
    TYPES
    + _FACTORS
    + """
    vf g[16];
    for (int k = 0; k < width; ++k) g[k] = 0.0f;
    for (int l = 0; l < end; ++l) {
        const float* from = values.data + (size_t)(start + l) * width;
        for (int k = 0; k < width; ++k) LANE(g[k], l) = from[k];
    }
    vf da = 0.0f, db = 0.0f, dc = 0.0f;
    if (width > 1) { da = c1 * g[3]; db = c1 * g[1]; dc = c1 * g[2]; }
    if (width > 4) {
        da += c2 * (b * g[4] + c * g[7]) + 2.0f * c4 * a * g[8];
        db += c2 * (a * g[4] + c * g[5]) - 2.0f * c4 * b * g[8];
        dc += c2 * (b * g[5] + a * g[7]) + 6.0f * c3 * c * g[6];
    }
    if (width > 9) {
        const vf ring = 3.0f * c5 * (aa - bb), cross = 6.0f * c5 * a * b, tall = c7 * (5.0f * cc - 1.0f);
        da += cross * g[9] + c6 * b * c * g[10] + tall * g[13] + 2.0f * c9 * a * c * g[14] + ring * g[15];
        db += ring * g[9] + c6 * a * c * g[10] + tall * g[11] - 2.0f * c9 * b * c * g[14] - cross * g[15];
        dc += c6 * a * b * g[10] + 10.0f * c7 * c * (b * g[11] + a * g[13]) + c9 * (aa - bb) * g[14];
        dc += 3.0f * c8 * (5.0f * cc - 1.0f) * g[12];
    }
    STORE3(out.data + 3 * (size_t)start, end, da, db, dc);
"""
)
def _expand_back(block: int, x: Rows, values: Rows, out: Rows): ...


# `COPY(to, from, n, at)` n numbers of a row, which has them from column `at` on. A GPU's thread has one number of one
# row. A CPU's block has whole rows, and copies beyond the end of a part where what it overwrites is written later and
# there is that much to read.
_ROWS = (
    TYPES
    + """
    const int width = seen.shape[1], count = seen.shape[0];
    #undef COPY
#if defined(__CUDA_ARCH__)
    const int begin = block / width, stop = begin + 1, column = block % width;
    #define COPY(to, from, n, at) if (column >= at && column < at + (n)) (to)[column - at] = (from)[column - at]
#else
    const int begin = block * LANES, stop = count - begin < LANES ? count : begin + LANES;
    #define COPY(to, from, n, at) do { \\
        float* to_ = to; const float* from_ = from; const int n_ = n; \\
        if ((long long)(stop - r) * n_ < (n_ + LANES - 1) / LANES * LANES) \\
            for (int k = 0; k < n_; ++k) to_[k] = from_[k]; \\
        else for (int k = 0; k < n_; k += LANES) \\
            *(block_of_floats*)(to_ + k) = *(const block_of_floats*)(from_ + k); } while (0)
#endif
    for (int r = begin; r < stop; ++r) {
        float* const row = seen.data + (size_t)r * width;
        int at = 0;
"""
)


# The features stand in rows behind a column of their own, as `split` leaves them.
@native_kernel(
    _ROWS
    + """
        const int n = features.shape[1] - 1;
        COPY(row, a.data + (size_t)r * a.shape[1], a.shape[1], at); at += a.shape[1];
        COPY(row + at, b.data + (size_t)r * b.shape[1], b.shape[1], at); at += b.shape[1];
        COPY(row + at, c.data + (size_t)r * c.shape[1], c.shape[1], at); at += c.shape[1];
        COPY(row + at, features.data + (size_t)r * (n + 1) + 1, n, at);
    }
"""
)
def _join(block: int, features: Rows, a: Rows, b: Rows, c: Rows, seen: Rows): ...


@native_kernel(
    _ROWS
    + """
        if (a.shape[0] > 0) COPY(a.data + (size_t)r * a.shape[1], row, a.shape[1], at);
        at += a.shape[1];
        if (b.shape[0] > 0) COPY(b.data + (size_t)r * b.shape[1], row + at, b.shape[1], at);
        at += b.shape[1];
        if (c.shape[0] > 0) COPY(c.data + (size_t)r * c.shape[1], row + at, c.shape[1], at);
        at += c.shape[1];
        const int n = features.shape[1];
        COPY(features.data + (size_t)r * n, row + at, n, at);
    }
"""
)
def _part(block: int, features: Rows, a: Rows, b: Rows, c: Rows, seen: Rows): ...
