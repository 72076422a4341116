"""A kernel whose body is C++, with its signature written once.

Warp needs two functions for it: one that holds the C++, and a kernel that calls it with the index of its thread, each
with all parameters and their types. The second one is the same for all, so it is made here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import warp as wp

# Types of a kernel's parameters: contiguous arrays of 32-bit floats [N] and [N, K], of pairs of them [N], of integers
# [N] and [N, K].
Floats, Rows, Pairs = wp.array(dtype=float), wp.array2d(dtype=float), wp.array(dtype=wp.vec2)
Ints, Longs, Bytes = wp.array(dtype=int), wp.array(dtype=wp.int64), wp.array(dtype=wp.uint8)
LongRows, ByteRows = wp.array2d(dtype=wp.int64), wp.array2d(dtype=wp.uint8)


def native_kernel(body: str) -> Callable[[Callable[..., None]], Any]:
    """Make a kernel of a stub `def name(item: int, ...): ...` by a body in C++, in the module of the stub.

    The body refers to the parameters by their names; `item`, the first, is the index of what this call works on. The
    kernel takes the index of its first item in that place (see `launch`). Block size and shared memory are as of any
    kernel: they belong to the launch and to the body. Not differentiable.
    """

    def make(stub: Callable[..., None]) -> Any:
        assert isinstance(stub, FunctionType)
        item, *others = inspect.signature(stub).parameters
        names = {**stub.__globals__, "wp": wp, "native_body": wp.func_native(body)(stub)}
        caller = FunctionType(stub.__code__, names, stub.__name__)  # of which Warp reads names and annotations alone
        caller.__annotations__, caller.__module__ = stub.__annotations__, stub.__module__
        caller.__qualname__ = stub.__qualname__
        passed = ", ".join([f"{item} + wp.tid()", *others])
        source = f"def {stub.__name__}({', '.join([item, *others])}):\n    native_body({passed})\n"
        return wp.Kernel(caller, options={"enable_backward": False}, source=source)

    return make
