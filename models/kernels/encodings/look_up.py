"""Features that are looked up in a table, with a gradient in the points that can itself be differentiated.

An encoding says how its kernels are launched; which pass reads what of which other one is here, once for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Lookup(ABC):
    """The kernels of an encoding over a table [N, F], for points [M, 3]; features are [M, W].

    along: [M, 3], a direction for each point, or of no rows: none.
    """

    @abstractmethod
    def features(self, points: Tensor, table: Tensor, along: Tensor) -> Tensor:
        """[M, W] features or, with a direction, their derivative in it."""

    @abstractmethod
    def pull(self, points: Tensor, table: Tensor, weight: Tensor, second: Tensor, along: Tensor) -> Tensor:
        """[M, 3] gradient of sum(weight * features) in the points, and of the derivative along a direction.

        weight, second: [M, W], of the features and of their derivative; `second` has no rows without a direction.
        """

    @abstractmethod
    def scatter(self, points: Tensor, table: Tensor, grad: Tensor, weight: Tensor, along: Tensor) -> Tensor | None:
        """Gradient of the table, as `TableGradients.of` returns it: of the features and of their derivative.

        grad, weight: [M, W], as `weight` and `second` of `pull`.
        """


def look_up(points: Tensor, table: Tensor, lookup: Lookup) -> Tensor:
    """[M, W] features of points [M, 3]. Differentiable in `points` and `table`, once."""
    return _Features.apply(points, table, lookup, None)


def look_up_with_vjp(points: Tensor, table: Tensor, lookup: Lookup) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `look_up`, and a function from feature weights w [M, W] to d(sum w . features)/d(points) [M, 3].

    To be called once at most. Features and vjp are differentiable in `points`, `table` and w, once.
    """
    later = _Later()
    features = _Features.apply(points, table, lookup, later)
    return features, lambda weight: _Pull.apply(points, table, weight, features, lookup, later)


@dataclass
class _Later:
    """What the backward pass of the vjp hands to that of the features, which runs after it."""

    second: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def _nothing(points: Tensor) -> Tensor:
    return points.new_empty(0, 3)


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, lookup: Lookup, later: _Later | None) -> Tensor:
        points = points.contiguous()
        ctx.save_for_backward(points, table)
        ctx.lookup, ctx.later = lookup, later
        return lookup.features(points, table, _nothing(points))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        points, table = ctx.saved_tensors
        grad, nothing = grad.contiguous(), _nothing(points)
        weight, along = ctx.later.second.pop() if ctx.later and ctx.later.second else (nothing, nothing)
        grad_points = grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = ctx.lookup.scatter(points, table, grad, weight, along)
        if ctx.needs_input_grad[0]:
            grad_points = ctx.lookup.pull(points, table, grad, weight, along)
        return grad_points, grad_table, None, None


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, table: Tensor, weight: Tensor, features: Tensor, lookup: Lookup, later: _Later
    ) -> Tensor:
        # `features` is not read: as an input it makes its backward pass run after this one's.
        points, weight = points.contiguous(), weight.contiguous()
        ctx.save_for_backward(points, table, weight)
        ctx.lookup, ctx.later = lookup, later
        return lookup.pull(points, table, weight, _nothing(points), _nothing(points))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None, None, None, None]:
        points, table, weight = ctx.saved_tensors
        along = grad.contiguous()
        ctx.later.second.append((weight, along))
        grad_weight = ctx.lookup.features(points, table, along) if ctx.needs_input_grad[2] else None
        return None, None, grad_weight, None, None, None
