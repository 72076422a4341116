"""Sums along rays whose samples lie packed one behind the other: scans, totals, compositing.

Ray r owns the samples offsets[r] .. offsets[r+1]-1. Sums are taken within a ray, never across rays: a global running
sum minus its value at the ray's start loses 8e-3 at a quarter of a million float32 samples.

Compositing sums color, distance and normal by weight:

    w_i = T_i (1 - exp(-tau_i))    T_i = exp(-(sum of tau before i))    transmittance = exp(-(sum of all tau))

T_i is the transmittance in front of sample i, `transmittance` that of all samples. Weights are kept for the backward
pass, which walks a ray from its end: what lies behind a sample is then known, and so is the transmittance in front of
it, T_i = transmittance + (sum of the weights from i on), without a difference of large numbers.
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Bytes, Floats, Ints, Rows, native_kernel

SUMS = 7  # color, distance, normal
GRAIN = 256  # rays that are worth a second thread, composited


def composite(tau: Tensor, color: Tensor, t: Tensor, gradient: Tensor | None, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over each ray's samples, and the transmittance behind them.

    tau: [M] float32 >= 0, optical depth. color: [M, 3]. t: [M], distances. gradient: [M, 3] of any length, whose
    direction is the normal; None: no normals. offsets: [R+1] int32, ascending, from 0 to M or less.
    Returns the sums [R, 7] of w_i (color, t, gradient / |gradient|) and transmittance [R] in [0, 1]: 0 and 1 for a ray
    without samples. Differentiable in color, and in tau by way of color, t and transmittance, not of the normals; once.
    Max, "Optical Models for Direct Volume Rendering" (1995), eq. 9.
    """
    return _Composite.apply(tau, color, t, gradient, offsets)


def exclusive_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of all earlier samples of the same ray, for every sample.

    values: [M] float32. offsets: [R+1] int32, ascending, from 0 to M or less; empty rays are allowed.
    Returns [M]: 0 for the first sample of a ray, and for what lies behind offsets[R], where that is less than M.
    Differentiable in `values`, once. Example: values [1, 2, 3 | 4, 5] -> [0, 1, 3 | 0, 4].
    """
    return _ExclusiveSum.apply(values, offsets)


def total(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum over the samples of each ray.

    values: [M] or [M, K] float32. offsets: [R+1] int32 as in `exclusive_sum`.
    Returns [R] or [R, K]: 0 for a ray without samples. Differentiable in `values`, once.
    """
    if values.ndim == 1:
        return _Total.apply(values[:, None], offsets)[:, 0]
    return _Total.apply(values, offsets)


def spread(per_ray: Tensor, ray_index: Tensor, offsets: Tensor) -> Tensor:
    """Each sample gets its ray's row: the transpose of `total`, [R, ...] -> [M, ...].

    per_ray: [R, K] float32, or of any type and shape. ray_index: [M] int32, the samples' rays. offsets: as in
    `exclusive_sum`. Differentiable in per_ray; [R, K] float32 once, by sums whose order is that of the samples.
    """
    if torch.is_grad_enabled() and per_ray.requires_grad and per_ray.ndim == 2 and per_ray.dtype == torch.float32:
        return _Spread.apply(per_ray, ray_index, offsets)
    return per_ray.index_select(0, ray_index)


def unbroken(starts: Tensor, ends: Tensor, offsets: Tensor) -> Tensor:
    """Whether the samples of a ray up to this one follow one another without half a step between; bool [M].

    starts, ends: [M] float32, ascending within a ray. offsets: as in `exclusive_sum`; what lies behind is false. Not
    differentiable.
    """
    out = torch.zeros(len(starts), dtype=torch.uint8, device=starts.device)
    given = [starts.contiguous(), ends.contiguous(), offsets]
    launch(_unbroken, len(offsets) - 1, [*given, out], device=starts.device)
    return out.view(torch.bool)


