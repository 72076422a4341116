"""Several processes, one run: what torchrun started, as ranks that can wait, average and agree."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils.config.text import DEVICE
from utils.errors import InputError, first_line, leave_at_once
from utils.rank_environment import RankEnvironment, read_ranks
from utils.rendezvous import meet, open_store
from utils.siblings import kill_hung_siblings

MEETING_SECONDS = 40.0  # so that who waits in vain knows it within a minute of the start
COLLECTIVE_SECONDS = 300.0
# What gloo and NCCL say, as plain RuntimeErrors, when another rank has gone or does not answer.
RANK_IS_GONE = ("gloo/", "Connection closed by peer", "Connection reset by peer", "NCCL", "Timed out waiting")
LEAVE_SECONDS = 2.0  # for ranks that have found a loss too
PR_SET_PDEATHSIG = 1  # linux/prctl.h

ValueT = TypeVar("ValueT")
_in_collectives = 0.0  # seconds of this process
_meeting: tuple[dist.Store, str] | None = None  # of ranks that an agent starts anew: their store, the attempt's name


@dataclass(frozen=True)
class Ranks:
    """This process among `world` processes of one run; `local_rank` counts within its machine."""

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and speaks to the user."""
        return self.rank == 0

    def loss_line(self, error: BaseException) -> str:
        """What is said of an error that `rank_is_gone` knows, in one line."""
        reason = first_line(error)[:300]
        if not isinstance(error, RanksError):
            reason = f"another rank was lost or does not answer: {reason} - the newest checkpoint is kept"
        return f"rank {self.rank} of {self.world}: {reason}, and the same command goes on from it"


class RanksError(RuntimeError):
    """Another rank was lost, hangs, or has come to other numbers: the run goes on from its newest checkpoint."""


def setup(
    device: str = "auto", *, timeout: float = COLLECTIVE_SECONDS, meet_within: float = MEETING_SECONDS
) -> Ranks:
    """Join the process group that the launcher's environment describes; a single process without one.

    `device`: auto, cpu, cuda or cuda:N; among several processes cuda means the GPU of the local rank. timeout: seconds
    after which a rank that does not answer is taken for lost. meet_within: seconds for all ranks to come.
    Raises `InputError` for a device that is not there, an incomplete environment, or ranks that do not meet.
    """
    found = read_ranks(os.environ)
    if found is None or found.world == 1:
        return Ranks(0, 1, 0, choose_device(device))
    chosen = choose_device(device, found.local_rank, found.world)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if found.restarts:
        _end_with_parent()
    _join(found, timeout, meet_within, backend="nccl" if chosen.type == "cuda" else "gloo")
    return Ranks(found.rank, found.world, found.local_rank, chosen)


