"""A step of Adam on all numbers of a parameter, shared by a CPU's threads as any kernel is.

Torch's own fused step is as fast on one thread; its threads busy-wait between its operations and compete with those of
the kernels. On a GPU torch's step is used instead (`models.optimizers`).
"""

from __future__ import annotations

from torch import Tensor

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import launch_blocks
from models.kernels.runtime.native import Floats, native_kernel

GRAIN = 1024  # blocks that are worth a second thread


def adam_step(
    parameter: Tensor,
    grad: Tensor,
    state: tuple[Tensor, Tensor],
    *,
    rates: tuple[float, float],
    betas: tuple[float, float],
    eps: float,
    decay: float,
) -> None:
    """Move `parameter` [*N] in place. Kingma and Ba, "Adam" (2015), algorithm 1.

    All tensors: [*N] float32, contiguous. state: the running means of the gradient and of its square, which change too.
    rates: the learning rate over the first bias correction 1 - beta1^step, and the root of the second. decay: added to
    the gradient, times the parameter. Not differentiable.
    """
    flat = [x.view(-1) for x in (parameter.detach(), grad, *state)]
    numbers = [rates[0], rates[1], betas[0], betas[1], eps, decay]
    launch_blocks(_step, parameter.numel(), [*flat, *numbers], device=grad.device, grain=GRAIN)


@native_kernel(
    TYPES
    + """
    BLOCK_OF(parameter);
    vf p, g, m, v;
    LOAD_BLOCK(p, parameter.data + start, end);
    LOAD_BLOCK(g, grad.data + start, end);
    LOAD_BLOCK(m, mean.data + start, end);
    LOAD_BLOCK(v, square.data + start, end);
    g = FMA((vf)decay, p, g);
    m = FMA((vf)(1.0f - beta1), g - m, m);
    v = FMA((vf)(1.0f - beta2), g * g, beta2 * v);
    STORE_BLOCK(mean.data + start, m, end);
    STORE_BLOCK(square.data + start, v, end);
    const vf moved = p - rate * m / (ROOT(v) / root + eps);
    STORE_BLOCK(parameter.data + start, moved, end);
"""
)
def _step(
    block: int, parameter: Floats, grad: Floats, mean: Floats, square: Floats, rate: float, root: float, beta1: float,
    beta2: float, eps: float, decay: float,
): ...
