"""Sums along rays whose samples lie packed one behind the other.

Ray r owns the samples offsets[r] .. offsets[r+1]-1. Sums are taken within a ray, never across rays: a global running
sum minus its value at the ray's start loses 8e-3 at a quarter of a million float32 samples.
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Bytes, Floats, Ints, Rows, native_kernel


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


def _run(kernel: Any, values: Tensor, offsets: Tensor) -> Tensor:
    values = values.contiguous()
    out = torch.zeros_like(values)
    launch(kernel, len(offsets) - 1, [values, offsets, out], device=values.device)
    return out


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
