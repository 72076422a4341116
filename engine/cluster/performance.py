"""What a run's time goes into beside its own work: the other ranks; and how much a GPU is used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from statistics import mean
from typing import Any

import torch

from engine.cluster.exchange import Exchange
from utils import distributed
from utils.machine import machine
from utils.memory import peak_memory_mb

LOOK_EVERY = 16  # steps between two looks at the clock of an exchange, which on a GPU wait for it
COMMUNICATION, SCALING = "perf/communication_share", "perf/scaling_efficiency_at_most"
MEMORY, UTILIZATION = "perf/gpu_memory_mb", "perf/gpu_utilization"


class Communication:
    """The share of the steps' time in which ranks exchange numbers or wait for one another, and compute nothing.

    The exchange of gradients is timed on the device, now and then. Other collectives are timed by the host, which with
    NCCL does not see their end: they are a few numbers.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._begin()

    def _begin(self) -> None:
        self._clock, self._waited = time.perf_counter(), distributed.seconds_in_collectives()
        self._steps, self._exchanges = 0, list[float]()

    def after_step(self) -> None:
        """Count a step, and look now and then how long its gradients took."""
        self._steps += 1
        if self._steps % LOOK_EVERY == 1:
            self._exchanges.append(self._exchange.seconds())

    def read(self) -> dict[str, float]:
        """The share since the last call, as mean over all ranks, and the bound that follows; all ranks together.

        N ranks are at most 1 - share times N as quick as one process that has all the rays: they compute in the rest of
        the time only, and no quicker than it. Empty before the first step.
        """
        if not self._exchanges:
            return {}
        seconds = max(time.perf_counter() - self._clock, 1e-9)
        waited = self._steps * mean(self._exchanges) + distributed.seconds_in_collectives() - self._waited
        share = distributed.mean_of_ranks(min(waited / seconds, 1.0))
        self._begin()
        return {COMMUNICATION: share, SCALING: 1 - share}


def gpu_load(device: torch.device) -> dict[str, float]:
    """MiB of tensors on a GPU, and the share of the last second or so in which it was at work; of a CPU nothing.

    The latter is known where the package nvidia-ml-py (`pynvml`) is installed.
    """
    if device.type != "cuda":
        return {}
    load = {MEMORY: torch.cuda.memory_allocated(device) / 2**20}
    if find_spec("pynvml") is not None:
        with suppress(Exception):  # of a driver or a container that does not tell; whatever it is, it is no news
            load[UTILIZATION] = torch.cuda.utilization(device) / 100
    return load


def words(rows: Mapping[str, float]) -> list[str]:
    """What of this is shown beside the speed."""
    said = []
    if COMMUNICATION in rows:
        said += [f"communication {rows[COMMUNICATION]:.0%}, scaling at most {rows[SCALING]:.0%}"]
    if MEMORY in rows:
        said += [f"GPU {rows[MEMORY] / 1024:.1f} GiB"]
    if UTILIZATION in rows:
        said += [f"{rows[UTILIZATION]:.0%} busy"]
    return said


def summary(ranks: distributed.Ranks, *, steps: int, rays: int, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    """What metrics.json says of a training. rays: of all ranks in all steps. seconds, cpu_seconds: of the whole run."""
    return {
        "steps": steps,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rays_per_second": rays / max(seconds, 1e-9),
        "peak_memory_mb": peak_memory_mb(ranks.device),
        "ranks": ranks.world,
        "machine": machine(ranks.device),
    }
