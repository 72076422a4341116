"""Checkpoints that survive kill -9, a full disk and flipped bits.

A checkpoint is a folder `step_00001000/` of `state.pt` (tensors and plain values) and `manifest.json` (sizes
and digests). It is written under a temporary name beside its place, synced, read back, and only then renamed:
a kill at any moment leaves the newest complete one loadable. The digests prove integrity, not origin.
"""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import re
import shutil
import socket
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from utils import fail_points
from utils.entries import described
from utils.errors import InputError, StorageError, first_line, printable
from utils.run_lock import alive

__all__ = [
    "Keep", "StorageError", "best_checkpoint", "load_checkpoint", "newest_checkpoint", "save_checkpoint",
    "serialized", "write_checkpoint",
]  # fmt: skip

FORMAT = 1
STATE, MANIFEST, LATEST, BEST = "state.pt", "manifest.json", "latest", "best"
MAX_MANIFEST_BYTES = 1 << 24
MOST_STEPS = 10**15
_PLAIN = (str, int, float, bool, type(None), torch.Tensor, torch.nn.Parameter)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the `last` newest ones, those of multiples of `every` steps (0: none), and the best.

    best: whether the one that is being saved is the best so far; it is then what `best` names.
    """

    last: int = 3
    every: int = 0
    best: bool = False


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], *, info: dict[str, Any], keep: Keep = Keep()
) -> Path:
    """Write `state` as `folder/step_<step>/` atomically, point `latest` to it, and prune.

    `state` holds tensors, numbers, text, None, and dicts and lists of them; `info` is JSON and goes into the
    manifest. Of the checkpoints up to `step` those stay that `keep` says; later ones belong to a course of the run
    that was abandoned, and go. Returns the checkpoint's folder. Raises `TypeError` for other values in `state`,
    and `StorageError` when the disk does not take it; the checkpoints before are then as they were.
    """
    return write_checkpoint(folder, step, serialized(state), info=info, keep=keep)


def serialized(state: dict[str, Any]) -> memoryview:
    """The content of `state.pt`, in memory. Raises `TypeError` for what a checkpoint does not hold."""
    _check_plain(state, "state")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def write_checkpoint(
    folder: Path, step: int, data: memoryview, *, info: dict[str, Any], keep: Keep = Keep()
) -> Path:
    """As `save_checkpoint`, of what `serialized` made."""
    target = folder / f"step_{step:08d}"
    temporary = _temporary(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        fail_points.reach("checkpoint.open")
        _write(temporary / STATE, data)
        _write(temporary / MANIFEST, _manifest(step, data, info))
        _sync_folder(temporary)
        _read_verified(temporary)
        _publish(temporary, target)
        if keep.best:
            _point(folder / BEST, target)
    except OSError as error:
        raise _storage_error(error, folder, len(data)) from error
    except InputError as error:
        raise StorageError(f"{error} - right after it was written; is the disk failing?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(folder, step, keep)
    return target


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state (tensors on the CPU) and the manifest of the checkpoint folder `path`.

    Raises `InputError` when it is missing, incomplete, damaged, of a newer format or not one of ours.
    """
    data, manifest = _read_verified(path)
    _refuse_compressed(data, path / STATE)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises what it likes
        reason = printable(first_line(error))
        raise InputError(f"{path / STATE}: not tensors and plain values: {reason[:200]}") from error
    if not isinstance(state, dict):
        raise InputError(f"{path / STATE}: expected a mapping, got {type(state).__name__}")
    return state, manifest


