"""A network of which all layers go through a core's cache, a tile of points at a time: output, gradient and backward.

Between the layers nothing is read from memory; what the backward pass needs is written once. On a GPU the cache is the
shared memory of a block of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.networks.block_layers import THREADS, tile_of
from models.kernels.networks.layers import NEAR, backward_layers, forward_layers
from models.kernels.runtime.launch import lanes, launch

NARROW = 128  # inputs or outputs of a layer up to which torch's products are slower, forward and backward
WIDEST = 512  # and on a CPU without a backward pass; beyond it a tile does not stay in the second-level cache
BLOCKS = 528  # of threads, four for each multiprocessor of a large GPU
ACTIVATIONS = ("relu", "softplus")


def mlp_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, activation: str, beta: float
) -> Tensor:
    """The network's output.

    x: [M, inputs] float32. weights: per layer [outputs, inputs of the layer], each side at most `WIDEST` on a CPU and
    `NARROW` on a GPU; biases: [outputs]. A layer, not the first, that has more inputs than the one before has outputs
    reads x again: its input is [hidden, x] / sqrt(2). activation: between layers, "relu" or "softplus"
    (log(1 + exp(beta x)) / beta).
    Returns [M, outputs of the last]. Not differentiable. Raises ValueError for any other activation.
    """
    parameters = [part for pair in zip(weights, biases, strict=True) for part in pair]
    softness = _softness(activation, beta)
    return _forward_pass(_Plan.of(weights, x), x.contiguous(), _flat(parameters), softness, -1, keep=False)[0]


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    activation: str,
    beta: float,
    channel: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The output [M, outputs] and, where a channel of it is named, that channel's gradient [M, inputs] at x.

    Arguments and errors as of `mlp_forward`. Both results are differentiable in x, weights and biases, once.
    """
    parameters = [part for pair in zip(weights, biases, strict=True) for part in pair]
    found = _Network.apply(x, _softness(activation, beta), -1 if channel is None else channel, *parameters)
    return (found, None) if channel is None else found


def _softness(activation: str, beta: float) -> float:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: expected one of {ACTIVATIONS}")
    return beta if activation == "softplus" else 0.0


@dataclass(frozen=True)
class _Plan:
    """Sizes that kernels and memory depend on.

    tile: points whose numbers are in the cache together, whole blocks of rows. strip: points with weight gradients and
    scratch memory of their own. widths: inputs and outputs per layer. by_block: of threads, as a GPU works.
    """

    tile: int
    strip: int
    widths: tuple[tuple[int, int], ...]
    by_block: bool

    @staticmethod
    def of(weights: Sequence[Tensor], x: Tensor) -> _Plan:
        widths = tuple((weight.shape[1], weight.shape[0]) for weight in weights)
        widest = max(max(pair) for pair in widths)
        if lanes(x.device) == 1:
            tile = tile_of(_padded(widest))
            return _Plan(tile, -(-len(x) // (BLOCKS * tile)) * tile, widths, True)
        return _Plan(48, 960, widths, False) if widest <= NARROW else _Plan(192, 7680, widths, False)

    def strips(self, x: Tensor) -> int:
        return -(-len(x) // max(self.strip, 1))

    def sizes(self, x: Tensor) -> tuple[Tensor, int, int]:
        """The sizes that the kernels take."""
        return _numbers(self.widths, x.device), self.tile, self.strip

    def rows(self) -> list[int]:
        """Floats per point of each layer's input, and of the output, with padding."""
        return [_padded(ins) for ins, _ in self.widths] + [_padded(self.widths[-1][1])]

    def parts(self, flat: Tensor) -> list[Tensor]:
        """Weight and bias of each layer out of one row of all of them."""
        shapes = [shape for ins, outs in self.widths for shape in ((outs, ins), (outs,))]
        return [part.view(shape) for part, shape in zip(flat.split([prod(s) for s in shapes]), shapes, strict=True)]

    def kept(self) -> int:
        """Floats per tile of the hidden layers' outputs."""
        return self.tile * sum(self.rows()[1:-1])

    def scratch(self, x: Tensor, *, backward: bool) -> Tensor:
        """Scratch memory per strip, [strips, floats]; none where it fits a thread's stack."""
        room = self.room(backward=backward)
        return x.new_empty(self.strips(x) if self.by_block or room > NEAR else 0, room)

    def room(self, *, backward: bool) -> int:
        """Floats of scratch memory per strip: all that `take` hands out; for a block of threads one per kept one."""
        if self.by_block:
            return self.kept() if backward else 0
        rows, widths = self.rows(), self.widths
        up = sum((ins + 1) * _padded(outs) for ins, outs in widths)
        down = sum(outs * _padded(ins) for ins, outs in widths)
        if backward:
            biases = sum(_padded(outs) for _, outs in widths)
            return up + 2 * down + biases + self.tile * (2 * sum(rows) + 2 * rows[0] + 2 * max(rows))
        return up + down + self.tile * (2 * sum(rows) + rows[0] + max(rows))


@lru_cache(maxsize=64)
def _numbers(widths: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Inputs and outputs per layer, where kernels read them; cached, since every step needs them."""
    return torch.tensor(sum(widths, ()), dtype=torch.int32).to(device, non_blocking=True)


def _flat(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parameters])


def _padded(width: int) -> int:
    return -(-width // 16) * 16


def _forward_pass(
    plan: _Plan, x: Tensor, flat: Tensor, softness: float, channel: int, *, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    out = x.new_empty(len(x), plan.widths[-1][1])
    gradient = x.new_empty(len(x) if channel >= 0 else 0, x.shape[1])
    keep = keep or (plan.by_block and channel >= 0)  # a block has no other memory for the slopes
    kept = x.new_empty(-(-len(x) // plan.tile) if keep else 0, plan.kept())
    strips, scratch = plan.strips(x), plan.scratch(x, backward=False)
    arguments = [x, flat, *plan.sizes(x), softness, channel, scratch, kept, out, gradient]
    launch(forward_layers, strips, arguments, device=x.device, grain=1, threads=THREADS)
    return out, gradient, kept


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, softness: float, channel: int, *parameters: Tensor) -> Any:
        plan, x, flat = _Plan.of(parameters[::2], x), x.contiguous(), _flat(parameters)
        keep = any(ctx.needs_input_grad)
        out, gradient, kept = _forward_pass(plan, x, flat, softness, channel, keep=keep)
        ctx.save_for_backward(x, flat, kept)
        ctx.plan, ctx.softness, ctx.channel = plan, softness, channel
        ctx.set_materialize_grads(False)
        return out if channel < 0 else (out, gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_gradient: Tensor | None = None) -> tuple[Any, ...]:
        if grad_out is None and grad_gradient is None:
            return (None,) * len(ctx.needs_input_grad)
        x, flat, kept = ctx.saved_tensors
        strips, nothing = ctx.plan.strips(x), x.new_empty(0, 1)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else nothing
        sums, scratch = x.new_empty(strips, len(flat)), ctx.plan.scratch(x, backward=True)
        grads = [nothing if grad is None else grad.contiguous() for grad in (grad_out, grad_gradient)]
        arguments = [x, flat, *ctx.plan.sizes(x), ctx.softness, max(ctx.channel, 0), *grads, scratch, kept]
        launch(backward_layers, strips, [*arguments, grad_x, sums], device=x.device, grain=1, threads=THREADS)
        of_parameters = ctx.plan.parts(sums[0] if strips == 1 else sums.sum(0))
        return (grad_x if ctx.needs_input_grad[0] else None, None, None, *of_parameters)
