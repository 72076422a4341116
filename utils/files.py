"""Files that are whole or not there: written beside their place, then moved into it.

One rule for every output: folders that are missing on the way are made when it is written, and what stands in the way
is said before the work.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils import fail_points
from utils.errors import InputError, StorageError


def check_folder(path: Path, key: str = "") -> None:
    """Raise InputError where files cannot be written into the folder `path`, made with those above it if missing.

    key: of the config, for the message.
    """
    said = f"{key}: {path}" if key else str(path)
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        what = "is no folder" if there == path else f"cannot be made: {there} is no folder"
        raise InputError(f"{said}: {what} - expected another place to write to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{said}: no permission to write in {there} - expected another place to write to")


def check_file(path: Path) -> None:
    """Raise InputError where the file `path` cannot be written, in folders that are made if missing."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder - expected the name of a file")
    check_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path` (made if missing), moved there when the block succeeds.

    The temporary name keeps the suffix, because writers choose the format by it. After an exception in the
    block the temporary file is gone and an older file at `path` is as it was. Raises StorageError where the
    disk refuses.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        fail_points.reach("file.write")
        _flush(temporary)
        fail_points.reach("file.rename")
        os.replace(temporary, path)
    except (StorageError, BrokenPipeError):  # the latter is about standard output
        raise
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{path}: not written ({reason}) - free space or choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises StorageError where the disk refuses."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text_if_changed(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all; not where it is there already. Raises StorageError."""
    data = text.encode()
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    write_bytes(path, data)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as JSON, whole or not at all. Raises ValueError for NaN and infinity, which JSON lacks."""
    write_bytes(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def link_or_copy(source: Path, target: Path) -> None:
    """The same file at `target`, which is not there yet: a hard link where the disk has those, else a copy."""
    with suppress(OSError):
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)


def _flush(path: Path) -> None:
    """Wait until the file's content is on the disk, so that the move cannot overtake it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
