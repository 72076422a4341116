"""The pixels of views of several sizes by number: where each is, what is stored of it, what it is scored by.

layout, everywhere: [V, 4] int64, of each view the number of its first pixel, its width and height, and its camera. The
numbers count through view, row, column.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import ByteRows, Floats, LongRows, Longs, Rows, native_kernel

ALONE = 2**30  # items that are worth a second thread of a CPU, where threads would add to the same numbers


def locate(pixels: Tensor, layout: Tensor) -> tuple[Tensor, Tensor]:
    """Cameras [R] int64 and centers [R, 2] float32, (u, v) in pixels, of the pixels of the numbers [R] int64.

    layout: [V, 4], see above. Not differentiable.
    """
    camera, point = torch.empty_like(pixels), torch.empty(len(pixels), 2, device=pixels.device)
    launch(_locate, len(pixels), [pixels, layout, camera, point], device=pixels.device)
    return camera, point


def rows(table: Tensor, pixels: Tensor) -> Tensor:
    """[R, K] uint8, the rows of a table [P, K] uint8 at the numbers [R] int64; not differentiable."""
    out = torch.empty(len(pixels), table.shape[1], dtype=torch.uint8, device=pixels.device)
    launch(_rows, len(pixels), [table, pixels, out], device=pixels.device)
    return out


def gradients(pixels: Tensor, layout: Tensor, color: Tensor, *, unit: float) -> Tensor:
    """[M] int64, in units of 1 / `unit`: length of the color's gradient at the numbers [M], levels per two pixels.

    layout: [V, 4], see above. color: [P, 3] uint8. As `dataio.selection.by_gradient.gradient`, number for number. Not
    differentiable.
    """
    out = torch.empty_like(pixels)
    launch(_gradients, len(pixels), [pixels, layout, color, unit, out], device=pixels.device)
    return out


def cells(pixels: Tensor, layout: Tensor, grids: Tensor, *, side: int) -> Tensor:
    """[M] int64, the squares of side x side pixels that the numbers [M] lie in.

    layout: [V, 4], see above. grids: [V, 2] int64, of each view its first square and how many there are in a row. Not
    differentiable.
    """
    out = torch.empty_like(pixels)
    launch(_cells, len(pixels), [pixels, layout, grids, side, out], device=pixels.device)
    return out


def add_errors(sums: Tensor, bins: Tensor, error: Tensor, *, unit: float, largest: float) -> None:
    """Add errors, in whole units, to the first row of sums [2, C] int64, and their number to the second, in place.

    bins: [R] int64 in 0 .. C-1. error: [R] float32, cut to 0 .. largest; what is not finite is left out. unit: a power
    of two. Not differentiable.
    """
    given = [bins, error.contiguous(), 1 / unit, largest, sums]
    launch(_add_errors, len(bins), given, device=sums.device, grain=ALONE)


# Where a pixel is: the last view that begins at its number or before.
_WHERE = """
    const long long pixel = pixels.data[item];
    int view = 0;
    for (int above = layout.shape[0]; above - view > 1;) {
        const int middle = (view + above) / 2;
        (layout.data[4 * middle] <= pixel ? view : above) = middle;
    }
    const long long* about = layout.data + 4 * view;
    const long long start = about[0], width = about[1], height = about[2];
    const long long row = (pixel - start) / width, column = (pixel - start) % width;
"""


@native_kernel(
    _WHERE
    + """
    camera.data[item] = about[3];
    point.data[2 * item] = (float)column + 0.5f;
    point.data[2 * item + 1] = (float)row + 0.5f;
"""
)
def _locate(item: int, pixels: Longs, layout: LongRows, camera: Longs, point: Rows): ...


@native_kernel("""
    const int width = table.shape[1];
    const unsigned char* from = table.data + (size_t)pixels.data[item] * width;
    for (int k = 0; k < width; ++k) out.data[(size_t)item * width + k] = from[k];
""")
def _rows(item: int, table: ByteRows, pixels: Longs, out: ByteRows): ...


@native_kernel(
    _WHERE
    + """
    const unsigned char* here = color.data + 3 * (size_t)pixel;
    const unsigned char *left = here - 3 * (column > 0), *right = here + 3 * (column < width - 1);
    const unsigned char *above = here - 3 * width * (row > 0), *below = here + 3 * width * (row < height - 1);
    int square = 0;
    for (int k = 0; k < 3; ++k) {
        const int across = (int)right[k] - left[k], down = (int)below[k] - above[k];
        square += across * across + down * down;
    }
    out.data[item] = (long long)(wp::sqrt((double)square) * unit);
"""
)
def _gradients(item: int, pixels: Longs, layout: LongRows, color: ByteRows, unit: wp.float64, out: Longs): ...


@native_kernel(
    _WHERE
    + """
    out.data[item] = grids.data[2 * view] + row / side * grids.data[2 * view + 1] + column / side;
"""
)
def _cells(item: int, pixels: Longs, layout: LongRows, grids: LongRows, side: int, out: Longs): ...


@native_kernel("""
    const float given = error.data[item];
    if (!(given - given == 0.0f)) return;  // not finite
    const float cut = given < 0.0f ? 0.0f : given > largest ? largest : given;
    const int bins_ = sums.shape[1];
    wp::atomic_add(sums.data + bins.data[item], (wp::int64)(cut * per_unit));
    wp::atomic_add(sums.data + bins_ + bins.data[item], (wp::int64)1);
""")
def _add_errors(item: int, bins: Longs, error: Floats, per_unit: float, largest: float, sums: LongRows): ...
