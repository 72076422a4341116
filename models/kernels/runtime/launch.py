"""Launch of Warp kernels on torch tensors: on torch's stream on CUDA, by a thread pool on a CPU."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import warp as wp

from models.kernels.runtime.lanes import LANES
from models.kernels.runtime.thread_pool import ThreadPool

wp.config.log_level = wp.LOG_ERROR  # no banner, and no warning on machines without a CUDA driver
wp.config.enable_backward = False  # every backward is written by hand


def _initialize() -> None:
    """Initialize Warp without what its native part writes to stderr on every machine without a GPU."""
    if torch.cuda.is_available():
        wp.init()
        return
    sys.stderr.flush()
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        wp.init()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)


_initialize()

GRAIN = 2048  # fewer items than this are not worth a second thread
PIECES = 16  # of a kernel per thread; a thread that has done one takes the next


def launch(
    kernel: Any,
    count: int,
    inputs: Sequence[Any],
    *,
    device: torch.device,
    block: int = 1,
    grain: int = GRAIN,
    threads: int = 1,
) -> None:
    """Run `kernel` for the items 0 .. count-1.

    The kernel's first argument is the index of the first item of its piece, to be added to `wp.tid()`; `inputs` are the
    other arguments (torch tensors or numbers). On a CPU each of the threads (`set_threads`) takes the next free
    piece of the items, cut at multiples of `block`, of one block each where it is given: a kernel that scatters within
    blocks is free of races and sums in the same order however many threads there are. grain: fewer items than this are
    not worth a second thread. threads: of a GPU that share an item, as a block; each has its own index then.

    Raises what Warp raises for arguments that do not fit the kernel's signature; on a CPU, where it has been compiled
    before, TypeError. Raises RuntimeError where gradients are recorded and an input requires one: no kernel has a
    gradient of its own, and outside of an autograd function (within which nothing is recorded) the gradient of the
    input would silently be missing.
    """
    if count == 0:
        return
    if torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in inputs):
        raise RuntimeError(f"the kernel {kernel.key.lstrip('_')} has no gradient, and an input requires one: detach it")
    arguments = [0, *(as_warp(x) if isinstance(x, torch.Tensor) else x for x in inputs)]
    if device.type == "cuda":
        stream = wp.stream_from_torch(torch.cuda.current_stream(device))
        shape = {"block_dim": threads} if threads > 1 else {}
        wp.launch(kernel, dim=count * threads, inputs=arguments, device=stream.device, stream=stream, **shape)
        return
    compiled = _own.kernels.get(kernel)
    if compiled is None:
        compiled = _own.kernels[kernel] = Compiled(kernel, arguments)
    blocks = -(-count // block)
    team = min(_own.count or _threads, blocks, count // grain)
    if team <= 1:
        compiled.call(count, arguments)()
    else:
        pieces = blocks if block > 1 else min(blocks, PIECES * team)
        _own.team_of(team).run(compiled, count, -(-blocks // pieces) * block, arguments)


def lanes(device: torch.device) -> int:
    """How many points a block holds on this device."""
    return LANES if device.type == "cpu" else 1


def at_once(numbers: int, registers: Sequence[int], device: torch.device) -> int:
    """How many numbers of a row of `numbers` a thread takes at once: the first register that divides it, on a CPU.

    registers: sizes that the kernel has, the largest first, 1 the last.
    """
    return next(size for size in registers if size <= lanes(device) and numbers % size == 0)


def launch_blocks(
    kernel: Any, points: int, inputs: Sequence[Any], *, device: torch.device, grain: int = GRAIN
) -> None:
    """`launch` for the blocks of so many points. grain: fewer blocks than this are not worth a second thread."""
    launch(kernel, -(-points // lanes(device)), inputs, device=device, grain=grain)


def as_warp(tensor: torch.Tensor, dtype: Any = None) -> Any:
    """A tensor's memory, [N], [N, K] or of more axes, as the argument of a kernel.

    dtype: a vector, which the last axis becomes. A bare descriptor: it does not keep the tensor alive. Raises TypeError
    for a dtype that no kernel takes.
    """
    if dtype is not None:
        return _described(tensor, dtype)
    size = _SIZES.get(tensor.dtype)
    if size is None:
        raise TypeError(f"a kernel's argument is {tensor.dtype}: expected one of {[*map(str, _SIZES)]}")
    shape, strides = tensor.shape, tensor.stride()
    if len(shape) == 1:
        return _Array.from_buffer_copy(_pack(tensor.data_ptr(), 0, *shape, 0, 0, 0, size * strides[0], 0, 0, 0, 1))
    if len(shape) == 2:
        steps = size * strides[0], size * strides[1]
        return _Array.from_buffer_copy(_pack(tensor.data_ptr(), 0, *shape, 0, 0, *steps, 0, 0, 2))
    return _described(tensor)


def _described(tensor: torch.Tensor, dtype: Any = None) -> Any:
    descriptor = wp.from_torch(tensor.detach(), dtype=dtype, requires_grad=False, return_ctype=True)
    descriptor._ref = None  # Warp keeps the tensor in it; what outlives a step would keep a table's gradient
    return descriptor


# As `wp.from_torch` does it, in a quarter of its time: address, gradient, shape, steps in bytes, axes.
_SIZES = {torch.float32: 4, torch.int32: 4, torch.int64: 8, torch.uint8: 1}
_Array: Any = type(wp.from_torch(torch.zeros(1), return_ctype=True))
_pack = struct.Struct("QQ4i4ii4x").pack


def load_kernels(device: torch.device) -> None:
    """Compile all kernels that are imported, or read them from the cache, some at a time, where they run on a GPU.

    Else each module's first launch would wait for it, within whatever is timed. A module whose kernels share an item
    among the threads of a block names their number `THREADS`.
    """
    if device.type != "cuda":
        return
    by_threads: dict[int | None, list[Any]] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("models.kernels.") and any(isinstance(value, wp.Kernel) for value in vars(module).values()):
            by_threads.setdefault(getattr(module, "THREADS", None), []).append(wp.get_module(name))
    for threads, modules in by_threads.items():
        wp.force_load(device=str(device), modules=modules, block_dim=threads)


def set_threads(count: int) -> None:
    """Let kernels use `count` >= 1 threads of the CPU; the default is torch's number.

    Independent of torch's own threads: its operations on small networks are too short to share, the kernels' are not.
    """
    global _threads
    _threads = count


def set_own_threads(count: int) -> None:
    """As `set_threads`, for the kernels that the calling thread launches."""
    _own.count = count


class Compiled:
    """A kernel of one dimension, compiled for this CPU: a native function, called without Warp's own checks.

    It takes a fifth of the time. For the thread that made it: not safe for two threads at once.
    """

    def __init__(self, kernel: Any, inputs: Sequence[Any]) -> None:
        """inputs: any that fit the kernel, for their types.

        Raises what Warp raises where they do not fit, and MemoryError where no memory is left for the kernel's code.
        """
        with _compiling:  # one thread compiles, the others wait
            try:
                self.command = wp.launch(kernel, dim=1, inputs=inputs, device="cpu", record_cmd=True)
            except RuntimeError as error:
                if "Failed to find forward kernel" not in str(error):
                    raise
                kernel.module.unload()  # it is in the file, but was not placed: the next launch reads the file again
                raise MemoryError(f"no memory is left to load the kernel {kernel.key.lstrip('_')}") from error
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


class _Own(threading.local):
    """State of each thread that launches kernels: its compiled kernels and its thread pool."""

    def __init__(self) -> None:
        self.count = 0  # threads; 0: those of `set_threads`
        self.kernels: dict[Any, Compiled] = {}
        self.team: ThreadPool | None = None

    def team_of(self, threads: int) -> ThreadPool:
        if self.team is None or self.team.threads < threads:
            self.team = ThreadPool(threads, Compiled)
        return self.team


_threads = torch.get_num_threads()
_own = _Own()
_compiling = threading.Lock()
