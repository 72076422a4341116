"""Faults on purpose (`debug.faults`): the same for tests and for users who want to see their cluster survive them."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from utils import fail_points
from utils.files import write_text_if_changed

DONE = "faults.txt"  # in the run folder: those that have happened, which a resumed run does not repeat
_FAULT = re.compile(r"(?P<kind>\w+)@(?P<step>\d{1,15})(?::rank=(?P<rank>\d{1,6}))?")


@dataclass(frozen=True)
class Fault:
    """One fault, at the end of a step, or in the first checkpoint from that step on. rank: where; None: on all."""

    kind: str
    step: int
    rank: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}@{self.step}" + ("" if self.rank is None else f":rank={self.rank}")


def _send(number: signal.Signals) -> Callable[[nn.Module], None]:
    return lambda module: os.kill(os.getpid(), number)


def _kill_at(point: str) -> Callable[[nn.Module], None]:
    """The end, when the run next passes a point in its file operations."""
    return lambda module: fail_points.arm(point, fail_points.killed)


def _spoil_gradient(module: nn.Module) -> None:
    parameter = next(parameter for parameter in module.parameters() if parameter.grad is not None)
    assert parameter.grad is not None
    parameter.grad.view(-1)[0] = torch.nan


def _flip_bit(module: nn.Module) -> None:
    """The lowest bit of one number, on this rank alone: nothing else would show it."""
    parameter = next(parameter for parameter in module.parameters() if parameter.numel())
    parameter.data.view(-1).view(torch.int32)[0] ^= 1


def _refuse_writing(module: nn.Module) -> None:
    """A full disk, for the next checkpoint."""
    fail_points.arm("checkpoint.write", fail_points.raising(OSError(errno.ENOSPC, "No space left on device")))


KILLS = {f"kill_{name.replace('.', '_')}": _kill_at(name) for name in fail_points.NAMES}
AFTER_BACKWARD: dict[str, Callable[[nn.Module], None]] = {"nan_gradient": _spoil_gradient}
AFTER_STEP: dict[str, Callable[[nn.Module], None]] = {
    "kill": _send(signal.SIGKILL),
    "hang": _send(signal.SIGSTOP),
    "term": _send(signal.SIGTERM),
    "usr1": _send(signal.SIGUSR1),
    "flip": _flip_bit,
    **{name: action for name, action in KILLS.items() if "checkpoint" not in name},
}
# While a checkpoint is begun none is under way: so a fault meets that one, not the one before.
BEFORE_CHECKPOINT: dict[str, Callable[[nn.Module], None]] = {
    "disk_full": _refuse_writing,
    **{name: action for name, action in KILLS.items() if "checkpoint" in name},
}
KINDS = AFTER_BACKWARD | AFTER_STEP | BEFORE_CHECKPOINT


def read_faults(text: str) -> list[Fault]:
    """The faults of `debug.faults`, separated by commas. Raises ValueError for what is none."""
    found = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        match = _FAULT.fullmatch(item)
        if not match or match["kind"] not in KINDS:
            kinds = ", ".join(sorted(KINDS))
            raise ValueError(f"should be KIND@STEP or KIND@STEP:rank=R (got {item[:40]!r}), KIND one of {kinds}")
        found.append(Fault(match["kind"], int(match["step"]), None if match["rank"] is None else int(match["rank"])))
    return found


class Faults:
    """The faults that a run is still to suffer on one rank."""

    def __init__(self, text: str, folder: Path, rank: int) -> None:
        """folder: of the run, which knows what has happened already."""
        self.file = folder / (DONE if rank == 0 else f"{DONE.removesuffix('.txt')}_{rank}.txt")
        done: list[str] = []
        with suppress(OSError):
            done = self.file.read_text("utf-8").splitlines()
        self.left = [fault for fault in read_faults(text) if fault.rank in (None, rank) and str(fault) not in done]
        self.done = done

    def after_backward(self, module: nn.Module, step: int) -> None:
        """Spoil gradients; step: the number of the step that is being taken."""
        self._happen(AFTER_BACKWARD, module, range(step, step + 1))

    def after_step(self, module: nn.Module, step: int) -> None:
        """Signals and the like; step: how many were taken."""
        self._happen(AFTER_STEP, module, range(step, step + 1))

    def before_checkpoint(self, module: nn.Module, step: int) -> None:
        """Let the checkpoint that is about to be written meet what is due; step: how many were taken."""
        self._happen(BEFORE_CHECKPOINT, module, range(step + 1))

    def _happen(self, kinds: dict[str, Callable[[nn.Module], None]], module: nn.Module, steps: range) -> None:
        for fault in [fault for fault in self.left if fault.kind in kinds and fault.step in steps]:
            self.left.remove(fault)
            self.done.append(str(fault))
            write_text_if_changed(self.file, "\n".join(self.done) + "\n")  # before it: it may be the end
            kinds[fault.kind](module)
