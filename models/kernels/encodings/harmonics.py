"""Real spherical harmonics of directions in one pass, and their backward pass in another.

In torch they are some fifty short operations forward and twice as many backward, each over all points.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES, launch_blocks
from models.kernels.runtime.native import Rows, native_kernel

MOST_DEGREE = 3
GRAIN = 256  # blocks that are worth a second thread

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


def harmonics(x: Tensor, *, degree: int) -> Tensor:
    """The real spherical harmonics up to `degree`, 0 to 3, orthonormal on the sphere.

    x: [M, 3] float32 unit vectors. Returns [M, (degree + 1)^2], by degree and within it by order -l .. l.
    Differentiable in x, once, as polynomials of the three coordinates.
    """
    if not 0 <= degree <= MOST_DEGREE:
        raise ValueError(f"degree {degree}: expected 0 to {MOST_DEGREE}")
    return _Harmonics.apply(x, degree)


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, degree: int) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        values = x.new_empty(len(x), (degree + 1) ** 2)
        launch_blocks(_forward, len(x), [x, values], device=x.device, grain=GRAIN)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        launch_blocks(_backward, len(x), [x, grad.contiguous(), out], device=x.device, grain=GRAIN)
        return out, None


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
def _forward(block: int, x: Rows, values: Rows): ...


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
def _backward(block: int, x: Rows, values: Rows, out: Rows): ...
