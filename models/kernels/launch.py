"""How a Warp kernel is started on torch tensors: on torch's stream on CUDA, split over threads on a CPU."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
import warp as wp

wp.config.log_level = wp.LOG_ERROR  # no banner, and no warning on machines without a CUDA driver
wp.config.enable_backward = False  # every backward is written by hand


def _initialize() -> None:
    """Start Warp; its native part writes to stderr on every machine without a GPU, which says nothing new."""
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


def launch(
    kernel: Any, count: int, inputs: Sequence[Any], *, device: torch.device, block: int = 1, grain: int = GRAIN
) -> None:
    """Run `kernel` for the items 0 .. count-1.

    The kernel's first argument is the index of the first item of its share, to be added to `wp.tid()`; `inputs`
    are the other arguments (torch tensors or numbers). On a CPU the items are split into one contiguous share per
    thread (`set_threads`), cut at multiples of `block`: a kernel that scatters within blocks is free of races and
    sums in the same order however many threads there are. grain: fewer items than this are not worth a second thread.

    Raises whatever Warp raises for arguments that do not fit the kernel's signature.
    """
    if count == 0:
        return
    arguments = [as_warp(x) if isinstance(x, torch.Tensor) else x for x in inputs]
    if device.type == "cuda":
        stream = wp.stream_from_torch(torch.cuda.current_stream(device))
        wp.launch(kernel, dim=count, inputs=[0, *arguments], device=stream.device, stream=stream)
        return
    first, *rest = _shares(count, block, grain)
    jobs = [_pool().submit(_launch_share, kernel, share, arguments) for share in rest]
    _launch_share(kernel, first, arguments)
    for job in jobs:
        job.result()


def as_warp(tensor: torch.Tensor, dtype: Any = None) -> Any:
    """The same memory as the argument of a kernel; with a vector `dtype` the last axis becomes the vector.

    A bare descriptor: it does not keep the tensor alive.
    """
    return wp.from_torch(tensor.detach(), dtype=dtype, requires_grad=False, return_ctype=True)


def set_threads(count: int) -> None:
    """Let kernels use `count` >= 1 threads of the CPU; at first as many as torch finds.

    Torch's own threads are another matter: its operations on small networks are too short to share, the kernels' not.
    """
    global _threads
    _threads = count


def set_own_threads(count: int) -> None:
    """As `set_threads`, for the kernels that the calling thread starts."""
    _own.count = count


_threads = torch.get_num_threads()
_own = threading.local()


def _shares(count: int, block: int, grain: int) -> list[tuple[int, int]]:
    blocks = -(-count // block)
    threads = max(1, min(getattr(_own, "count", _threads), blocks, count // grain))
    edges = [min(count, blocks * i // threads * block) for i in range(threads + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _launch_share(kernel: Any, share: tuple[int, int], arguments: list[Any]) -> None:
    if kernel not in _loaded:
        with _loading:  # one thread compiles, the others wait
            kernel.module.load("cpu")
            _loaded.add(kernel)
    wp.launch(kernel, dim=share[1] - share[0], inputs=[share[0], *arguments], device="cpu")


_loaded: set[Any] = set()
_loading = threading.Lock()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="kernel")
