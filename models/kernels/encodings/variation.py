"""Total variation of the numbers at the corners of voxels, with its gradient, on some corners of the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.encodings.factor_blocks import LINKED
from models.kernels.encodings.factors import REGISTERS, Factors
from models.kernels.encodings.table_gradients import sums, zeros_like
from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import at_once, launch
from models.kernels.runtime.native import Floats, Ints, Rows, native_kernel

GRAIN = 4096  # corners that are worth a second thread


@dataclass(frozen=True)
class Stretch:
    """`count` corners of a grid from the number first [1] int32 on, in the order of the rows; after the last the first.

    corners: of the whole grid. scale: [3] float32, what multiplies the difference of neighbors on x, y and z.
    """

    first: Tensor
    count: int
    corners: int
    scale: Tensor


def voxel_variation(table: Tensor, factors: Factors, stretch: Stretch) -> Tensor:
    """[] mean over the corners of the stretch of sqrt(dx^2 + dy^2 + dz^2 + 1e-9), summed over the numbers of a row.

    table: [N, F] float32, of one grid. d: scaled differences to the next corners, none behind the last on an axis. A
    corner without a row counts as zeros; where none of the four has one, nothing is added. Differentiable in table,
    once.
    """
    return _Variation.apply(table, factors, stretch)


class _Variation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, factors: Factors, stretch: Stretch) -> Tensor:
        ctx.save_for_backward(table)
        ctx.layout = factors, stretch
        out = table.new_empty(stretch.count)
        inputs = [*_arguments(table, factors, stretch), out]
        launch(_measure, stretch.count, inputs, device=table.device, grain=GRAIN)
        return out.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (table,) = ctx.saved_tensors
        factors, stretch = ctx.layout
        grad_table, rows = sums.of(table, fresh=zeros_like)
        wide = at_once(table.shape[1], REGISTERS, table.device)
        count, shares = stretch.count, table.shape[1] // wide
        inputs = [*_arguments(table, factors, stretch), wide, (grad / count).view(1), rows]
        # What a thread of a CPU adds to are its own numbers of the rows.
        launch(_scatter, count * shares, inputs, device=table.device, block=count, grain=GRAIN)
        return grad_table, None, None


def _arguments(table: Tensor, factors: Factors, stretch: Stretch) -> list[Any]:
    _, links, resolution, _ = factors.arguments()
    return [table.detach(), links, resolution, stretch.first, stretch.count, stretch.corners, stretch.scale]


# The rows of a corner and of the next ones, null for those without one, and the vector of `V` at a number of each.
_CORNER = (
    TYPES
    + LINKED
    + """
    #undef V_ROOT
    #undef ADD_NUMBERS
#if defined(__CUDA_ARCH__)
    #define V_ROOT(v) sqrtf(v)
    #define ADD_NUMBERS(to, add) atomicAdd(to, add)
#else
    #define V_ROOT(v) __builtin_elementwise_sqrt(v)
    #define ADD_NUMBERS(to, add) *(loose*)(to) += add
    typedef float wide16 __attribute__((ext_vector_type(16)));
    typedef float wide4 __attribute__((ext_vector_type(4)));
#endif
    const int numbers = table.shape[1];
    const unsigned corner = (unsigned)(((long long)first.data[0] + item % count) % corners);
    const unsigned sides[3] = {resolution.data[0] + 1u, resolution.data[1] + 1u, resolution.data[2] + 1u};
    const unsigned at[3] = {corner % sides[0], corner / sides[0] % sides[1], corner / sides[0] / sides[1]};
    const unsigned steps[3] = {1u, sides[0], sides[0] * sides[1]};
    long long row[4];
    bool within[3], any = false;
    for (int i = 0; i < 4; ++i) {
        if (i > 0) within[i - 1] = at[i - 1] + 1 < sides[i - 1];
        const bool real = i == 0 || within[i - 1];
        const unsigned place = real ? corner + (i > 0 ? steps[i - 1] : 0u) : corner;
        if (links.shape[0] > 0) row[i] = linked(place); else row[i] = place;
        any = any || (real && row[i] >= 0);
    }
"""
)


@native_kernel(
    _CORNER
    + """
    float total = 0.0f;
    if (any)
        for (int n = 0; n < numbers; ++n) {
            const float own = row[0] < 0 ? 0.0f : table.data[row[0] * numbers + n];
            float square = 1e-9f;
            for (int axis = 0; axis < 3; ++axis) {
                if (!within[axis]) continue;
                const float next = row[axis + 1] < 0 ? 0.0f : table.data[row[axis + 1] * numbers + n];
                const float change = (next - own) * scale.data[axis];
                square += change * change;
            }
            total += sqrtf(square);
        }
    out.data[item] = total;
"""
)
def _measure(
    item: int, table: Rows, links: Ints, resolution: Ints, first: Ints, count: int, corners: int, scale: Floats,
    out: Floats,
): ...


@native_kernel(
    _CORNER
    + """
    if (!any) return;
    const int from = item / count * wide;
    auto work = [&](auto nothing) {
        typedef decltype(nothing) V;
        typedef V loose __attribute__((aligned(4)));
        const V own = row[0] < 0 ? nothing : (V)*(const loose*)(table.data + row[0] * numbers + from);
        V change[3], square = nothing + 1e-9f, sum = nothing;
        for (int axis = 0; axis < 3; ++axis) {
            change[axis] = nothing;
            if (!within[axis]) continue;
            const long long r = row[axis + 1];
            const V next = r < 0 ? nothing : (V)*(const loose*)(table.data + r * numbers + from);
            change[axis] = (next - own) * scale.data[axis];
            square += change[axis] * change[axis];
        }
        const V by = grad.data[0] / V_ROOT(square);
        for (int axis = 0; axis < 3; ++axis) {
            const V slope = by * change[axis] * scale.data[axis];
            sum -= slope;
            if (within[axis] && row[axis + 1] >= 0) ADD_NUMBERS(rows.data + row[axis + 1] * numbers + from, slope);
        }
        if (row[0] >= 0) ADD_NUMBERS(rows.data + row[0] * numbers + from, sum);
    };
#if defined(__CUDA_ARCH__)
    work(0.0f);
#else
    if (wide == 16) work((wide16)0.0f); else if (wide == 4) work((wide4)0.0f); else work(0.0f);
#endif
"""
)
def _scatter(
    item: int, table: Rows, links: Ints, resolution: Ints, first: Ints, count: int, corners: int, scale: Floats,
    wide: int, grad: Floats, rows: Rows,
): ...
