"""A kernel beside its PyTorch baseline, and the least that it could take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dataio.cameras import Rays
from models.kernels.encodings.hash_encode import HashLevels

FLOAT = 4  # bytes

Results = tuple[Tensor, ...]
Work = Callable[[], Results]


@dataclass(frozen=True)
class Roofs:
    """Per second: floating point operations, bytes copied, random rows of two floats read and added to."""

    flop: float
    copied: float
    read: float
    added: float


@dataclass(frozen=True)
class Least:
    """What a kernel cannot do without, in the units of `Roofs`."""

    flop: float = 0.0
    copied: float = 0.0
    read: float = 0.0
    added: float = 0.0

    def seconds(self, roofs: Roofs) -> float:
        """One after the other at the machine's rates."""
        return sum(getattr(self, part.name) / getattr(roofs, part.name) for part in fields(self))


@dataclass(frozen=True)
class Case:
    """A kernel and its PyTorch baseline. items: points, samples or rays.

    differ: a number for how much their results differ; largest_difference if not given.
    """

    name: str
    items: int
    forms: tuple[Work, Work]
    least: Least | None = None
    differ: Callable[[Sequence[Tensor], Sequence[Tensor]], float] | None = None


def both(work: Callable[[Any], Results], ours: Any, simple: Any) -> tuple[Work, Work]:
    """The same work by two functions."""
    return partial(work, ours), partial(work, simple)


def backward(forms: Sequence[Work], inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Work, Work]:
    """The backward passes of two graphs alone, which can be done again and again."""
    ours, simple = (partial(torch.autograd.grad, form(), inputs, grads, retain_graph=True) for form in forms)
    return ours, simple


def share_that_differs(ours: Sequence[Tensor], simple: Sequence[Tensor]) -> float:
    """Of the numbers of two results, where they are counts or truths."""
    pairs = list(zip(ours, simple, strict=True))
    return sum(float((a != b).sum()) for a, b in pairs) / max(sum(a.numel() for a, _ in pairs), 1)


@dataclass(frozen=True)
class Inputs:
    """Rays at a sphere through a grid whose cells near it are occupied; the samples that a march finds there."""

    rays: Rays
    jitter: Tensor
    occupied: Tensor
    coarse: Tensor
    step: float
    offsets: Tensor
    points: Tensor  # [M, 3]
    levels: HashLevels
