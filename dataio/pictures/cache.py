"""Decoded pixels in a file: made once, mapped into memory, made anew when the pictures change."""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataio.files import notice, shown
from utils import memory
from utils.errors import InputError, StorageError

UInt8 = npt.NDArray[np.uint8]
Put = Callable[[int, UInt8], None]

VERSION = 1  # of the files' layout
SUFFIX = ".pixels"
DAYS_KEPT = 30
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
AUTO_SHARE = 0.6


def bytes_of(text: str) -> int:
    """A size as `16G` or `1.5T` in bytes, units of 1024; auto: six tenths of the machine's, over all its ranks."""
    if text == "auto":
        return int(AUTO_SHARE * memory.of_machine() / int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return int(float(text[:-1]) * UNITS[text[-1]])


def folder_of(named: str | None) -> Path:
    """The folder that the config names, else one under the user's cache folder."""
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "surfaces-from-photographs"


def digest(content: Any) -> str:
    """Sixteen hexadecimal digits that stand for anything that JSON can hold."""
    return hashlib.blake2b(json.dumps([VERSION, content]).encode(), digest_size=8).hexdigest()


def mapped(folder: Path, *, kind: str, state: str, size: int, fill: Callable[[Put], None]) -> mmap.mmap:
    """The file of the pixels, mapped for reading; `fill` makes them when there is no file yet.

    kind: what the data and the options are. state: what the pictures are; files of the same kind in another
    state are removed. size: bytes. fill: called with a function that stores bytes at an offset, from any thread.
    Raises StorageError when the file cannot be written.
    """
    path = folder / f"{kind}-{state}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / f"{kind}.lock"):
            if path.is_file() and path.stat().st_size == size:
                os.utime(path)
            else:
                _remove_stale(folder, kind)
                notice(f"the pixels take {size / 2**30:.1f} GiB, more than data.ram allows: caching them in {path}")
                _write(path, size, fill)
        return _map(path)
    except (StorageError, InputError):
        raise
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{shown(path)}: the cache of {size / 2**30:.1f} GiB cannot be written ({reason})"
            " - free space, name another folder by data.cache, or raise data.ram or data.downscale"
        ) from error


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time, so that several ranks on a machine make one file."""
    with lock.open("w") as file:
        with suppress(OSError):  # some network disks have no locks; then each makes the file, and the last stays
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_stale(folder: Path, kind: str) -> None:
    """Files of pictures that have changed, what was left half-written, and what nobody has used for long."""
    oldest = time.time() - DAYS_KEPT * 86400
    for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob(f".{kind}-*{SUFFIX}.tmp")]:
        with suppress(OSError):
            if kind in path.name or path.stat().st_mtime < oldest:
                path.unlink()


def _write(path: Path, size: int, fill: Callable[[Put], None]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk shows now and not after the work

            def put(offset: int, part: UInt8) -> None:
                view = part.data
                while view:
                    written = os.pwrite(file.fileno(), view, offset)
                    view, offset = view[written:], offset + written

            fill(put)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pages.madvise(mmap.MADV_RANDOM)  # single pixels are read: what follows them on the disk is not wanted
    return pages
