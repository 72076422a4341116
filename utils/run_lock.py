"""One process per run folder: a lock that the kernel takes back when its owner ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from utils.errors import InputError, StorageError

NAME = ".lock"


def alive(process: int) -> bool:
    """Whether there is a process of this number on this machine, of any user."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def owner_of(folder: Path) -> tuple[int, str] | None:
    """Number and machine of the process that works in a folder, without taking its lock; None where none says so."""
    try:
        words = (folder / NAME).read_text("utf-8", errors="replace").split()
    except OSError:
        return None
    if len(words) < 4 or words[0] != "process" or not words[1].isdigit():
        return None
    return int(words[1]), words[3]


class RunLock:
    """The right to work in a folder, from the making of this object to `release` or the end of the process."""

    def __init__(self, folder: Path, *, work: str = "training into", place: str = "output=FOLDER") -> None:
        """Take the lock. Raises InputError, with its owner, where another process has it, and StorageError.

        work, place: what is done there, and how another place is named, for the messages.
        """
        self._file: int | None = None  # a descriptor
        path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"{path}: not written ({error.strerror}) - choose another {place}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(file)
            raise InputError(
                f"{folder}: {owner} is {work} this folder - wait for it, stop it, or name another {place};"
                " the lock ends with that process, even if it is killed"
            ) from None
        except OSError:  # a file system without locks: as good as none
            os.close(file)
            return
        self._file = file
        self._write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._file is not None:
            self._write(b"")  # the file stays, since another process may be about to lock it
            os.close(self._file)
            self._file = None

    def _write(self, owner: bytes) -> None:
        assert self._file is not None
        with suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, owner, 0)

    def __del__(self) -> None:
        self.release()
