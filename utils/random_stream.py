"""Random numbers for code that several threads run: each part of a step draws from a stream of its own.

Outside of any stream they come from torch's own generator of the device.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_own = threading.local()


@contextmanager
def random_stream(generator: torch.Generator) -> Iterator[None]:
    """Within, this thread's numbers on the generator's device are the generator's."""
    before = _generator()
    _own.generator = generator
    try:
        yield
    finally:
        _own.generator = before


def uniform(shape: Sequence[int], device: torch.device) -> Tensor:
    """Independent numbers [*N] in 0 .. 1, 1 excluded, float32, *N = `shape`."""
    return torch.rand(*shape, device=device, generator=_generator())


def normal(shape: Sequence[int], device: torch.device) -> Tensor:
    """Independent numbers [*N] of the standard normal distribution, float32, *N = `shape`."""
    return torch.randn(*shape, device=device, generator=_generator())


def permutation(count: int, device: torch.device) -> Tensor:
    """[N] the numbers 0 .. N-1 in random order, int64, N = `count`."""
    return torch.randperm(count, device=device, generator=_generator())


def _generator() -> torch.Generator | None:
    found: torch.Generator | None = getattr(_own, "generator", None)
    return found
