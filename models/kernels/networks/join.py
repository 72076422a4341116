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
from models.kernels.runtime.native import Rows, native_kernel

MOST = 3  # parts
GRAIN = 128  # blocks of rows that are worth a second thread


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
    if len(parts) > MOST:
        raise ValueError(f"{len(parts)} parts: expected at most {MOST}")
    return _Joined.apply(features, *parts)


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
    launch(kernel, blocks, [*rows, *[nothing] * (MOST + 1 - len(rows)), seen], device=device, grain=GRAIN)


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
