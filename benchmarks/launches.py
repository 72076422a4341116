"""How often a training step starts our kernels, how long they take, and how much of the step that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.machine import cost, repeated
from benchmarks.patch import patched
from models.kernels.runtime.launch import launch


@dataclass
class Launched:
    """Of one kernel: how many launches, and their cost together (CPU seconds, on CUDA wall seconds)."""

    count: int = 0
    seconds: float = 0.0


@contextmanager
def watched() -> Iterator[dict[str, Launched]]:
    """Within, every launch is timed under "file.kernel"; on CUDA each is waited for."""
    found: dict[str, Launched] = {}

    def instead(kernel: Any, count: int, inputs: Sequence[Any], *, device: torch.device, **options: int) -> None:
        one = found.setdefault(f"{kernel.func.__module__.rpartition('.')[2]}.{kernel.func.__name__}", Launched())
        one.count += count > 0
        one.seconds += cost(lambda: launch(kernel, count, inputs, device=device, **options), device)

    with patched([(launch, instead)]):
        yield found


def shares(step: Callable[[], object], steps: int, device: torch.device) -> tuple[float, list[dict[str, Any]]]:
    """Cost of a step, and per kernel a row: launches and microseconds per step, share of the step; longest first.

    The step's cost is that of as many steps before, in which nothing is watched. What a kernel's function does around
    the launch (making the outputs, autograd) is not in its share.
    """
    whole = cost(lambda: repeated(step, steps), device) / steps
    with watched() as found:
        repeated(step, steps)
    everything = Launched(sum(one.count for one in found.values()), sum(one.seconds for one in found.values()))
    longest = sorted(found.items(), key=lambda pair: -pair[1].seconds)
    rows = [row(name, one, steps, whole) for name, one in longest]
    return whole, [*rows, row("all of them", everything, steps, whole)]


def row(name: str, launched: Launched, steps: int, whole: float) -> dict[str, Any]:
    """A line of the table. whole: cost of a step."""
    seconds = launched.seconds / steps
    return {
        "kernel": name,
        "launches_per_step": launched.count / steps,
        "us_per_step": 1e6 * seconds,
        "share_of_step": seconds / whole,
    }


def cuda_launches(step: Callable[[], object], steps: int, device: torch.device) -> dict[str, float | None]:
    """Per step, what runs on the GPU: kernels of anybody, and copies and fills; None on a CPU."""
    if device.type != "cuda":
        return {"cuda_kernels_per_step": None, "cuda_copies_per_step": None}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        repeated(step, steps)
        torch.cuda.synchronize(device)
    names = [event.name for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = sum(name.startswith(("Memcpy", "Memset")) for name in names)
    return {"cuda_kernels_per_step": (len(names) - copies) / steps, "cuda_copies_per_step": copies / steps}
