"""How far what rays show is from what photographs say, per ray: colors, masks; and the backward pass.

In torch these are two to three short operations each, and up to six backward.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Floats, Rows, native_kernel

Norm = Literal["l1", "l2", "huber"]
NORMS: tuple[Norm, ...] = "l1", "l2", "huber"  # by number, as the kernel has them
QUADRATIC = 0.1  # Huber's distance is quadratic up to this, of slope one beyond


def distance(values: Tensor, target: Tensor, norm: Norm) -> Tensor:
    """[R] distance of colors or other values [R, C] from a target [R, C], mean over channels.

    norm, of a difference d: l1 is |d|, l2 is d^2, huber d^2 / 0.2 up to |d| = 0.1 and |d| - 0.05 beyond. float32.
    Differentiable in values, once.
    """
    return _Distance.apply(values, target, norm)


def cross_entropy(opacity: Tensor, mask: Tensor, margin: float) -> Tensor:
    """[R] -(m log o + (1 - m) log(1 - o)) of masks m [R] in [0, 1] and opacities o [R] cut to [margin, 1 - margin].

    margin: in (0, 0.5), above 1e-7. float32. Differentiable in opacity, once; not where it is cut.
    """
    return _CrossEntropy.apply(opacity, mask, margin)


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, target: Tensor, norm: Norm) -> Tensor:
        values, target = values.contiguous(), target.contiguous()
        ctx.save_for_backward(values, target)
        ctx.norm = NORMS.index(norm)
        out = values.new_empty(len(values))
        launch(_distance, len(values), [values, target, ctx.norm, out], device=values.device)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        values, target = ctx.saved_tensors
        out = torch.empty_like(values)
        given = [values, target, ctx.norm, grad.contiguous(), out]
        launch(_distance_back, len(values), given, device=values.device)
        return out, None, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, opacity: Tensor, mask: Tensor, margin: float) -> Tensor:
        opacity, mask = opacity.contiguous(), mask.contiguous()
        ctx.save_for_backward(opacity, mask)
        ctx.margin = margin
        out = torch.empty_like(opacity)
        launch(_cross_entropy, len(opacity), [opacity, mask, margin, out], device=opacity.device)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        opacity, mask = ctx.saved_tensors
        out = torch.empty_like(opacity)
        given = [opacity, mask, ctx.margin, grad.contiguous(), out]
        launch(_cross_entropy_back, len(opacity), given, device=opacity.device)
        return out, None, None


_DIFFERENCES = f"""
    const int channels = values.shape[1];
    const float delta = {QUADRATIC}f;
    const float *c = values.data + (size_t)r * channels, *wanted = target.data + (size_t)r * channels;
"""


@native_kernel(
    _DIFFERENCES
    + """
    float sum = 0.0f;
    for (int k = 0; k < channels; ++k) {
        const float d = c[k] - wanted[k], size = wp::abs(d);
        sum += norm == 0 ? size : norm == 1 ? d * d
             : (size <= delta ? 0.5f * size * size : delta * (size - 0.5f * delta)) / delta;
    }
    out.data[r] = sum / (float)channels;
"""
)
def _distance(r: int, values: Rows, target: Rows, norm: int, out: Floats): ...


@native_kernel(
    _DIFFERENCES
    + """
    const float g = grad.data[r] / (float)channels, of_huber = g / delta;
    for (int k = 0; k < channels; ++k) {
        const float d = c[k] - wanted[k], sign = d > 0.0f ? 1.0f : d < 0.0f ? -1.0f : d;  // NaN stays NaN
        out.data[(size_t)r * channels + k] = norm == 0 ? sign * g : norm == 1 ? 2.0f * d * g
                                           : of_huber * (wp::abs(d) <= delta ? d : delta * sign);
    }
"""
)
def _distance_back(r: int, values: Rows, target: Rows, norm: int, grad: Floats, out: Rows): ...


_CUT = """
    const float given = opacity.data[r], m = mask.data[r], most = 1.0f - margin;
    const float o = given < margin ? margin : given > most ? most : given;  // NaN stays NaN
"""


@native_kernel(_CUT + "out.data[r] = (m - 1.0f) * wp::log(1.0f - o) - m * wp::log(o);\n")
def _cross_entropy(r: int, opacity: Floats, mask: Floats, margin: float, out: Floats): ...


@native_kernel(
    _CUT
    + """
    const bool is_cut = given < margin || given > most;
    out.data[r] = is_cut ? 0.0f : grad.data[r] * (o - m) / (o * (1.0f - o));
"""
)
def _cross_entropy_back(r: int, opacity: Floats, mask: Floats, margin: float, grad: Floats, out: Floats): ...
