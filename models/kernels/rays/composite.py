"""Compositing of packed samples along rays: color, distance and normal, summed by weight.

    w_i = T_i (1 - exp(-tau_i))    T_i = exp(-(sum of tau before i))    transmittance = exp(-(sum of all tau))

T_i is the transmittance in front of sample i, `transmittance` that of all samples. Weights are kept for the backward
pass, which walks a ray from its end: what lies behind a sample is then known, and so is the transmittance in front of
it, T_i = transmittance + (sum of the weights from i on), without a difference of large numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Floats, Ints, Rows, native_kernel

SUMS = 7  # color, distance, normal
GRAIN = 256  # rays that are worth a second thread


def composite(tau: Tensor, color: Tensor, t: Tensor, gradient: Tensor | None, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over each ray's samples, and the transmittance behind them.

    tau: [M] float32 >= 0, optical depth. color: [M, 3]. t: [M], distances. gradient: [M, 3] of any length, whose
    direction is the normal; None: no normals. offsets: [R+1] int32, ascending, from 0 to M or less.
    Returns the sums [R, 7] of w_i (color, t, gradient / |gradient|) and transmittance [R] in [0, 1]: 0 and 1 for a ray
    without samples. Differentiable in color, and in tau by way of color, t and transmittance, not of the normals; once.
    Max, "Optical Models for Direct Volume Rendering" (1995), eq. 9.
    """
    return _Composite.apply(tau, color, t, gradient, offsets)


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
        launch(_forward, rays, [*given, weight, transmittance, sums], device=tau.device, grain=GRAIN)
        ctx.save_for_backward(color, t, offsets, weight, transmittance)
        return sums, transmittance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, grad_transmittance: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        color, t, offsets, weight, transmittance = ctx.saved_tensors
        grad_tau, grad_color = torch.zeros_like(t), torch.zeros_like(color)
        given = [color, t, offsets, weight, transmittance, grad_sums.contiguous(), grad_transmittance.contiguous()]
        launch(_backward, len(transmittance), [*given, grad_tau, grad_color], device=t.device, grain=GRAIN)
        return grad_tau, grad_color, None, None, None


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
def _forward(
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
def _backward(
    r: int, color: Rows, t: Floats, offsets: Ints, weight: Floats, transmittance: Floats, grad_sums: Rows,
    grad_transmittance: Floats, grad_tau: Floats, grad_color: Rows,
): ...