def below(values: Tensor, counted: Tensor, offsets: Tensor, *, most: float) -> Tensor:
    """Whether the sum of all earlier samples of the same ray is less than `most`; bool [M].

    values: [M] float32. counted: [M] bool, which of them the sum has. offsets: as in `exclusive_sum`; what lies behind
    is false, and so is all that follows a NaN that is counted. Not differentiable.
    """
    out = torch.zeros(len(values), dtype=torch.uint8, device=values.device)
    given = [values.contiguous(), counted.view(torch.uint8), offsets, most]
    launch(_below, len(offsets) - 1, [*given, out], device=values.device)
    return out.view(torch.bool)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tau: Tensor, color: Tensor, t: Tensor, gradient: Tensor | None, offsets: Tensor
    ) -> tuple[Tensor, Tensor]:
        rays = len(offsets) - 1
        color, t = color.contiguous(), t.contiguous()
        weight, transmittance, sums = torch.empty_like(tau), tau.new_empty(rays), tau.new_empty(rays, SUMS)
        normal = color[:0] if gradient is None else gradient.contiguous()
        given = [tau.contiguous(), color, t, normal, offsets]
        launch(_composite, rays, [*given, weight, transmittance, sums], device=tau.device, grain=GRAIN)
        ctx.save_for_backward(color, t, offsets, weight, transmittance)
        return sums, transmittance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, grad_transmittance: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        color, t, offsets, weight, transmittance = ctx.saved_tensors
        grad_tau, grad_color = torch.zeros_like(t), torch.zeros_like(color)
        given = [color, t, offsets, weight, transmittance, grad_sums.contiguous(), grad_transmittance.contiguous()]
        launch(_composite_back, len(transmittance), [*given, grad_tau, grad_color], device=t.device, grain=GRAIN)
        return grad_tau, grad_color, None, None, None


