"""Optical depth where a signed distance falls along an interval, by the logistic CDF, and its backward pass.

    tau = relu(log sigmoid(s f0) - log sigmoid(s f1))    f0 = f + slope (t0 - t)    f1 = f + slope (t1 - t)

f is the distance known at t, the slope that along the ray, never positive. In torch these are twenty short operations
and twice as many backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import launch_blocks
from models.kernels.runtime.native import Floats, Rows, native_kernel

GRAIN = 128  # blocks that are worth a second thread


def estimated_optical_depth(before: Tensor, after: Tensor, s: Tensor) -> Tensor:
    """relu(log sigmoid(s before) - log sigmoid(s after)), [*N].

    before, after: [*N] float32, distances. s: [] float32, 1 / their unit. Not differentiable.
    """
    flat = [x.contiguous().view(-1) for x in (before, after)]
    tau = torch.empty_like(flat[0])
    launch_blocks(_estimate, len(tau), [*flat, s.view(1), tau], device=tau.device, grain=GRAIN)
    return tau.view(before.shape)


def optical_depth(
    value: Tensor,
    gradient: Tensor,
    directions: Tensor,
    intervals: tuple[Tensor, Tensor, Tensor],
    s: Tensor,
    anneal: Tensor,
) -> Tensor:
    """Optical depth [*N] >= 0 of intervals, by the distance at a point of each and its gradient.

    value: [*N] float32. gradient, directions: [*N, 3]. intervals: t0, t, t1 [*N], begin, point and end. s: [], 1 / the
    distances' unit. anneal: [] in [0, 1], 1 for the true slope min(cos, 0), 0 for the one that meets every surface,
    min(cos / 2 - 1 / 2, 0), cos the product of gradient and direction. Wang et al., "NeuS" (2021), eq. 13, its alpha is
    1 - exp(-tau); the annealing is its code's.
    Differentiable in value, gradient, directions and s, once; the ends of the intervals are constants.
    """
    return _OpticalDepth.apply(value, gradient, s, directions, *intervals, anneal)


class _OpticalDepth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: Tensor, s: Tensor, directions: Tensor, *rest: Tensor) -> Tensor:
        *intervals, anneal = rest
        rows = [x.contiguous().view(-1, 3) for x in (gradient, directions)]
        given = [*rows, *(x.contiguous().view(-1) for x in (value, *intervals)), s.view(1), anneal.view(1)]
        ctx.save_for_backward(*given)
        ctx.shape, ctx.s = value.shape, s.detach()
        tau = torch.empty_like(given[2])
        launch_blocks(_forward, len(tau), [*given, tau], device=tau.device, grain=GRAIN)
        return tau.view(ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        given, grad = ctx.saved_tensors, grad.contiguous().view(-1)
        of_value, of_gradient, of_s = torch.empty_like(grad), torch.empty_like(given[0]), torch.empty_like(grad)
        given = [*given, grad, of_value, of_gradient, of_s]
        launch_blocks(_backward, len(grad), given, device=grad.device, grain=GRAIN)
        found = of_value.view(ctx.shape), of_gradient.view(*ctx.shape, 3), of_s.sum() / ctx.s
        of_directions = _turned(of_gradient, *given[:2]).view(*ctx.shape, 3) if ctx.needs_input_grad[3] else None
        return *found, of_directions, None, None, None, None


def _turned(of_gradient: Tensor, gradient: Tensor, directions: Tensor) -> Tensor:
    """[M, 3] the loss's gradient in directions by that in gradients: both are those of their product alone."""
    of_cosine = (of_gradient * directions).sum(-1, keepdim=True) / directions.square().sum(-1, keepdim=True)
    return of_cosine * gradient


_LOGISTIC = (
    TYPES
    + """
    const float s = sharpness.data[0];
    #undef FALL
    // log sigmoid(v) by e = exp(-|v|), and the sigmoid of -v, which is its derivative; NaN stays NaN.
    #undef LOG_SIGMOID
    #undef OTHER_SIDE
    #define FALL(v) EXP2(ABS(v) * -1.44269504f)
    #define LOG_SIGMOID(v, e) (SELECT((v) > 0.0f, (vf)0.0f, v) - LOG_1_PLUS(e))
    #define OTHER_SIDE(v, e) (SELECT((v) > 0.0f, e, (vf)1.0f) / (1.0f + e))
"""
)
_ENDS = (
    _LOGISTIC
    + """
    const float full = anneal.data[0];
    BLOCK_OF(value);
    vf f, from, at, to, gx, gy, gz, dx, dy, dz;
    LOAD_BLOCK(f, value.data + start, end);
    LOAD_BLOCK(from, t0.data + start, end);
    LOAD_BLOCK(at, t.data + start, end);
    LOAD_BLOCK(to, t1.data + start, end);
    LOAD3(gx, gy, gz, gradient.data + 3 * start, end);
    LOAD3(dx, dy, dz, directions.data + 3 * start, end);
    const vf cosine = gx * dx + gy * dy + gz * dz;
    const vf slope = -(full * RELU(-cosine) + (1.0f - full) * RELU(0.5f - 0.5f * cosine));
    const vf ahead = from - at, behind = to - at;
    const vf a = s * (f + slope * ahead), b = s * (f + slope * behind);
    const vf ea = FALL(a), eb = FALL(b);
    const vf lost = LOG_SIGMOID(a, ea) - LOG_SIGMOID(b, eb);
"""
)


@native_kernel(
    _LOGISTIC
    + """
    BLOCK_OF(before);
    vf a, b;
    LOAD_BLOCK(a, before.data + start, end);
    LOAD_BLOCK(b, after.data + start, end);
    a *= s; b *= s;
    const vf ea = FALL(a), eb = FALL(b), lost = LOG_SIGMOID(a, ea) - LOG_SIGMOID(b, eb);
    STORE_BLOCK(tau.data + start, RELU(lost), end);
"""
)
def _estimate(block: int, before: Floats, after: Floats, sharpness: Floats, tau: Floats): ...


@native_kernel(_ENDS + "STORE_BLOCK(tau.data + start, RELU(lost), end);\n")
def _forward(
    block: int, gradient: Rows, directions: Rows, value: Floats, t0: Floats, t: Floats, t1: Floats, sharpness: Floats,
    anneal: Floats, tau: Floats,
): ...


@native_kernel(
    _ENDS
    + """
    vf g;
    LOAD_BLOCK(g, grad.data + start, end);
    g = SELECT(lost > 0.0f, g, (vf)0.0f);
    const vf of_a = g * OTHER_SIDE(a, ea), of_b = -g * OTHER_SIDE(b, eb);  // of s f0 and s f1
    const vf whole = s * (of_a + of_b);
    STORE_BLOCK(of_value.data + start, whole, end);
    const vf half = 0.5f - 0.5f * full;
    const vf turn = SELECT(cosine < 0.0f, (vf)full, (vf)0.0f) + SELECT(cosine < 1.0f, half, (vf)0.0f);
    const vf along = s * (of_a * ahead + of_b * behind) * turn;
    STORE3(of_gradient.data + 3 * start, end, along * dx, along * dy, along * dz);
    const vf share = of_a * a + of_b * b;
    STORE_BLOCK(of_s.data + start, share, end);
"""
)
def _backward(
    block: int, gradient: Rows, directions: Rows, value: Floats, t0: Floats, t: Floats, t1: Floats, sharpness: Floats,
    anneal: Floats, grad: Floats, of_value: Floats, of_gradient: Rows, of_s: Floats,
): ...
