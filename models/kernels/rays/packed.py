"""Stream compaction of packed samples: which are kept of each ray, their values, their positions.

Ray r owns the samples offsets[r] .. offsets[r+1]-1. In torch this takes a dozen passes over all samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import launch, launch_blocks
from models.kernels.runtime.native import Bytes, Floats, Ints, Longs, Rows, native_kernel

GRAIN = 256  # rays, or blocks of samples, that are worth a second thread


class Compacted(NamedTuple):
    """Samples of R rays among M: ray r keeps those at indices[offsets[r]] .. indices[offsets[r+1]-1]."""

    indices: Tensor  # [K] int64, ascending; M behind offsets[R]
    offsets: Tensor  # [R+1] int32
    total: Tensor  # [] int32, how many there are, beyond the capacity too


def compact(mask: Tensor, offsets: Tensor, capacity: int | None = None) -> Compacted:
    """The samples where mask [M] bool is true, ray by ray; what lies behind offsets[R] is never kept.

    offsets: [R+1] int32, ascending, from 0 to M or less. capacity: the length K of the result; what exceeds it is
    dropped. None: their number, for which the host synchronizes with a GPU. Not differentiable.
    """
    rays, device, words = len(offsets) - 1, mask.device, mask.view(torch.uint8)
    upto, kept = torch.empty(2, rays + 1, dtype=torch.int32, device=device)
    launch(_count, rays + 1, [words, offsets, upto], device=device, grain=GRAIN)
    upto.cumsum_(0)
    if capacity is None:
        indices = torch.empty(int(upto[-1]), dtype=torch.int64, device=device)
    else:
        indices = torch.full((capacity,), len(mask), dtype=torch.int64, device=device)
    launch(_list, rays + 1, [words, offsets, upto, kept, indices], device=device, grain=GRAIN)
    return Compacted(indices, kept, upto[-1])


def gather(index: Tensor, columns: list[Tensor], ray_index: Tensor) -> tuple[list[Tensor], Tensor]:
    """Four columns [M] float32 and the rays of samples [M] int32 at index [K] int64: [K] each.

    For the padding M the last sample stands in. Not differentiable.
    """
    out, rays = columns[0].new_empty(4, len(index)), ray_index.new_empty(len(index))
    given = [index, *(x.contiguous() for x in columns), ray_index]
    launch_blocks(_gather, len(index), [*given, out, rays], device=index.device, grain=GRAIN)
    return list(out), rays


def points(
    origins: Tensor,
    directions: Tensor,
    ray_index: Tensor,
    t: Tensor,
    index: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
) -> Tensor:
    """Where samples are: origin + t direction of their rays; [M, 3], or at index [K] alone, [K, 3].

    origins, directions: [R, 3] float32. ray_index: [M] int32. t: [M]. index: int64; for the padding M the last
    sample stands in. offsets: [R+1] int32, of all samples. Differentiable in origins and directions, once, where
    offsets are given and no index; the distances t are constants.
    """
    moves = torch.is_grad_enabled() and (origins.requires_grad or directions.requires_grad)
    if moves and index is None and offsets is not None and not t.requires_grad:
        return _Points.apply(origins, directions, ray_index, t, offsets)
    return _points_of(origins, directions, ray_index, t, index)


def _points_of(origins: Tensor, directions: Tensor, ray_index: Tensor, t: Tensor, index: Tensor | None) -> Tensor:
    out = t.new_empty(len(t) if index is None else len(index), 3)
    among = torch.empty(0, dtype=torch.int64, device=t.device) if index is None else index
    given = [origins.contiguous(), directions.contiguous(), ray_index, t.contiguous(), among]
    launch_blocks(_points, len(out), [*given, out], device=t.device, grain=GRAIN)
    return out


def preceding(values: Tensor, ray_index: Tensor) -> Tensor:
    """[M] float32, the value of the sample before on the same ray; the first of a ray keeps its own.

    values: [M] float32. ray_index: [M] int32. Not differentiable.
    """
    out = torch.empty_like(values)
    launch_blocks(_preceding, len(out), [values.contiguous(), ray_index, out], device=values.device, grain=GRAIN)
    return out


def crossings(
    value: Tensor, t: Tensor, ray_index: Tensor, index: Tensor, starts: Tensor, ends: Tensor, *, steep: float
) -> Tensor:
    """Where the value meets zero, if it does within the interval of a sample, else where it was known; [K].

    value, t: [M] float32, values at distances. ray_index: [M] int32. index: [K] int64, the samples in question; for
    the padding M the last stands in. starts, ends: [K], their intervals. The value is taken as linear from the sample
    before on, falling by `steep` per unit of distance at least; the first of a ray has none before and stays. Not
    differentiable.
    """
    out = torch.empty_like(starts)
    given = [value.contiguous(), t.contiguous(), ray_index, index, starts.contiguous(), ends.contiguous(), -steep]
    launch_blocks(_crossings, len(out), [*given, out], device=t.device, grain=GRAIN)
    return out


class _Points(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, origins: Tensor, directions: Tensor, ray_index: Tensor, t: Tensor, offsets: Tensor
    ) -> Tensor:
        ctx.save_for_backward(t, offsets)
        return _points_of(origins, directions, ray_index, t, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        t, offsets = ctx.saved_tensors
        of_origins, of_directions = grad.new_empty(2, len(offsets) - 1, 3)
        given = [grad.contiguous(), t.contiguous(), offsets, of_origins, of_directions]
        launch(_points_back, len(of_origins), given, device=t.device, grain=GRAIN)
        return of_origins, of_directions, None, None, None


# Item 0 stands in front of the first ray, item r + 1 for ray r.
@native_kernel("""
    int n = 0;
    for (int i = offsets.data[item > 0 ? item - 1 : 0]; i < offsets.data[item]; ++i) n += mask.data[i];
    counts.data[item] = n;
