"""Activations that return value and slope together, so that an input gradient costs no second pass.

The slope is a differentiable result like the value: a loss on a network's input gradient trains the weights through it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.kernels.networks.softplus import softplus_backward, softplus_forward

Activation = Callable[[Tensor], tuple[Tensor, Tensor]]
ActivationName = Literal["relu", "leaky_relu", "rrelu", "softplus", "sine", "abs", "exp"]

BETA = 100.0  # of softplus
LEAK = 0.01  # slope of leaky_relu below zero
LEAKS = (1 / 8, 1 / 3)  # slopes of rrelu below zero, as torch has them
LARGEST_EXPONENT = 15.0  # exp is cut here: exp(15) = 3.3e6


def relu(x: Tensor) -> tuple[Tensor, Tensor]:
    """max(x, 0) and its slope, both [*N], of x [*N]. Differentiable in x; the slope is constant, its gradient zero."""
    return torch.relu(x), (x > 0).to(x.dtype)


def leaky_relu(x: Tensor) -> tuple[Tensor, Tensor]:
    """x above zero, 0.01 x below, and the slope, both [*N], of x [*N]. Differentiable in x; the slope is constant."""
    slope = torch.where(x > 0, 1.0, LEAK).to(x.dtype)
    return x * slope, slope


class RandomizedRelu(nn.Module):
    """x above zero; below, x times a slope drawn anew for each number, or the mean slope in evaluation mode.

    Xu et al., "Empirical Evaluation of Rectified Activations in Convolutional Network" (2015).
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[*N] -> value and slope, both [*N]; see `leaky_relu`."""
        leak = torch.empty_like(x).uniform_(*LEAKS) if self.training else x.new_full((), sum(LEAKS) / 2)
        slope = torch.where(x > 0, torch.ones_like(x), leak)
        return x * slope, slope


def softplus(x: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + exp(100 x)) / 100 and its slope sigmoid(100 x), both [*N], of x [*N]. Differentiable in x, once.

    The beta of 100 is what IDR, NeuS, VolSDF and UNISURF publish.
    """
    return _Softplus.apply(x)


def sine(x: Tensor, *, omega: float = 30.0) -> tuple[Tensor, Tensor]:
    """sin(omega x) and its slope omega cos(omega x), both [*N], of x [*N]. Differentiable in x, once.

    Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions" (2020), section 3.2.
    """
    return _Sine.apply(x, omega)


def absolute(x: Tensor) -> tuple[Tensor, Tensor]:
    """|x| and its slope, zero at zero, both [*N], of x [*N]. Differentiable in x; the slope is constant."""
    return x.abs(), x.sign()


def truncated_exp(x: Tensor) -> tuple[Tensor, Tensor]:
    """exp(x), constant from x = 15 on, and its slope, both [*N], of x [*N]. Differentiable in x."""
    value = torch.exp(x.clamp(max=LARGEST_EXPONENT))
    return value, value * (x < LARGEST_EXPONENT)


ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "softplus": softplus,
    "sine": sine,
    "abs": absolute,
    "exp": truncated_exp,
}


def value_only(name: ActivationName, both: Activation) -> Callable[[Tensor], Tensor]:
    """The activation [*N] -> [*N] without its slope, for networks whose input gradient is not needed."""
    return torch.relu if name == "relu" else lambda x: both(x)[0]


def activation(name: ActivationName, *, omega: float = 30.0) -> Activation:
    """The activation of that name; omega: frequency of a sine. What draws random numbers is a module."""
    if name == "rrelu":
        return RandomizedRelu()
    return partial(sine, omega=omega) if name == "sine" else ACTIVATIONS[name]


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dtype == torch.float32:
            value, slope = softplus_forward(x, beta=BETA)
            ctx.save_for_backward(slope)
            return value, slope
        slope = (x * BETA).sigmoid_()
        # softplus(x) = max(x, 0) - log(sigmoid(|beta x|)) / beta, and sigmoid(|y|) is the larger of s and 1 - s.
        larger = torch.rsub(slope, 1)
        torch.maximum(slope, larger, out=larger)
        value = torch.relu(x).add_(larger.log_(), alpha=-1 / BETA)
        ctx.save_for_backward(slope)
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor, grad_slope: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        if slope.dtype == torch.float32:
            return softplus_backward(slope, grad_value, grad_slope, beta=BETA)
        return slope * (grad_value + grad_slope * (BETA * (1 - slope)))


class _Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, omega: float) -> tuple[Tensor, Tensor]:
        angle = x * omega
        value, slope = torch.sin(angle), torch.cos(angle).mul_(omega)
        ctx.save_for_backward(value, slope)
        ctx.omega = omega
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor, grad_slope: Tensor) -> tuple[Tensor, None]:
        value, slope = ctx.saved_tensors
        return grad_value * slope - grad_slope * (ctx.omega**2 * value), None
