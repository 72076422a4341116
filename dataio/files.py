"""Reading files that others wrote: paths stay inside the folder, sizes are bounded, errors are one line."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tokenize
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from utils.config.mistakes import did_you_mean
from utils.errors import InputError, printable

MAX_TEXT_BYTES = 64 * 2**20
MAX_SMALL_TEXT_BYTES = 2**16
MAX_FRAMES = 100_000
MAX_BAD_SHARE = 0.2
MAX_MISSING_SHARE = 0.5
NPY_HEADER_ROOM = 4096
# What numpy raises for a damaged .npy file; the last two come from its reading of the header.
BROKEN_ARRAY = (OSError, ValueError, EOFError, OverflowError, TypeError, SyntaxError, tokenize.TokenError)

Float64 = npt.NDArray[np.float64]
Model = TypeVar("Model", bound=BaseModel)


def notice(text: str) -> None:
    """Print one line about the data for the user, on standard error."""
    print(shown(text), file=sys.stderr, flush=True)


def shown(text: object) -> str:
    """The text of anything with its unprintable characters escaped: file names may hold terminal codes."""
    return printable(str(text))


def inside(root: Path, name: str, *, where: str, allow_outside: bool = False) -> Path:
    """The path of a file that a data set names, refused when it leads out of the data set's folder.

    root: the folder. name: relative path as written in the data, or an absolute one of a place where the folder was
    before. where: "file: key", for the message.
    Raises InputError for empty, other absolute, URL-like and home paths, NUL, `..` and links that lead outside.
    """
    if not _nameable(name) or "://" in name:
        raise InputError(f"{where} - got {shown(repr(name[:80]))} - expected the relative path of a file")
    name = _since_moved(root, name)
    path = root / name
    if "\\" in name and not path.exists():
        path = root / name.replace("\\", "/")
    if allow_outside:
        return path
    try:
        leads_outside = re.match("~[^/]*/", name) or not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:
        raise InputError(f"{where} - got {shown(repr(name))} - {error}") from error
    if leads_outside:
        raise InputError(
            f"{where} - got {shown(repr(name))}, which leads out of {shown(root)} - expected a path inside; "
            "data.allow_outside=true permits it"
        )
    return path


def is_absolute(name: str) -> bool:
    """Whether data name a file by its place on some machine, this one or another, Windows included."""
    return re.match(r"([A-Za-z]:)?[\\/]", name) is not None


def _since_moved(root: Path, name: str) -> str:
    """The name of a file in `root` whose folder was elsewhere when the name was written; other names as they are.

    That is the longest end of an absolute path that leads nowhere now, which begins with a folder of `root`, or which
    is a file in it.
    """
    if not is_absolute(name) or os.path.exists(name):
        return name
    parts = re.split(r"[\\/]+", name)
    ends = ["/".join(parts[first:]) for first in range(1, len(parts))]
    folders = (end for end in ends if "/" in end and (root / end).parent.is_dir())
    return next(folders, parts[-1] if parts[-1] and (root / parts[-1]).is_file() else name)


def within(root: Path, path: Path, *, allow_outside: bool) -> Path:
    """A path of a file that was found in the folder `root`, refused when it is a link that leads out of it.

    Raises InputError.
    """
    if allow_outside:
        return path
    return inside(root, path.relative_to(root).as_posix(), where=shown(root))


def _nameable(name: str) -> bool:
    """Whether a file system can have a file of this name at all."""
    try:
        parts = os.fsencode(name).split(b"/")
    except UnicodeEncodeError:
        return False
    return 0 < len(name) <= 4096 and "\0" not in name and all(len(part) <= 255 for part in parts)


def need_folder(path: str | None, named: str = "data.path") -> Path:
    """The data folder (or file) that a key or an option, `named`, names. Raises InputError when there is none."""
    if not path:
        raise InputError(f"{named} - got nothing - expected the folder of the data, as {named}=FOLDER")
    folder = Path(path).expanduser()
    if not folder.exists():
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        near = did_you_mean(folder.name, sorted(beside)[:MAX_FRAMES])
        raise InputError(f"{named}: {shown(folder)} - no such file or folder{shown(near)}")
    return folder


def files_ending(folder: Path, ending: str) -> list[Path]:
    """The files of a folder whose names end so, in upper case or not, in the order of their names.

    ending: in lower case. A name that begins with a dot is another program's note about a file, as AppleDouble's.
    """
    names = [path for path in folder.iterdir() if path.name.lower().endswith(ending) and path.name[0] != "."]
    return sorted(path for path in names if path.is_file())


def say_twice(taken: Mapping[str, str], where: str) -> None:
    """A line where the lists of several splits name the same. taken: what they name, and the split it is in now."""
    if taken:
        name, split = next(iter(taken.items()))
        notice(f"{where} - {len(taken)} named in more than one split, the first is {shown(name)}: taken for {split}")


def read_json(path: Path) -> Any:
    """A JSON file as Python values, its size and depth bounded, duplicate keys refused. Raises InputError."""
    text = read_text(path)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise InputError(f"{shown(path)}: {shown(key)} - the key is there twice - keep one of them")
            result[key] = value
        return result

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise InputError(f"{shown(path)}:{error.lineno}:{error.colno}: broken JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{shown(path)} - nested too deeply for a camera file") from error
    except ValueError as error:
        raise InputError(f"{shown(path)} - broken JSON: {error}") from error


def _whole(text: str) -> int | float:
    """The number of JSON's digits; beyond 64 bits a float, which no key that wants a whole number takes."""
    value = float(text)
    return int(text) if abs(value) < 2**63 else value


