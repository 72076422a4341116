"""A Warp kernel compiled for this CPU: a native function, called without Warp's own checks in a fifth of the time."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import warp as wp


class Compiled:
    """A kernel of one dimension, for the thread that made it: not safe for two threads at once."""

    def __init__(self, kernel: Any, inputs: Sequence[Any]) -> None:
        """inputs: any that fit the kernel, for their types. Raises what Warp raises where they do not fit."""
        with _compiling:  # one thread compiles, the others wait
            self.command = wp.launch(kernel, dim=1, inputs=inputs, device="cpu", record_cmd=True)
        self.function = self.command.hooks.forward
        self.address = ctypes.cast(self.function, ctypes.c_void_p).value or 0
        fields = [(f"argument_{i}", type(value)) for i, value in enumerate(self.command.params[1:])]
        self.structure = type("Arguments", (ctypes.Structure,), {"_fields_": fields})
        self.count = len(fields)

    def arguments(self, inputs: Sequence[Any]) -> ctypes.Structure:
        """The structure from which the function reads its arguments. Raises TypeError for other numbers or types."""
        if len(inputs) != self.count:
            raise TypeError(f"{len(inputs)} arguments of a kernel: expected {self.count}")
        return self.structure(*inputs)

    def bounds(self, count: int) -> ctypes.Structure:
        """The launch bounds with which the function runs `count` items."""
        self.command.set_dim(count)
        bounds: ctypes.Structure = self.command.bounds
        return bounds

    def call(self, count: int, inputs: Sequence[Any]) -> Callable[[], None]:
        """The kernel for `count` items, to be run by any thread; raises as `arguments`."""
        return partial(self.function, ctypes.pointer(self.bounds(count)), ctypes.pointer(self.arguments(inputs)))


_compiling = threading.Lock()
