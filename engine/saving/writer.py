"""Checkpoints written beside the training: the state is copied at once, and a thread of its own writes it."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

from torch import Tensor

from utils.checkpoint import Keep, serialized, write_checkpoint


class CheckpointWriter:
    """Writes checkpoints into one folder, one at a time, by the procedure of `utils.checkpoint`.

    While one is under way, nobody else in this process may look for the newest one there: what is half written is
    taken for what a dead process left.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def begin(self, step: int, state: dict[str, Any], *, info: dict[str, Any], keep: Keep) -> None:
        """Copy `state`, as `save_checkpoint` takes it, to the host's memory, and let the thread write the copy.

        Where memory is too short for a thread it is written at once. Waits for the end of the one before first, and
        raises its error.
        """
        self.wait()
        copy = [host_copy(state)]  # which the thread takes out
        thread = Thread(target=self._write, args=(step, copy, info, keep), name="checkpoint")
        try:
            thread.start()
        except RuntimeError:  # can't start new thread
            self._write(step, copy, info, keep)
        else:
            self._thread = thread

    def wait(self, seconds: float | None = None) -> bool:
        """Whether what was begun has come to its end, after waiting so long for it; without limit by default.

        Raises its error, once: `StorageError` when the disk did not take it, and whatever else the thread met.
        """
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error
        return True

    def _write(self, step: int, copy: list[dict[str, Any]], info: dict[str, Any], keep: Keep) -> None:
        try:
            data = serialized(copy.pop())  # the copy's memory is free from here on
            write_checkpoint(self.folder, step, data, info=info, keep=keep)
        except BaseException as error:  # raised again where it is waited for
            self._error = error


def host_copy(value: Any) -> Any:
    """Nested dicts, lists and tuples with copies of their tensors [*N] on the CPU, each with memory of its own."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: host_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(host_copy(item) for item in value)
    return value
