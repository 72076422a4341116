"""A step of an optimizer on all numbers of a parameter, shared by a CPU's threads as any kernel is.

Adam: torch's own fused step is as fast on one thread; its threads busy-wait between its operations and compete with
those of the kernels. On a GPU torch's step is used instead (`models.optimizers.adam`). The other rules run on both, and
read on the device whether the step is skipped.
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


def lazy_adam_step(
    parameter: Tensor,
    grad: Tensor,
    state: tuple[Tensor, Tensor],
    *,
    rates: Tensor,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    skipped: Tensor,
) -> None:
    """As `adam_step`, where the gradient is not exactly zero; elsewhere parameter and state [*N] stay as they are.

    rates: [2] on the device, as the two of `adam_step`. skipped: [1], above 0 where nothing is to change.
    """
    flat = [x.view(-1) for x in (parameter.detach(), grad, *state)]
    numbers = [rates, skipped, betas[0], betas[1], eps, decay]
    launch_blocks(_lazy_step, parameter.numel(), [*flat, *numbers], device=grad.device, grain=GRAIN)


def rmsprop_step(
    parameter: Tensor,
    grad: Tensor,
    square: Tensor,
    *,
    rate: float,
    beta: float,
    eps: float,
    lazy: bool,
    skipped: Tensor,
) -> None:
    """Move `parameter` [*N] in place by RMSprop without bias correction, as Plenoxels has it.

    All tensors: [*N] float32, contiguous. square: v, the running mean of the gradient's square, which changes too: g^2
    where it is zero, else beta v + (1 - beta) g^2. lazy: where the gradient is exactly zero v stays. skipped: [1],
    above 0 where nothing is to change. Not differentiable.
    """
    flat = [x.view(-1) for x in (parameter.detach(), grad, square)]
    numbers = [skipped, rate, beta, eps, int(lazy)]
    launch_blocks(_rmsprop_step, parameter.numel(), [*flat, *numbers], device=grad.device, grain=GRAIN)


@native_kernel(
    TYPES
    + """
    if (skipped.data[0] > 0.0f) return;
    BLOCK_OF(parameter);
    vf p, g, m, v;
    LOAD_BLOCK(g, grad.data + start, end);
    const vi moves = g != 0.0f;
    if (!ANY(moves)) return;  // of a large table nothing else is read then
    LOAD_BLOCK(p, parameter.data + start, end);
    LOAD_BLOCK(m, mean.data + start, end);
    LOAD_BLOCK(v, square.data + start, end);
    const vf pulled = FMA((vf)decay, p, g);
    m = SELECT(moves, FMA((vf)(1.0f - beta1), pulled - m, m), m);
    v = SELECT(moves, FMA((vf)(1.0f - beta2), pulled * pulled, beta2 * v), v);
    STORE_BLOCK(mean.data + start, m, end);
    STORE_BLOCK(square.data + start, v, end);
    const vf moved = SELECT(moves, p - rates.data[0] * m / (ROOT(v) / rates.data[1] + eps), p);
    STORE_BLOCK(parameter.data + start, moved, end);
"""
)
def _lazy_step(
    block: int, parameter: Floats, grad: Floats, mean: Floats, square: Floats, rates: Floats, skipped: Floats,
    beta1: float, beta2: float, eps: float, decay: float,
): ...


@native_kernel(
    TYPES
    + """
    if (skipped.data[0] > 0.0f) return;
    BLOCK_OF(parameter);
    vf p, g, v;
    LOAD_BLOCK(g, grad.data + start, end);
    const vi still = g == 0.0f, moves = g != 0.0f;
    if (lazy && !ANY(moves)) return;  // of a large table nothing else is read then
    LOAD_BLOCK(p, parameter.data + start, end);
    LOAD_BLOCK(v, square.data + start, end);
    const vi first = v == 0.0f;
    const vf mean = SELECT(first, g * g, FMA((vf)(1.0f - beta), g * g, beta * v));
    v = SELECT(lazy ? still : still & 0, v, mean);
    STORE_BLOCK(square.data + start, v, end);
    const vf moved = SELECT(still, p, p - rate * g / (ROOT(v) + eps));
    STORE_BLOCK(parameter.data + start, moved, end);
"""
)
def _rmsprop_step(
    block: int, parameter: Floats, grad: Floats, square: Floats, skipped: Floats, rate: float, beta: float, eps: float,
    lazy: int,
): ...
