"""A step of Adam on all numbers of a parameter, shared by a CPU's threads as any kernel is.

Torch's own fused step is as quick on one thread; its threads wait for work between its operations, and take the time of
those that kernels have. On a GPU it does the work.
"""

from __future__ import annotations

from torch import Tensor

from models.kernels.runtime.lanes import TYPES, launch_blocks
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
    """Move `parameter`, float32 and contiguous as all others, of its shape. Kingma and Ba, "Adam" (2015), algorithm 1.

    state: the running means of the gradient and of its square, which change too. rates: the learning rate over the
    first bias correction 1 - beta1^step, and the root of the second. decay: added to the gradient, times the parameter.
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
