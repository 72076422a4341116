"""What rays have accumulated, in front of a background: color, opacity and depth of each, and the backward pass.

In torch these are eight short operations and five backward, each a launch of its own on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Floats, Rows, native_kernel

FURTHER = 4  # columns of the sums behind the color: ray distance and normal


def composed(
    sums: Tensor, transmittance: Tensor, background: Tensor, *, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Color [R, C], opacity [R] and mean distance [R] of rays.

    sums: [R, C + 4] float32, color, ray distance and normal, each times the weight of its sample. transmittance: [R]
    in [0, 1]. background: [3] or [R, 3], behind the first three channels. least: where the opacity does not exceed
    this the distance is 0. Returns sums + transmittance * background, 1 - transmittance, and the sum of distances over
    the opacity. Differentiable in sums, transmittance and background, once.
    """
    return _Composed.apply(sums, transmittance, background, least)


class _Composed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sums: Tensor, transmittance: Tensor, background: Tensor, least: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = [sums.contiguous(), transmittance.contiguous(), background.contiguous().view(-1, 3)]
        ctx.save_for_backward(*given)
        ctx.least, ctx.of_all = least, background.ndim == 1
        ctx.set_materialize_grads(False)
        rays, channels = len(sums), sums.shape[1] - FURTHER
        color, opacity, depth = sums.new_empty(rays, channels), sums.new_empty(rays), sums.new_empty(rays)
        launch(_compose, rays, [*given, least, color, opacity, depth], device=sums.device)
        return color, opacity, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, None]:
        sums, transmittance, background = ctx.saved_tensors
        shapes = (len(sums), sums.shape[1] - FURTHER), (len(sums),), (len(sums),)
        given = [
            sums.new_empty((0,) * len(shape)) if grad is None else grad.contiguous()
            for grad, shape in zip(grads, shapes, strict=True)
        ]
        of_sums, of_transmittance = torch.empty_like(sums), torch.empty_like(transmittance)
        of_background = sums.new_empty(len(sums) if ctx.needs_input_grad[2] else 0, 3)
        found = [of_sums, of_transmittance, of_background]
        arguments = [sums, transmittance, background, ctx.least, *given, *found]
        launch(_compose_back, len(sums), arguments, device=sums.device)
        if not ctx.needs_input_grad[2]:
            return of_sums, of_transmittance, None, None
        return of_sums, of_transmittance, of_background.sum(0) if ctx.of_all else of_background, None


_RAY = """
    const int width = sums.shape[1], channels = width - 4, colored = channels < 3 ? channels : 3;
    const float* of = sums.data + (size_t)r * width;
    const float left = transmittance.data[r], filled = 1.0f - left;
    const float* behind = background.data + (background.shape[0] > 1 ? 3 * (size_t)r : 0);
"""


@native_kernel(
    _RAY
    + """
    for (int k = 0; k < channels; ++k)
        color.data[(size_t)r * channels + k] = of[k] + (k < colored ? left * behind[k] : 0.0f);
    opacity.data[r] = filled;
    depth.data[r] = filled > least ? of[channels] / filled : 0.0f;
"""
)
def _compose(
    r: int, sums: Rows, transmittance: Floats, background: Rows, least: float, color: Rows, opacity: Floats,
    depth: Floats,
): ...


@native_kernel(
    _RAY
    + """
    float* to = of_sums.data + (size_t)r * width;
    for (int k = 0; k < width; ++k) to[k] = 0.0f;
    float by_transmittance = opacity_.shape[0] ? -opacity_.data[r] : 0.0f;
    if (color_.shape[0]) {
        const float* g = color_.data + (size_t)r * channels;
        float sum = 0.0f;
        for (int k = 0; k < channels; ++k) to[k] = g[k];
        for (int k = 0; k < colored; ++k) sum += g[k] * behind[k];
        by_transmittance += sum;
    }
    if (of_background.shape[0])
        for (int k = 0; k < 3; ++k) of_background.data[3 * (size_t)r + k] = k < colored ? left * to[k] : 0.0f;
    if (depth_.shape[0] && filled > least) {
        to[channels] = depth_.data[r] / filled;
        by_transmittance += to[channels] * of[channels] / filled;
    }
    of_transmittance.data[r] = by_transmittance;
"""
)
def _compose_back(
    r: int, sums: Rows, transmittance: Floats, background: Rows, least: float, color_: Rows, opacity_: Floats,
    depth_: Floats, of_sums: Rows, of_transmittance: Floats, of_background: Rows,
): ...
