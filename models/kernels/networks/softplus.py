"""Softplus and its slope in one pass over memory, and their common backward in another.

In wide networks the activations of a step are larger than a cache: what counts is how often they are read and written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import launch_blocks
from models.kernels.runtime.native import Floats, native_kernel


def softplus_forward(x: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """log(1 + exp(beta x)) / beta and its slope sigmoid(beta x), which does not fall below 2^-50.

    x: [*N] float32; both outputs [*N]. Not differentiable by itself: see `softplus_backward`.
    """
    x = x.contiguous()
    value, slope = torch.empty_like(x), torch.empty_like(x)
    flat = [part.view(-1) for part in (x, value, slope)]
    launch_blocks(_forward, x.numel(), [flat[0], beta, *flat[1:]], device=x.device)
    return value, slope


def softplus_backward(slope: Tensor, grad_value: Tensor, grad_slope: Tensor, *, beta: float) -> Tensor:
    """The gradient at x of softplus and its slope: slope (grad_value + grad_slope beta (1 - slope)); all [*N].

    Not differentiable.
    """
    grad = torch.empty_like(slope)
    flat = [part.contiguous().view(-1) for part in (slope, grad_value, grad_slope)]
    launch_blocks(_backward, slope.numel(), [*flat, beta, grad.view(-1)], device=slope.device)
    return grad


@native_kernel(
    TYPES
    + """
    BLOCK_OF(x);
    vf v;
    LOAD_BLOCK(v, x.data + start, end);
    const vf e = EXP2(ABS(v) * (-1.44269504f * beta));
    const vf rest = 1.0f / (1.0f + e);  // the sigmoid of |beta v|
    const vf s = SELECT(v > 0.0f, rest, e * rest);
    STORE_BLOCK(slope.data + start, s, end);
    const vf y = RELU(v) + LOG_1_PLUS(e) * (1.0f / beta);
    STORE_BLOCK(value.data + start, y, end);
"""
)
def _forward(block: int, x: Floats, beta: float, value: Floats, slope: Floats): ...


@native_kernel(
    TYPES
    + """
    BLOCK_OF(x);
    vf s, a, b;
    LOAD_BLOCK(s, x.data + start, end);
    LOAD_BLOCK(a, grad_value.data + start, end);
    LOAD_BLOCK(b, grad_slope.data + start, end);
    const vf g = s * (a + b * (beta * (1.0f - s)));
    STORE_BLOCK(grad.data + start, g, end);
"""
)
def _backward(block: int, x: Floats, grad_value: Floats, grad_slope: Floats, beta: float, grad: Floats): ...