class _ExclusiveSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(offsets)
        return _run(_exclusive_sum, values, offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (offsets,) = ctx.saved_tensors
        return _run(_reverse_exclusive_sum, grad, offsets), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(offsets)
        ctx.count = len(values)
        values = values.contiguous()
        out = values.new_empty(len(offsets) - 1, values.shape[1])
        launch(_total, len(out), [values, offsets, out], device=values.device)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (offsets,) = ctx.saved_tensors
        grad = grad.contiguous()
        out = grad.new_zeros(ctx.count, grad.shape[1])
        launch(_spread, len(grad), [grad, offsets, out], device=grad.device)
        return out, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, per_ray: Tensor, ray_index: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(offsets)
        return per_ray.index_select(0, ray_index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (offsets,) = ctx.saved_tensors
        out = grad.new_empty(len(offsets) - 1, grad.shape[1])
        launch(_total, len(out), [grad.contiguous(), offsets, out], device=grad.device)
        return out, None, None


def _run(kernel: Any, values: Tensor, offsets: Tensor) -> Tensor:
    values = values.contiguous()
    out = torch.zeros_like(values)
    launch(kernel, len(offsets) - 1, [values, offsets, out], device=values.device)
    return out


@native_kernel("""
    float sum[7] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    float ahead = 1.0f, optical_depth = 0.0f;  // transmittance and optical depth in front of the sample
    for (int i = offsets.data[r]; i < offsets.data[r + 1]; ++i) {
        const float* c = color.data + 3 * (size_t)i;
        const float x = tau.data[i];
        optical_depth += x;
        const float after = wp::exp(-optical_depth);
        // The weight, to all its digits: a difference of transmittances would not have them where tau is small.
        const float w = x < 0.01f ? ahead * x * (1.0f - x * (0.5f - x * (1.0f / 6.0f))) : ahead - after;
        weight.data[i] = w;
        for (int k = 0; k < 3; ++k) sum[k] += w * c[k];
        sum[3] += w * t.data[i];
        if (normal.shape[0] > 0) {
            const float* g = normal.data + 3 * (size_t)i;
            const float square = g[0] * g[0] + g[1] * g[1] + g[2] * g[2];
            const float length = wp::sqrt(square), scale = w / (length > 1e-12f ? length : 1e-12f);
            for (int k = 0; k < 3; ++k) sum[4 + k] += scale * g[k];
        }
        ahead = after;
    }
    for (int k = 0; k < 7; ++k) sums.data[7 * (size_t)r + k] = sum[k];
    transmittance.data[r] = ahead;
""")
def _composite(
    r: int, tau: Floats, color: Rows, t: Floats, normal: Rows, offsets: Ints, weight: Floats, transmittance: Floats,
    sums: Rows,
): ...


@native_kernel("""
    const float* g = grad_sums.data + 7 * (size_t)r;
    float behind = transmittance.data[r];  // the transmittance behind the sample
    float rest = grad_transmittance.data[r] * behind;  // gradient of the loss by the log of that transmittance
    for (int i = offsets.data[r + 1] - 1; i >= offsets.data[r]; --i) {
        const float* c = color.data + 3 * (size_t)i;
        const float w = weight.data[i], here = g[0] * c[0] + g[1] * c[1] + g[2] * c[2] + g[3] * t.data[i];
        grad_tau.data[i] = behind * here - rest;
        for (int k = 0; k < 3; ++k) grad_color.data[3 * (size_t)i + k] = w * g[k];
        rest += w * here;
        behind += w;
    }
""")
def _composite_back(
    r: int, color: Rows, t: Floats, offsets: Ints, weight: Floats, transmittance: Floats, grad_sums: Rows,
    grad_transmittance: Floats, grad_tau: Floats, grad_color: Rows,
): ...


@wp.kernel(enable_backward=False)
def _exclusive_sum(first: int, values: Floats, offsets: Ints, out: Floats):
    r = first + wp.tid()
    running = float(0.0)
    for i in range(offsets[r], offsets[r + 1]):
        out[i] = running
        running += values[i]


@wp.kernel(enable_backward=False)
def _reverse_exclusive_sum(first: int, values: Floats, offsets: Ints, out: Floats):
    r = first + wp.tid()
    running = float(0.0)
    last = offsets[r + 1] - 1
    for k in range(offsets[r + 1] - offsets[r]):
        i = last - k
        out[i] = running
        running += values[i]


@native_kernel("""
    const int width = out.shape[1], end = offsets.data[r + 1];
    float* to = out.data + (size_t)r * width;
    for (int k = 0; k < width; ++k) to[k] = 0.0f;
    for (int i = offsets.data[r]; i < end; ++i) {
        const float* from = values.data + (size_t)i * width;
        for (int k = 0; k < width; ++k) to[k] += from[k];
    }
""")
def _total(r: int, values: Rows, offsets: Ints, out: Rows): ...


@native_kernel("""
    const int width = out.shape[1], end = offsets.data[r + 1];
    const float* from = values.data + (size_t)r * width;
    for (int i = offsets.data[r]; i < end; ++i) {
        float* to = out.data + (size_t)i * width;
        for (int k = 0; k < width; ++k) to[k] = from[k];
    }
""")
def _spread(r: int, values: Rows, offsets: Ints, out: Rows): ...


@native_kernel("""
    for (int i = offsets.data[r]; i < offsets.data[r + 1]; ++i) {
        const float length = ends.data[i] - starts.data[i];
        if (i > offsets.data[r] && starts.data[i] - ends.data[i - 1] > 0.5f * length) break;
        out.data[i] = 1;
    }
""")
def _unbroken(r: int, starts: Floats, ends: Floats, offsets: Ints, out: Bytes): ...


@native_kernel("""
    float sum = 0.0f;
    for (int i = offsets.data[r]; i < offsets.data[r + 1]; ++i) {
        out.data[i] = sum < most;
        sum += counted.data[i] ? values.data[i] : 0.0f;
    }
""")
def _below(r: int, values: Floats, counted: Bytes, offsets: Ints, most: float, out: Bytes): ...
