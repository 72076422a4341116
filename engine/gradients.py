"""The gradient of a step's loss, part by part: one after another, or several at once on the threads of a CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dataio.batches import RayBatch
from engine.experiment import TrainConfig
from engine.recording import Recording, settings
from models.kernels.runtime.launch import set_own_threads
from models.networks.mlp import Mlp
from models.objective import Objective, Report
from utils.precision import fast_products
from utils.random_stream import random_stream

SMALLEST_PART = 16  # rays; where these do not fit into memory, nothing does


class Gradients:
    """Batch -> Report, and the gradient of its loss in the parameters' `grad`.

    On a CPU each thread renders a part of the rays with a graph of its own, where memory asks for parts: products of
    wide networks are shared best that way. The parts' gradients are added up in order, and a part's random numbers are
    a function of the seed and its place: how the threads take turns changes nothing. A part that is alone is shared
    kernel by kernel (`models.kernels.runtime.thread_pool`).
    A step that does not fit a GPU's memory is taken again in parts of half the size, and so are those after it. On one
    GPU steps are recorded where they wait for nothing, and replayed: a report is then good until the next step.
    """

    def __init__(
        self,
        objective: Objective,
        module: Any,
        train: TrainConfig,
        *,
        device: torch.device,
        warn: Callable[[str], None] = print,
    ) -> None:
        """module: the objective, or what distributes it over ranks; those share out their rays themselves.

        warn: is told when parts become smaller.
        """
        self.warn, self.area = warn, train.patch_area
        self.objective, self.module, self.device = objective, module, device
        self.mixed = train.precision == "mixed"
        threads = torch.get_num_threads()
        self.threads = self._at_once(train, threads)
        # Beside networks that a kernel takes as a whole torch's operations are too short to be shared.
        networks = [module for module in objective.modules() if isinstance(module, Mlp)]
        short = device.type == "cpu" and not any(network.by_products for network in networks)
        self.torch_threads = 1 if short else threads  # that share an operation of torch's in a step, parts or not
        self.rays = part_size(train, self.threads)
        self.generators: list[torch.Generator] = []  # of the parts
        self.recording: Recording[RayBatch, Report] | None = None
        if train.cuda_graph and device.type == "cuda" and module is objective:
            modules, parameters = list(objective.modules()), objective.parameters()
            self.recording = Recording(self._of, key=lambda: (self.rays, settings(modules)), parameters=parameters)
        self.pool: ThreadPoolExecutor | None = None
        if self.threads > 1:
            own = (threads // self.threads,)
            self.pool = ThreadPoolExecutor(self.threads, "part", initializer=set_own_threads, initargs=own)

    def _at_once(self, train: TrainConfig, threads: int) -> int:
        """How many parts are rendered at once."""
        # Mixed precision switches the products of the whole process to and fro.
        if self.device.type != "cpu" or self.module is not self.objective or self.mixed:
            return 1
        return min(threads, -(-train.rays // (train.rays_at_once or train.rays)))

    def __call__(self, batch: RayBatch) -> Report:
        """Raises torch.OutOfMemoryError when smaller parts do not help, or ranks would part company over it."""
        while True:
            self._seed(-(-len(batch) // self.rays))
            try:
                with threads_of_torch(max(self.torch_threads // self.threads, 1)):
                    return self._of(batch) if self.recording is None else self.recording(batch, self.generators)
            except torch.OutOfMemoryError:
                if self.module is not self.objective or self.rays <= max(self.area, SMALLEST_PART):
                    raise
            torch.cuda.empty_cache()  # what the exception held on to is free by now
            before, self.rays = self.rays, max(self.rays // 2 // self.area, 1) * self.area
            self.warn(f"{before} rays at once do not fit into memory: going on with train.rays_at_once={self.rays}")

    def _seed(self, parts: int) -> None:
        """Begin the parts' streams of random numbers anew, as functions of torch's seed."""
        self.generators = self.generators[:parts]
        while len(self.generators) < parts:
            self.generators.append(torch.Generator(self.device))
        for i, generator in enumerate(self.generators):
            generator.manual_seed((torch.initial_seed() + i * 1_000_000_007) % 2**63)

    def _of(self, batch: RayBatch) -> Report:
        parts = batch.split(self.rays)
        self.objective.zero_grad()
        run = self._in_turn if self.pool is None else self._together
        return Report.merged(run(parts), [part.share for part in parts])

    def _in_turn(self, parts: list[RayBatch]) -> list[Report]:
        reports, alone = [], self.module is self.objective
        for i, (part, generator) in enumerate(zip(parts, self.generators, strict=True)):
            with nullcontext() if alone or i == len(parts) - 1 else self.module.no_sync():
                with random_stream(generator):
                    report: Report = self.module(part)
                with fast_products(self.device.type) if self.mixed else nullcontext():
                    (part.share * report.loss).backward()
            reports.append(replace(report, loss=report.loss.detach()))
        return reports

    def _together(self, parts: list[RayBatch]) -> list[Report]:
        assert self.pool is not None
        parameters, reports = list(self.objective.parameters()), []
        jobs = deque(
            self.pool.submit(self._part, part, generator, parameters)
            for part, generator in zip(parts, self.generators, strict=True)
        )
        try:
            while jobs:  # those taken are gone, and their gradients with them
                report, gradients = jobs.popleft().result()
                reports.append(report)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        finally:
            for job in jobs:
                job.cancel()
        return reports

    def _part(
        self, part: RayBatch, generator: torch.Generator, parameters: Sequence[Tensor]
    ) -> tuple[Report, tuple[Tensor | None, ...]]:
        with random_stream(generator):
            report = self.objective(part)
        gradients = torch.autograd.grad(part.share * report.loss, parameters, allow_unused=True)
        return replace(report, loss=report.loss.detach()), gradients

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Within, torch shares an operation among so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def part_size(train: TrainConfig, threads: int) -> int:
    """Rays of a part: at most `rays_at_once`, enough parts for all threads, whole patches."""
    area = train.patch_area
    share = -(-train.rays // (threads * area)) * area
    return min(train.rays_at_once or train.rays, share)
