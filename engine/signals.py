"""Signals that end a run in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from utils.files import write_text_if_changed

PREEMPTED_CODE = 75  # the same command goes on
SAME_SECONDS = 5.0
MARKER = "PREEMPTED"  # a file in the run folder, for batch scripts: torchrun's own exit code says nothing


class StopSignals:
    """SIGTERM, SIGINT and SIGUSR1 set a flag; a second one ends the process at once.

    Of SIGTERM and SIGUSR1 those that come soon after the first are that one again: a scheduler signals all processes of
    a job, torchrun's agent hands the same signal on, and the system tells a rank of its agent's end several times.
    """

    def __init__(self) -> None:
        self.received, self.exit_code, self.first = False, 0, 0.0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.received:
            if number == signal.SIGINT or time.monotonic() > self.first + SAME_SECONDS:
                os._exit(self.exit_code)
            return
        self.received, self.first = True, time.monotonic()
        self.exit_code = 130 if number == signal.SIGINT else PREEMPTED_CODE


def mark_preempted(folder: Path, *, preempted: bool) -> None:
    """Say in the run folder whether its run was ended by a scheduler's signal, and is to be queued again."""
    if preempted:
        write_text_if_changed(folder / MARKER, "ended by a signal, with a checkpoint: the same command goes on\n")
    else:
        (folder / MARKER).unlink(missing_ok=True)
