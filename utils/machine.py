"""What a run or a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine(device: Any) -> dict[str, Any]:
    """Hardware and versions under names that can be printed. device: a torch device."""
    return {**hardware(device), **versions()}


def hardware(device: Any) -> dict[str, Any]:
    """What the machine is."""
    import torch

    names = [line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")]
    found: dict[str, Any] = {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count()}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return {**found, "device": device.type}


def cpu_lines() -> list[str]:
    """Linux's description of the CPU; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []


def versions() -> dict[str, str]:
    """Of what times and numbers depend on."""
    import torch
    import warp

    return {"python": platform.python_version(), "torch": str(torch.__version__), "warp": warp.__version__}
