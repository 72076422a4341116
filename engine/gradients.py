"""The gradient of a step's loss, accumulated over micro-batches: in turn, or several at once on a CPU's threads."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from dataio.batches import PlannedBatch, RayBatch
from engine.cluster.exchange import Exchange
from engine.cluster.shares import RankShare
from engine.experiment import TrainConfig
from engine.recording import Recording, settings
from models.kernels.runtime.launch import set_own_threads
from models.networks.mlp import Mlp
from models.objective import Objective, Report
from utils.errors import out_of_memory
from utils.precision import fast_products
from utils.random_stream import random_stream

SMALLEST_MICRO_BATCH = 16  # rays; where these do not fit into memory, nothing does


class Gradients:
    """Batch -> Report, and the gradient of its loss in the parameters' `grad`.

    Gradients are accumulated over micro-batches where memory asks for it. On a CPU each thread then renders a
    micro-batch with a graph of its own, which shares the products of wide networks best; gradients are added up in
    order, and the random numbers of a micro-batch are a function of the seed and its index, so that the order of
    threads changes nothing. A single micro-batch is shared kernel by kernel (`models.kernels.runtime.thread_pool`). A
    step that does not fit into memory is repeated in micro-batches of half the size, and so are those after it. On
    a GPU steps without host synchronization are recorded and replayed: a report is then valid until the next step.
    """

    def __init__(
        self,
        objective: Objective,
        train: TrainConfig,
        share: RankShare,
        *,
        device: torch.device,
        exchange: Exchange | None = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        """share: the rays of a batch. exchange: makes the gradient that of all ranks, with which rays are shared.

        warn: called with a line when micro-batches become smaller, and with why steps are not recorded.
        """
        self.warn, self.train, self.area = warn, train, train.patch_area
        self.objective, self.exchange, self.device = objective, exchange, device
        self.mixed = train.precision == "mixed"
        threads = torch.get_num_threads()
        # Beside networks that are one kernel, torch's operations are too short to be shared among threads.
        networks = [module for module in objective.modules() if isinstance(module, Mlp)]
        short = device.type == "cpu" and not any(network.by_products for network in networks)
        self.torch_threads = 1 if short else threads  # of an operation of torch's in a step
        self.all_threads, self.threads = threads, 1
        self.pool: ThreadPoolExecutor | None = None
        self.fitting: int | None = None  # the largest micro-batch, in rays, since one did not fit into memory
        self.rays = share.own
        self.resize(share)
        self.generators: list[torch.Generator] = []  # of the micro-batches
        self.recording: Recording[RayBatch | PlannedBatch, Report] | None = None
        if train.cuda_graph and device.type == "cuda":
            modules = list(objective.modules())
            # Between evaluation and backward pass ranks exchange counts, which is not recorded.
            parts = [self._of] if exchange is None else [self._evaluated, self._with_gradient]
            self.recording = Recording(
                *parts,
                between=objective.share_counts,
                key=lambda: (self.rays, settings(modules)),
                parameters=objective.parameters(),
                warn=warn,
            )

    def resize(self, share: RankShare) -> float:
        """Take batches of so many rays from here on; how many times the rays of before a micro-batch has then.

        Micro-batches are as large as those of the rank that has most rays.
        """
        threads = self._at_once(share.own)
        if threads != self.threads:
            self.close()
            self.threads = threads
            self.pool = self._pool() if threads > 1 else None
        before, self.rays = self.rays, micro_batch_size(self.train, threads, rays=share.largest)
        self.exchanges = -(-share.largest // self.rays)
        self.rays = min(self.rays, self.fitting or self.rays)
        return self.rays / before

    def most_at_once(self, rays: int) -> int:
        """Rays of a batch of so many whose graphs are in memory at a time."""
        threads = self._at_once(rays)
        return min(micro_batch_size(self.train, threads, rays=rays) * threads, rays)

    def _pool(self) -> ThreadPoolExecutor:
        own = (self.all_threads // self.threads,)
        return ThreadPoolExecutor(self.threads, "micro_batch", initializer=set_own_threads, initargs=own)

    def _at_once(self, rays: int) -> int:
        """How many micro-batches of a batch are rendered at once."""
        # Mixed precision switches the products of the whole process to and fro; losses ask other ranks in their order.
        if self.device.type != "cpu" or self.exchange is not None or self.mixed:
            return 1
        return min(self.all_threads, -(-rays // (self.train.micro_batch or rays)))

    def __call__(self, batch: RayBatch | PlannedBatch) -> Report:
        """The pixels of a planned batch are gathered as a part of the step.

        Raises the error of memory when smaller micro-batches do not help, or ranks would part over it.
        """
        while True:
            self._seed(-(-len(batch) // self.rays))
            try:
                with threads_of_torch(max(self.torch_threads // self.threads, 1)):
                    recording = self._recording_of(batch)
                    report = self._of(batch) if recording is None else recording(batch, self.generators)
                break
            except (MemoryError, RuntimeError) as error:
                shared = self.exchange is not None
                if not out_of_memory(error) or shared or self.rays <= max(self.area, SMALLEST_MICRO_BATCH):
                    raise
            gc.collect()  # threads' errors hold on to what they were about
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            before, self.rays = self.rays, max(self.rays // 2 // self.area, 1) * self.area
            self.fitting = self.rays
            self.warn(f"{before} rays do not fit into memory: going on with train.micro_batch={self.rays}")
        if self.exchange is not None:
            self.exchange()
        return report

    def _recording_of(self, batch: RayBatch | PlannedBatch) -> Recording[RayBatch | PlannedBatch, Report] | None:
        """Several ranks record steps of one micro-batch only: counts are exchanged after each."""
        return self.recording if self.exchange is None or len(batch) <= self.rays else None

    def _seed(self, micro_batches: int) -> None:
        """Seed the micro-batches' streams of random numbers, as functions of torch's seed."""
        self.generators = self.generators[:micro_batches]
        while len(self.generators) < micro_batches:
            self.generators.append(torch.Generator(self.device))
        for i, generator in enumerate(self.generators):
            generator.manual_seed((torch.initial_seed() + i * 1_000_000_007) % 2**63)

    def _of(self, given: RayBatch | PlannedBatch) -> Report:
        batch = given if isinstance(given, RayBatch) else given.gathered()
        micro_batches = batch.split(self.rays)
        self.objective.zero_grad()
        run = self._in_turn if self.pool is None else self._together
        return Report.merged(run(micro_batches), [micro_batch.share for micro_batch in micro_batches])

    def _in_turn(self, micro_batches: list[RayBatch]) -> list[Report]:
        reports = []
        for micro_batch, generator in zip(micro_batches, self.generators, strict=True):
            with random_stream(generator):
                report: Report = self.objective(micro_batch)
            self.objective.share_counts()
            reports.append(self._with_gradient(report, micro_batch.share))
        for _ in range(self.exchanges - len(micro_batches)):  # a rank that has more rays has one more
            self.objective.share_counts(of_nothing=True)
        return reports

    def _evaluated(self, given: RayBatch | PlannedBatch) -> Report:
        """A whole batch, with its graph."""
        self.objective.zero_grad()
        with random_stream(self.generators[0]):
            report: Report = self.objective(given if isinstance(given, RayBatch) else given.gathered())
        return report

    def _with_gradient(self, report: Report, share: float = 1.0) -> Report:
        with fast_products(self.device.type) if self.mixed else nullcontext():
            (share * report.loss).backward()
        return replace(report, loss=report.loss.detach())

    def _together(self, micro_batches: list[RayBatch]) -> list[Report]:
        assert self.pool is not None
        parameters, reports = list(self.objective.parameters()), []
        jobs = deque(
            self.pool.submit(self._of_micro_batch, micro_batch, generator, parameters)
            for micro_batch, generator in zip(micro_batches, self.generators, strict=True)
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
            wait(jobs)  # what they have in memory is gone then
        return reports

    def _of_micro_batch(
        self, micro_batch: RayBatch, generator: torch.Generator, parameters: Sequence[Tensor]
    ) -> tuple[Report, tuple[Tensor | None, ...]]:
        with random_stream(generator):
            report = self.objective(micro_batch)
        gradients = torch.autograd.grad(micro_batch.share * report.loss, parameters, allow_unused=True)
        return replace(report, loss=report.loss.detach()), gradients

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Within, torch shares an operation among so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def micro_batch_size(train: TrainConfig, threads: int, *, rays: int) -> int:
    """Rays of a micro-batch of `rays`: `train.micro_batch` at most, enough for all threads, whole patches."""
    area = train.patch_area
    share = -(-rays // (threads * area)) * area
    return min(train.micro_batch or rays, share)
