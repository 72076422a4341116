"""What a viewer asks of a training, by files in the run folder: a pause, a checkpoint.

The training looks once a second whether they are there, which costs it nothing, and owes the viewer nothing: a pause
ends when its file is no longer touched, as when the viewer has gone. A training of several ranks does not look.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.early import has_checkpoint
from utils.run_lock import alive, owner_of

PAUSE, SAVE = ".viewer-pause", ".viewer-save"
EVERY = 1.0  # seconds between two looks
STALE = 10.0  # seconds without a touch after which a pause ends
WAIT = 0.2  # seconds between two looks for a first checkpoint
FRESH = 120.0  # seconds; a training on another machine has logged within them


class Remote:
    """The training's side."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.clock = folder, clock
        self.looked = clock()
        self.touched: float | None = None  # the file's own time
        self.seen = 0.0  # when this process saw it change

    def due(self) -> bool:
        """Whether it is time to look again."""
        if self.clock() - self.looked < EVERY:
            return False
        self.looked = self.clock()
        return True

    def attend(self, save: Callable[[], None], say: Callable[[str], None], stopped: Callable[[], bool]) -> float:
        """Save and wait as asked, no longer than until `stopped`; returns the seconds that were waited."""
        if self.take_save():
            save()
        if not self.paused():
            return 0.0
        begun = self.clock()
        say("paused by a viewer")
        while self.paused() and not stopped():
            time.sleep(0.1)
        say(f"going on after {self.clock() - begun:.0f} s")
        return self.clock() - begun

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for; asked once, it is taken once."""
        try:
            (self.folder / SAVE).unlink()
        except OSError:
            return False
        return True

    def paused(self) -> bool:
        """Whether the training is to wait."""
        try:
            touched = (self.folder / PAUSE).stat().st_mtime
        except OSError:
            self.touched = None
            return False
        if touched != self.touched:  # by this clock: the times of files are those of another machine, perhaps
            self.touched, self.seen = touched, self.clock()
        if self.clock() - self.seen < STALE:
            return True
        with suppress(OSError):
            (self.folder / PAUSE).unlink()
        return False


def ask_to_save(folder: Path) -> None:
    """The viewer's side: a checkpoint, please."""
    (folder / SAVE).touch()


def await_checkpoint(folder: Path, ended: threading.Event) -> None:
    """The viewer's side: of a training that has no checkpoint yet ask for one, and wait until it is there.

    Waits no longer than the training lasts, nor after `ended`.
    """
    if has_checkpoint(folder) or not is_training(folder):
        return
    ask_to_save(folder)
    while not has_checkpoint(folder) and is_training(folder) and not ended.wait(WAIT):
        pass


def ask_to_pause(folder: Path) -> None:
    """The viewer's side: wait; to be said again every few seconds."""
    (folder / PAUSE).touch()


def let_go_on(folder: Path) -> None:
    """The viewer's side: go on."""
    (folder / PAUSE).unlink(missing_ok=True)


def is_training(folder: Path) -> bool:
    """Whether a process trains into the folder, as far as one can see without taking its lock."""
    found = owner_of(folder)
    if found is None:
        return False
    process, host = found
    if host == socket.gethostname():
        return alive(process)
    with suppress(OSError):
        return time.time() - (folder / "metrics.jsonl").stat().st_mtime < FRESH
    return False
