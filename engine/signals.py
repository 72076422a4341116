"""Signals that end a run in order."""

from __future__ import annotations

import os
import signal


class StopSignals:
    """SIGTERM, SIGINT and SIGUSR1 set a flag; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received, self.exit_code = False, 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.received:
            os._exit(self.exit_code)
        self.received = True
        self.exit_code = 130 if number == signal.SIGINT else 75
