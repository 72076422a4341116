"""The inputs of a color network, side by side in one array, and their gradients from its own.

In torch the parts of a row are copied once, and backward each is cut out again, with zeros around it where it was a
part itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES, lanes
from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Floats, Rows, native_kernel

MOST = 3  # parts
GRAIN = 128  # blocks of rows that are worth a second thread


def joined(output: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The first column of a network's output, and the parts in a row with its other columns.

    output: [*N, 1 + F] float32. parts: at most three [*N, K]. Returns [*N] and [*N, sum of K + F]. Differentiable in
    output and parts, once. Raises ValueError for more parts.
    """
    if len(parts) > MOST:
        raise ValueError(f"{len(parts)} parts: expected at most {MOST}")
    return _Joined.apply(output, *parts)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        rows = [x.contiguous().view(-1, x.shape[-1]) for x in (output, *parts)]
        ctx.shape, ctx.widths = output.shape[:-1], [x.shape[1] for x in rows]
        ctx.set_materialize_grads(False)
        value, seen = output.new_empty(len(rows[0])), output.new_empty(len(rows[0]), sum(ctx.widths) - 1)
        _by_rows(_join, rows, value, seen)
        return value.view(ctx.shape), seen.view(*ctx.shape, seen.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor | None, of_seen: Tensor | None) -> tuple[Tensor | None, ...]:
        given = of_value if of_value is not None else of_seen
        if given is None:
            return (None,) * len(ctx.widths)
        count = ctx.shape.numel()
        of_value = given.new_zeros(count) if of_value is None else of_value.contiguous().view(-1)
        width = sum(ctx.widths) - 1
        of_seen = given.new_zeros(count, width) if of_seen is None else of_seen.contiguous().view(-1, width)
        wanted = [need or i == 0 for i, need in enumerate(ctx.needs_input_grad)]
        found = [given.new_empty(count if want else 0, w) for want, w in zip(wanted, ctx.widths, strict=True)]
        _by_rows(_part, found, of_value, of_seen)
        return tuple(x.view(*ctx.shape, x.shape[1]) if want else None for x, want in zip(found, wanted, strict=True))


def _by_rows(kernel: Any, rows: list[Tensor], value: Tensor, seen: Tensor) -> None:
    nothing, device = value.new_empty(0, 0), value.device
    per_block = lanes(device)
    blocks = -(-len(seen) // per_block) if per_block > 1 else seen.numel() + len(seen)
    launch(kernel, blocks, [*rows, *[nothing] * (MOST + 1 - len(rows)), value, seen], device=device, grain=GRAIN)


# `COPY(to, from, n, at)` n numbers of a row, which has them from column `at` on. A GPU's thread has one number of one
# row, or the first of the output. A CPU's block has whole rows, and copies beyond the end of a part where what it
# overwrites is written later and there is that much to read.
_ROWS = (
    TYPES
    + """
    const int width = seen.shape[1], count = seen.shape[0], features = output.shape[1] - 1;
    #undef COPY
    #undef HAS_FIRST
#if defined(__CUDA_ARCH__)
    const int begin = block / (width + 1), stop = begin + 1, column = block % (width + 1);
    #define HAS_FIRST (column == width)
    #define COPY(to, from, n, at) if (column >= at && column < at + (n)) (to)[column - at] = (from)[column - at]
#else
    const int begin = block * LANES, stop = count - begin < LANES ? count : begin + LANES;
    #define HAS_FIRST true
    #define COPY(to, from, n, at) do { \\
        float* to_ = to; const float* from_ = from; const int n_ = n; \\
        if ((long long)(stop - r) * n_ < (n_ + LANES - 1) / LANES * LANES) \\
            for (int k = 0; k < n_; ++k) to_[k] = from_[k]; \\
        else for (int k = 0; k < n_; k += LANES) \\
            *(block_of_floats*)(to_ + k) = *(const block_of_floats*)(from_ + k); } while (0)
#endif
    for (int r = begin; r < stop; ++r) {
        float* const row = seen.data + (size_t)r * width;
        float* const first = output.data + (size_t)r * (features + 1);
        int at = 0;
"""
)


@native_kernel(
    _ROWS
    + """
        COPY(row, a.data + (size_t)r * a.shape[1], a.shape[1], at); at += a.shape[1];
        COPY(row + at, b.data + (size_t)r * b.shape[1], b.shape[1], at); at += b.shape[1];
        COPY(row + at, c.data + (size_t)r * c.shape[1], c.shape[1], at); at += c.shape[1];
        COPY(row + at, first + 1, features, at);
        if (HAS_FIRST) value.data[r] = *first;
    }
"""
)
def _join(block: int, output: Rows, a: Rows, b: Rows, c: Rows, value: Floats, seen: Rows): ...


@native_kernel(
    _ROWS
    + """
        if (a.shape[0] > 0) COPY(a.data + (size_t)r * a.shape[1], row, a.shape[1], at);
        at += a.shape[1];
        if (b.shape[0] > 0) COPY(b.data + (size_t)r * b.shape[1], row + at, b.shape[1], at);
        at += b.shape[1];
        if (c.shape[0] > 0) COPY(c.data + (size_t)r * c.shape[1], row + at, c.shape[1], at);
        at += c.shape[1];
        if (HAS_FIRST) *first = value.data[r];
        COPY(first + 1, row + at, features, at);
    }
"""
)
def _part(block: int, output: Rows, a: Rows, b: Rows, c: Rows, value: Floats, seen: Rows): ...
