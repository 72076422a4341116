"""The host's memory: how much there is, and an end to what a process may ask for."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # version 2, 1
STATISTICS = "/sys/fs/cgroup/memory.stat"


def of_machine() -> int:
    """Bytes of the machine, or of the container where that has less."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in CONTAINER:
        with suppress(OSError, ValueError):
            memory = min(memory, int(Path(file).read_text("ascii")))
    return memory


def limit() -> None:
    """Let requests for more than the machine or the container has fail, where the system would end the process later.

    Linux grants what it does not have, and kills who then uses it. What was granted to a process that only computes on
    the CPU is what it uses; a GPU's driver asks for much more.
    """
    most = of_machine() + _swap()
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        known = [value for value in (soft, hard, most) if value != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))


def free() -> int:
    """Bytes that this process can still get, swap included, as far as the system says it."""
    system = sizes("/proc/meminfo")
    found = [system["MemAvailable"] + system.get("SwapFree", 0)] if "MemAvailable" in system else []
    used = sizes(STATISTICS, unit=1).get("anon")  # not what the container has read from disks
    if used is not None:
        found.append(of_machine() - used)
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        found.append(soft - sizes("/proc/self/status").get("VmData", 0))
    return max(min(found, default=of_machine()), 0)


def give_back() -> None:
    """Return to the system what this process has freed, as far as its C library can; takes milliseconds.

    glibc keeps what threads have freed for them, which looks as if a server grew with each visitor.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_mb(device: Any) -> float:
    """Peak resident memory of this process, or of its GPU allocations on CUDA; MiB. device: a torch device."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _swap() -> int:
    return sizes("/proc/meminfo").get("SwapTotal", 0)


def sizes(file: str, unit: int = 1024) -> dict[str, int]:
    """The numbers in a file of lines `name: number unit`, in bytes, by name; nothing where there is no such file."""
    found = {}
    with suppress(OSError):
        for line in Path(file).read_text("utf-8", "replace").splitlines():
            words = line.replace(":", " ").split()
            if len(words) > 1 and words[1].isdecimal():
                found[words[0]] = unit * int(words[1])
    return found