def read_text(path: Path) -> str:
    """A text file of bounded size. Raises InputError."""
    try:
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise InputError(f"{shown(path)} - got {size} bytes - expected at most {MAX_TEXT_BYTES}")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{shown(path)} - cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(path)} - not UTF-8 text at byte {error.start}") from error


def parse_json(path: Path, model: type[Model]) -> Model:
    """A JSON file checked against a pydantic model. Raises InputError that names the file and the key."""
    content = read_json(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        key = "".join(parts).lstrip(".")
        got = shown(repr(first["input"]))
        got = got if len(got) <= 60 else got[:57] + "..."
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(f"{shown(path)}: {key or 'top'} - {first['msg']} - got {got}{more}") from error


def read_matrices(path: Path, shapes: Mapping[str, tuple[tuple[int, ...], ...]]) -> dict[str, Float64]:
    """The small float arrays of an .npz file whose names begin with one of the given prefixes.

    shapes: prefix -> shapes that are allowed. Headers are checked before any array is read, so that a file
    cannot claim much memory, and nothing is unpickled. Returns name -> float64 array [*N], *N one of the allowed
    shapes. Raises InputError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > 8 * MAX_FRAMES:
                raise InputError(f"{shown(path)} - got {len(archive.infolist())} arrays - too many")
            return dict(_read_members(archive, path, shapes))
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"{shown(path)} - cannot be read as .npz: {shown(error)}") from error


def _read_members(
    archive: zipfile.ZipFile, path: Path, shapes: Mapping[str, tuple[tuple[int, ...], ...]]
) -> Iterator[tuple[str, Float64]]:
    seen = set()
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        allowed = shapes.get(name.rstrip("0123456789"))
        if allowed is None:
            continue
        where = f"{shown(path)}: {shown(name)}"
        if name in seen:
            raise InputError(f"{where} - the key is there twice - keep one of them")
        seen.add(name)
        most = NPY_HEADER_ROOM + 8 * max(int(np.prod(shape)) for shape in allowed)
        if member.file_size > most:
            raise InputError(f"{where} - got {member.file_size} bytes - expected an array of {allowed[0]}")
        with archive.open(member) as stream:
            yield name, _float_array(stream.read(most), allowed, where)


def _float_array(content: bytes, allowed: tuple[tuple[int, ...], ...], where: str) -> Float64:
    """The array in the bytes of an .npy file; its header is checked before numpy allocates what it claims."""
    stream = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("expected version 1.0 of the .npy format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.kind != "f" or shape not in allowed:
            raise InputError(f"{where} - got {dtype} {shape} - expected float {allowed[0]}")
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise InputError(f"{where} - not an array of numbers: {shown(error)}") from error
    return np.asarray(array, dtype=np.float64)


def read_array(path: Path, shape: tuple[int | None, ...]) -> Float64:
    """An .npy file of floats [*N] of the given shape, None meaning any size. Raises InputError; never unpickles."""
    try:
        # Mapped, so that a header that claims more than the file holds is refused before memory is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise InputError(f"{shown(path)} - cannot be read as .npy: {shown(error)}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{shown(path)} - got several arrays - expected one of floats {shape}")
    fits = array.ndim == len(shape) and 0 < array.shape[0] <= MAX_FRAMES and array.dtype.kind == "f"
    if not fits or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise InputError(f"{shown(path)} - got {array.dtype} {array.shape} - expected floats {shape}")
    return np.array(array, dtype=np.float64)


def read_words(path: Path) -> list[str]:
    """The words of a short text file. Raises InputError."""
    try:
        if path.stat().st_size > MAX_SMALL_TEXT_BYTES:
            raise InputError(f"{shown(path)} - got {path.stat().st_size} bytes - expected a few numbers")
    except OSError as error:
        raise InputError(f"{shown(path)} - cannot be read: {error.strerror}") from error
    return read_text(path).split()


def read_numbers(path: Path, count: int) -> Float64:
    """[N] float64, the numbers of a short text file, N = `count`. Raises InputError."""
    words = read_words(path)
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(f"{shown(path)} - not a file of numbers: {shown(str(error)[:80])}") from error
    if len(numbers) != count:
        raise InputError(f"{shown(path)} - got {len(numbers)} numbers - expected {count}")
    return numbers