""")
def _count(item: int, mask: Bytes, offsets: Ints, counts: Ints): ...


@native_kernel("""
    const int capacity = indices.shape[0];
    const int end = upto.data[item] < capacity ? upto.data[item] : capacity;
    kept.data[item] = end;
    if (item == 0) return;
    int k = upto.data[item - 1];
    for (int i = offsets.data[item - 1]; k < end; ++i)
        if (mask.data[i]) indices.data[k++] = i;
""")
def _list(item: int, mask: Bytes, offsets: Ints, upto: Ints, kept: Ints, indices: Longs): ...


@native_kernel(
    TYPES
    + """
    BLOCK_OF(out);
    for (int i = (int)start; i < (int)start + end; ++i)
        out.data[i] = values.data[i > 0 && ray_index.data[i - 1] == ray_index.data[i] ? i - 1 : i];
"""
)
def _preceding(block: int, values: Floats, ray_index: Ints, out: Floats): ...


# Each of a block of kept samples: i is the k-th, the last one for padding.
_EACH = """
    const int last = ray_index.shape[0] - 1;
    for (int l = 0; l < end; ++l) {
        const size_t k = start + l;
        const int i = index.shape[0] == 0 ? (int)k : index.data[k] < last ? (int)index.data[k] : last;
"""


@native_kernel(
    TYPES
    + "BLOCK_OF(rays);\n"
    + _EACH
    + """
        out.data[k] = a.data[i];
        out.data[count + k] = b.data[i];
        out.data[2 * count + k] = c.data[i];
        out.data[3 * count + k] = d.data[i];
        rays.data[k] = ray_index.data[i];
    }
"""
)
def _gather(
    block: int, index: Longs, a: Floats, b: Floats, c: Floats, d: Floats, ray_index: Ints, out: Rows, rays: Ints,
): ...


@native_kernel(
    TYPES
    + "BLOCK_OF(out);\n"
    + _EACH
    + """
        const size_t ray = 3 * (size_t)ray_index.data[i];
        const float *o = origins.data + ray, *d = directions.data + ray;
        for (int axis = 0; axis < 3; ++axis) out.data[3 * k + axis] = o[axis] + t.data[i] * d[axis];
    }
"""
)
def _points(block: int, origins: Rows, directions: Rows, ray_index: Ints, t: Floats, index: Longs, out: Rows): ...


@native_kernel("""
    float sum[3] = {0.0f, 0.0f, 0.0f}, along[3] = {0.0f, 0.0f, 0.0f};
    for (int i = offsets.data[r]; i < offsets.data[r + 1]; ++i) {
        const float* g = grad.data + 3 * (size_t)i;
        for (int axis = 0; axis < 3; ++axis) { sum[axis] += g[axis]; along[axis] += t.data[i] * g[axis]; }
    }
    for (int axis = 0; axis < 3; ++axis) {
        of_origins.data[3 * (size_t)r + axis] = sum[axis];
        of_directions.data[3 * (size_t)r + axis] = along[axis];
    }
""")
def _points_back(r: int, grad: Rows, t: Floats, offsets: Ints, of_origins: Rows, of_directions: Rows): ...


@native_kernel(
    TYPES
    + """
    alignas(4 * LANES) float found[6][LANES] = {};
    #undef ALL
    #define ALL(k) *(const vf*)found[k]
"""
    + "BLOCK_OF(out);\n"
    + _EACH
    + """
        const int before = i > 0 && ray_index.data[i - 1] == ray_index.data[i] ? i - 1 : i;
        found[0][l] = t.data[i]; found[1][l] = t.data[before];
        found[2][l] = value.data[i]; found[3][l] = value.data[before];
        found[4][l] = starts.data[k]; found[5][l] = ends.data[k];
    }
    const vf here = ALL(0), there = ALL(1), now = ALL(2), low = ALL(4), high = ALL(5);
    const vf slope = (now - ALL(3)) / VMAX(here - there, (vf)1e-6f);
    const vf meets = here - now / VMIN(slope, (vf)least);
    const vf at = SELECT((here > there) & (low <= meets) & (meets <= high), meets, here);
    STORE_BLOCK(out.data + start, at, end);
"""
)
def _crossings(
    block: int, value: Floats, t: Floats, ray_index: Ints, index: Longs, starts: Floats, ends: Floats, least: float,
    out: Floats,
): ...
