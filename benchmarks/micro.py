"""Two rates that bound a hash encoding: random reads from a table and random additions to it, as small kernels.

Which rows is read from an array, in order, which costs little beside them.
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp

from benchmarks.machine import best
from models.kernels.runtime.launch import as_warp, launch

MEGABYTES = 24  # a table of 2^22 or so entries of two halves: larger than a CPU's cache, smaller than that of an H100
PER_THREAD = 8
COUNT = 1 << 22  # reads or additions


def rates(device: torch.device, *, rows: int) -> dict[str, float]:
    """Billions of reads and additions per CPU-second, on CUDA per second; each is of one row of two numbers.

    half: of 4 bytes, from a table of `MEGABYTES`. float: of 8 bytes, from a table of `rows` rows.
    """
    halves = int(MEGABYTES * 2**20) // 4
    sizes = {"half": (halves, torch.float16, wp.vec2h), "float": (rows, torch.float32, wp.vec2)}
    kernels = {("read", "half"): _read_half, ("read", "float"): _read_float}
    kernels |= {("add", "half"): _add_half, ("add", "float"): _add_float}
    return {
        f"{verb}_{kind}2_g_per_s": rate(kernel, *sizes[kind], device=device) for (verb, kind), kernel in kernels.items()
    }


def rate(kernel: Any, rows: int, dtype: torch.dtype, pair: Any, *, device: torch.device) -> float:
    """Billions per second of what the kernel does `COUNT` times to a table of `rows` rows of two numbers."""
    table = torch.zeros(rows, 2, dtype=dtype, device=device)
    out = torch.empty(COUNT // PER_THREAD, device=device)
    which = torch.randint(rows, (len(out) * PER_THREAD,), dtype=torch.int32, device=device)
    inputs = [as_warp(table, pair), which, out]
    return 1e-9 * len(which) / best(lambda: launch(kernel, len(out), inputs, device=device), device, 3)


@wp.kernel(enable_backward=False)
def _read_half(first: int, table: wp.array(dtype=wp.vec2h), rows: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = first + wp.tid()
    total = float(0.0)
    for k in range(PER_THREAD):
        pair = table[rows[i * PER_THREAD + k]]
        total += float(pair[0]) + float(pair[1])
    out[i] = total


@wp.kernel(enable_backward=False)
def _read_float(first: int, table: wp.array(dtype=wp.vec2), rows: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = first + wp.tid()
    total = float(0.0)
    for k in range(PER_THREAD):
        pair = table[rows[i * PER_THREAD + k]]
        total += pair[0] + pair[1]
    out[i] = total


@wp.kernel(enable_backward=False)
def _add_half(first: int, table: wp.array(dtype=wp.vec2h), rows: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = first + wp.tid()
    for k in range(PER_THREAD):
        wp.atomic_add(table, rows[i * PER_THREAD + k], wp.vec2h(wp.float16(1.0), wp.float16(1.0)))
    out[i] = 0.0


@wp.kernel(enable_backward=False)
def _add_float(first: int, table: wp.array(dtype=wp.vec2), rows: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = first + wp.tid()
    for k in range(PER_THREAD):
        wp.atomic_add(table, rows[i * PER_THREAD + k], wp.vec2(1.0, 1.0))
    out[i] = 0.0