def _refuse_compressed(data: bytes, file: Path) -> None:
    """A state is stored as it is; a compressed one could claim any amount of memory."""
    with suppress(zipfile.BadZipFile, NotImplementedError), zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise InputError(f"{file}: compressed, which no checkpoint is")


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` whose digests hold, or None when there are no checkpoints.

    Damaged ones are passed over, with a warning on stderr; what dead processes left half written is removed.
    Raises `InputError` when there are checkpoints and all are damaged: to start over is the user's decision.
    """
    _sweep(folder)
    checkpoints = _checkpoints(folder)
    for _, path in reversed(checkpoints):
        try:
            _read_verified(path)
        except InputError as error:
            print(f"warning: {printable(str(error))} - trying the checkpoint before", file=sys.stderr)
        else:
            return path
    if checkpoints:
        raise InputError(f"{folder}: no checkpoint can be read - move the folder away to start over")
    return None


def _check_plain(value: object, name: str) -> None:
    """Refuse what the restricted unpickler would refuse later, when it is too late."""
    if type(value) in (dict, OrderedDict):
        assert isinstance(value, dict)
        for key, item in value.items():
            _check_plain(key, f"{name}: key {key!r}")
            _check_plain(item, f"{name}.{key}")
    elif type(value) in (list, tuple):
        assert isinstance(value, (list, tuple))
        for index, item in enumerate(value):
            _check_plain(item, f"{name}.{index}")
    elif type(value) not in _PLAIN:
        raise TypeError(f"{name}: a checkpoint holds tensors and plain values, not {type(value).__name__}")


def _manifest(step: int, data: bytes | memoryview, info: dict[str, Any]) -> bytes:
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    files = {STATE: {"bytes": len(data), "blake2b": _digest(data)}}
    return _sealed({"format": FORMAT, "step": step, "files": files, "versions": versions, "info": info})


def _sealed(manifest: dict[str, Any]) -> bytes:
    """The manifest as text, with a digest of itself as its last entry."""
    digest = _digest(json.dumps(manifest).encode())
    return (json.dumps({**manifest, "blake2b": digest}, indent=2) + "\n").encode()


def _digest(data: bytes | memoryview) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def _read_verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Content of `state.pt` and the manifest, after checking them; raises `InputError`."""
    manifest = _read_manifest(path)
    try:
        size, digest = manifest["files"][STATE]["bytes"], manifest["files"][STATE]["blake2b"]
        actual = (path / STATE).stat().st_size
        if actual != size:
            raise InputError(f"{path / STATE}: damaged: {actual} bytes, expected {size}")
        data = (path / STATE).read_bytes()
    except OSError as error:
        raise InputError(f"{path / STATE}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError):
        raise InputError(f"{path / MANIFEST}: not the manifest of a checkpoint") from None
    if _digest(data) != digest:
        raise InputError(f"{path / STATE}: damaged: its content is not what was written")
    return data, manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError(f"{file}: too large for a manifest")
        text = file.read_bytes()
        manifest = json.loads(text)
        version, step = manifest["format"], manifest["step"]
    except OSError as error:
        raise InputError(f"{path}: not a complete checkpoint: {MANIFEST}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{file}: damaged, or not the manifest of a checkpoint") from None
    if type(version) is int and version > FORMAT:
        raise InputError(f"{file}: format {version}, this program reads up to {FORMAT} - use a newer program")
    if version != FORMAT:
        raise InputError(f"{file}: format - got {described(version)} - expected {FORMAT}")
    if type(step) is not int or not 0 <= step <= MOST_STEPS:
        raise InputError(f"{file}: step - got {described(step)} - expected a whole number from 0")
    entries = {key: value for key, value in manifest.items() if key != "blake2b"}
    if _sealed(entries) != text:
        raise InputError(f"{file}: damaged: its content is not what was written")
    return entries


def _write(path: Path, data: bytes | memoryview) -> None:
    view, half = memoryview(data), len(data) // 2
    with path.open("wb") as file:
        file.write(view[:half])
        fail_points.reach("checkpoint.write")
        file.write(view[half:])
        file.flush()
        fail_points.reach("checkpoint.sync")
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, target: Path) -> None:
    """Give the finished folder its name, then let `latest` say it; each is on the disk before the next."""
    folder = target.parent
    if target.exists():  # a rewound run comes to the same step again
        _discard(target)
    fail_points.reach("checkpoint.rename")
    os.rename(temporary, target)
    _sync_folder(folder)
    fail_points.reach("checkpoint.renamed")
    _point(folder / LATEST, target)


def _point(file: Path, target: Path) -> None:
    """Let a text file name the checkpoint `target`."""
    pointer = _temporary(file)
    try:
        _write(pointer, f"{target.name}\n".encode())
        fail_points.reach("checkpoint.latest")
        os.replace(pointer, file)
    finally:
        pointer.unlink(missing_ok=True)
    _sync_folder(file.parent)


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in `folder` that `best` names and whose digests hold, or None where there is none."""
    path = _best(folder)
    if path is not None:
        with suppress(InputError):
            _read_verified(path)
            return path
    return None


def _best(folder: Path) -> Path | None:
    with suppress(OSError, ValueError):
        name = (folder / BEST).read_text("utf-8").strip()
        return next((path for _, path in _checkpoints(folder) if path.name == name), None)
    return None


def _prune(folder: Path, step: int, keep: Keep) -> None:
    checkpoints, best = _checkpoints(folder), _best(folder)
    before = [(number, path) for number, path in checkpoints if number <= step]
    kept = [path for _, path in before[-max(keep.last, 1) :]]
    kept += [path for number, path in before if path == best or (keep.every and number % keep.every == 0)]
    for _, path in checkpoints:
        if path not in kept:
            fail_points.reach("checkpoint.prune")
            try:
                _discard(path)
            except OSError as error:
                print(f"warning: {path}: cannot be removed: {error.strerror}", file=sys.stderr)


def _discard(path: Path) -> None:
    """Remove a checkpoint in such a way that a kill halfway leaves none that looks whole."""
    trash = _temporary(path.with_name(f"{path.name}-old"))
    os.rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of each checkpoint, in ascending order."""
    found = ((re.fullmatch(r"step_(\d{8,})", path.name), path) for path in folder.glob("step_*"))
    return sorted((int(match[1]), path) for match, path in found if match)


def _temporary(path: Path) -> Path:
    """A hidden name beside `path` that says who may still be writing to it."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _sweep(folder: Path) -> None:
    """Remove temporary files and folders of processes of this machine that are gone."""
    host = re.escape(socket.gethostname())
    for path in folder.glob(".*.tmp"):
        match = re.fullmatch(rf"\..+\.{host}\.(\d+)\.tmp", path.name)
        # Our own number on it: from a process before us, as after the restart of a container.
        if match and (int(match[1]) == os.getpid() or not alive(int(match[1]))):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _storage_error(error: OSError, folder: Path, size: int) -> StorageError:
    if error.errno in _FULL:
        return StorageError(f"disk full at {folder}, {max(1, -(-size // 10**6))} MB needed")
    return StorageError(f"{folder}: checkpoint not written: {error.strerror or error}")