def choose_device(name: str, local_rank: int = 0, world: int = 1) -> torch.device:
    """The device that auto, cpu, cuda or cuda:N means: auto is a CUDA device where there is one.

    Among several processes cuda is the GPU of the local rank. Raises `InputError` for other names, and for a device
    that is not there.
    """
    if not DEVICE.fits(name):
        raise InputError(f"device: got {name[:60]!r} - expected {DEVICE.expected}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device(name)
    _, _, number = name.partition(":")
    if not torch.cuda.is_available():
        raise InputError(f"device: {name} - no CUDA device was found - expected cpu or auto, or check the driver")
    index = local_rank if world > 1 or not number else int(number)
    if index >= torch.cuda.device_count():
        raise InputError(f"device: cuda:{index} - this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device("cuda", index)


def cleanup() -> None:
    """Leave the process group, if there is one; the process is then to end without Python's own clearing up.

    Threads of gloo may live on: one that lets go of a tensor while Python clears up aborts the process, one run in
    fifty on a busy machine (github.com/pytorch/pytorch/pull/179291).
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        leave_at_once()


def seconds_in_collectives() -> float:
    """Wall seconds that this process has spent in what follows, waiting for other ranks included.

    Of the host's: with NCCL a collective goes on when the host has left it.
    """
    return _in_collectives


@contextmanager
def _clocked() -> Iterator[None]:
    global _in_collectives
    begun = time.perf_counter()
    try:
        yield
    finally:
        _in_collectives += time.perf_counter() - begun


@_clocked()
def barrier() -> None:
    """Wait until all ranks have come here."""
    if is_parallel():
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)


def mean_across_ranks(tensor: Tensor) -> Tensor:
    """The mean over all ranks of a float tensor [*N] of the same shape on each; [*N], without gradient."""
    if not is_parallel():
        return tensor.detach()
    return sum_across_ranks(tensor) / dist.get_world_size()


def mean_of_ranks(value: float) -> float:
    """The mean over all ranks of a plain number; a single process need not wait for a GPU to know it."""
    if not is_parallel():
        return value
    return float(mean_across_ranks(torch.tensor(value, dtype=torch.float64, device=_exchange_device())))


def sum_across_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks of a tensor [*N] of the same shape and type on each; a new tensor without gradient."""
    total = tensor.detach().clone()
    if is_parallel():
        with _clocked():
            dist.all_reduce(total)
    return total


def average(tensors: Sequence[Tensor]) -> None:
    """Replace float tensors [*N], contiguous and of the same shapes on each rank, by their means over all ranks."""
    if is_parallel():
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()
        torch._foreach_div_(list(tensors), dist.get_world_size())


def take_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors [*N] of the same shapes and types on each rank by those of rank 0."""
    if is_parallel():
        with _clocked():
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole.view(torch.uint8) if whole.dtype == torch.bool else whole, src=0)
                if whole is not tensor:
                    tensor.copy_(whole)


def max_across_ranks(tensor: Tensor) -> Tensor:
    """The maximum over all ranks of a tensor [*N] of the same shape and type on each; a new one without gradient."""
    largest = tensor.detach().clone()
    if is_parallel():
        with _clocked():
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def largest_of_ranks(value: float) -> float:
    """The largest of a plain number over all ranks."""
    return value if not is_parallel() else float(max_across_ranks(torch.tensor([value], device=_exchange_device())))


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on at least one rank; all ranks get the same answer."""
    return largest_of_ranks(float(flag)) > 0


def broadcast_from_main(value: ValueT) -> ValueT:
    """Rank 0's `value`, a plain Python value such as a path, on all ranks."""
    if not is_parallel():
        return value
    box = [value]
    with _clocked():
        dist.broadcast_object_list(box, src=0, device=_exchange_device())
    return box[0]


def is_parallel() -> bool:
    """Whether there are other ranks."""
    return dist.is_initialized() and dist.get_world_size() > 1


def _exchange_device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def rank_is_gone(error: BaseException) -> bool:
    """Whether an error says that another rank was lost or does not answer."""
    if isinstance(error, RanksError | dist.DistBackendError | dist.DistNetworkError):
        return True
    return is_parallel() and isinstance(error, RuntimeError) and any(said in str(error) for said in RANK_IS_GONE)


def abandon() -> None:
    """Let the process end at once, without a word to ranks that may not answer any more.

    Under torchrun those of this machine that hang are killed, so that all can be started anew.
    """
    leave_at_once()
    if _meeting is not None:
        store, attempt = _meeting
        store.set_timeout(timedelta(seconds=LEAVE_SECONDS))
        with suppress(RuntimeError):  # the store's own process may be what was lost
            store.set(f"{attempt}/leaves/{os.getpid()}", "")
            kill_hung_siblings(lambda process: store.check([f"{attempt}/leaves/{process}"]), LEAVE_SECONDS)


def _end_with_parent() -> None:
    """Get SIGTERM when torchrun's agent dies: its ranks would go on without anybody to stop them."""
    with suppress(OSError, AttributeError):  # of Linux alone
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _join(found: RankEnvironment, timeout: float, meet_within: float, *, backend: str) -> None:
    """Two time limits: ranks that never meet are found soon, a slow step between them is no fault."""
    global _meeting
    try:
        store = open_store(found, meet_within)
        attempt = meet(store, found.rank, found.world, meet_within)
        _meeting = (store, attempt) if found.restarts else None
        store.set_timeout(timedelta(seconds=timeout))
        dist.init_process_group(
            backend,
            store=dist.PrefixStore(attempt, store),
            rank=found.rank,
            world_size=found.world,
            timeout=timedelta(seconds=timeout),
        )
    except (RuntimeError, ValueError, InputError) as error:
        place = f"MASTER_ADDR:MASTER_PORT {found.address}:{found.port}"
        reason = first_line(error)[:300]
        leave_at_once()  # a thread may still be waiting for an answer
        raise InputError(
            f"rank {found.rank} of {found.world} ({found.launcher}) could not join the others at {place}: {reason}"
        ) from error
