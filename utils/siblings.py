"""Other ranks that the same agent has started on this machine, and what is done with those that hang.

torchrun's agent starts ranks anew when the last of them has ended. One that hangs does not end when it is asked to, and
the agent waits for it for half a minute.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PROCESSES = Path("/proc")
POLL_SECONDS = 0.05


def kill_hung_siblings(leaving: Callable[[int], bool], seconds: float) -> list[int]:
    """Kill the siblings that are still there after `seconds` and are not leaving by themselves; returns their numbers.

    leaving: whether a process has said that it is about to end.
    """
    deadline = time.monotonic() + seconds
    while hung := [process for process in siblings() if not leaving(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    for process in hung:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
    return hung


def siblings() -> Iterator[int]:
    """Processes of the same parent and command line that have not ended; none where the system does not tell."""
    own, parent = os.getpid(), os.getppid()
    with suppress(OSError):
        command = _command(own)
        for text in (PROCESSES / f"{parent}/task/{parent}/children").read_text().split():
            if int(text) != own and _command(int(text)) == command:
                yield int(text)


def _command(process: int) -> bytes:
    """Of a process that has ended: nothing."""
    try:
        return (PROCESSES / f"{process}/cmdline").read_bytes()
    except OSError:
        return b""
