"""Several processes, one run: what torchrun started, as ranks that can wait, average and agree."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils.config.text import DEVICE
from utils.errors import InputError, leave_at_once

RENDEZVOUS_SECONDS = 60
COLLECTIVE_SECONDS = 300

ValueT = TypeVar("ValueT")


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


def setup(device: str = "auto") -> Ranks:
    """Join the process group that torchrun's environment describes; a single process without one.

    `device`: auto, cpu, cuda or cuda:N; among several processes cuda means the GPU of the local rank.
    Raises `InputError` for a device that is not there, an incomplete environment, or ranks that do not meet.
    """
    rank, world, local_rank = _read_ranks()
    chosen = choose_device(device, local_rank, world)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world > 1:
        _join(rank, world, backend="nccl" if chosen.type == "cuda" else "gloo")
    return Ranks(rank, world, local_rank, chosen)


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

    DistributedDataParallel keeps the threads of gloo alive. One that lets go of a tensor while Python clears up aborts
    the process, one run in fifty on a busy machine (github.com/pytorch/pytorch/pull/179291).
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        leave_at_once()


def barrier() -> None:
    """Wait until all ranks have come here."""
    if is_parallel():
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)


def mean_across_ranks(tensor: Tensor) -> Tensor:
    """The mean over all ranks of a float tensor [*N] of the same shape on each; [*N], without gradient."""
    if not is_parallel():
        return tensor.detach()
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def mean_of_ranks(value: float) -> float:
    """The mean over all ranks of a plain number; a single process need not wait for a GPU to know it."""
    if not is_parallel():
        return value
    return float(mean_across_ranks(torch.tensor(value, dtype=torch.float64, device=_exchange_device())))


def sum_across_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks of a tensor [*N] of the same shape and type on each; a new tensor without gradient."""
    total = tensor.detach().clone()
    if is_parallel():
        dist.all_reduce(total)
    return total


def max_across_ranks(tensor: Tensor) -> Tensor:
    """The maximum over all ranks of a tensor [*N] of the same shape and type on each; a new one without gradient."""
    largest = tensor.detach().clone()
    if is_parallel():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on at least one rank; all ranks get the same answer."""
    if not is_parallel():
        return flag
    raised = torch.tensor([int(flag)], device=_exchange_device())
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return bool(raised.item())


def broadcast_from_main(value: ValueT) -> ValueT:
    """Rank 0's `value`, a plain Python value such as a path, on all ranks."""
    if not is_parallel():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=_exchange_device())
    return box[0]


def is_parallel() -> bool:
    """Whether there are other ranks."""
    return dist.is_initialized() and dist.get_world_size() > 1


def _exchange_device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _read_ranks() -> tuple[int, int, int]:
    if "RANK" not in os.environ:
        return 0, 1, 0
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    texts = [os.environ.get(name, "") for name in names]
    wrong = [f"{name}={text}" for name, text in zip(names, texts, strict=True) if not text.isdigit()]
    if wrong:
        raise InputError(f"environment: {', '.join(wrong)} - expected whole numbers, as torchrun sets them")
    rank, world, local_rank = (int(text) for text in texts)
    if rank >= world:
        raise InputError(f"environment: RANK={rank} - expected less than WORLD_SIZE={world}")
    return rank, world, local_rank


def _join(rank: int, world: int, *, backend: str) -> None:
    address = f"{os.environ.get('MASTER_ADDR', '(none)')}:{os.environ.get('MASTER_PORT', '(none)')}"
    try:
        # Two time limits: ranks that never meet are found soon, a slow step between them is no fault.
        meeting = dist.rendezvous("env://", rank, world, timeout=timedelta(seconds=RENDEZVOUS_SECONDS))
        store, rank, world = next(iter(meeting))
        store.set_timeout(timedelta(seconds=COLLECTIVE_SECONDS))
        timeout = timedelta(seconds=COLLECTIVE_SECONDS)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"rank {rank} of {world} could not join the others at MASTER_ADDR:MASTER_PORT {address}: {reason}"
        ) from error
