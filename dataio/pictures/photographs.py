"""The raw photographs of a folder: which of its files they are, in what order, and which of them can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataio.checks.unrecognized import foreign
from dataio.checks.usable import drop_faulty
from dataio.files import MAX_BAD_SHARE, MAX_FRAMES, notice, shown
from dataio.pictures import images
from dataio.pictures.exif import Exif, read_exif
from utils.errors import InputError

LEAST_PHOTOS = 3
OTHERS = (".", "@", "__")  # what folders of other programs begin with, as @eaDir and __MACOSX
BESIDE = ("Thumbs.db", "desktop.ini")


class Source(NamedTuple):
    """The photographs, in the order of their names."""

    folder: Path
    names: list[str]  # relative to the folder
    exifs: list[Exif]

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    def decodable(self) -> Source:
        """Those of which all pixels can be read, as a photograph that was cut short cannot. Raises InputError."""
        sound = set(_sound(self.folder, self.names, images.read_image))
        kept = [row for row in zip(self.names, self.exifs, strict=True) if row[0] in sound]
        return Source(self.folder, [name for name, _ in kept], [exif for _, exif in kept])


def only_photographs(folder: Path) -> bool:
    """Whether three pictures or more are in a folder, and nothing else but what a system leaves there."""
    if not folder.is_dir():
        return False
    names = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name not in BESIDE]
    pictures = [entry for entry in names if images.is_picture(Path(entry.name)) and entry.is_file()]
    return len(pictures) == len(names) >= LEAST_PHOTOS


def read_source(folder: Path) -> Source:
    """The photographs of a folder, in the order of their names, and what they say of themselves.

    Those of the folders in it where it has fewer than three itself. Says what is left out: pictures in the folders in
    it, files of cameras that are not read, and up to a fifth of all that are no pictures. Raises InputError for fewer
    than three, and for names that are no text.
    """
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} - not a folder - expected a folder of photographs")
    files = _files(folder)
    names = _chosen(folder, [name for name in files if images.is_picture(Path(name))])
    other = foreign([Path(name) for name in files])
    if not LEAST_PHOTOS <= len(names) <= MAX_FRAMES:
        expected = f"expected {LEAST_PHOTOS} to {MAX_FRAMES}" + (f"; it has {other}" if other else "")
        raise InputError(f"{shown(folder)} - got {len(names)} photographs - {expected}")
    if other:
        notice(f"{shown(folder)} - it has {other}")
    strange = next((name for name in names if not _is_text(name)), None)
    if strange is not None:
        raise InputError(f"{shown(folder)} - got the name {shown(repr(strange))} - expected names in UTF-8")
    names = _sound(folder, names, images.image_size)
    return Source(folder, names, [read_exif(folder / name) for name in names])


def _files(folder: Path) -> list[str]:
    """The names of the files in a folder and its folders, relative to it, as text in order."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(OTHERS) for part in path.parts[:-1]))


def _chosen(folder: Path, names: list[str]) -> list[str]:
    """Those of the folder itself, or all where these are too few: what lies below them is often a choice or a copy."""
    own = [name for name in names if "/" not in name]
    if len(own) < LEAST_PHOTOS:
        return names
    below = [name for name in names if "/" in name]
    if below:
        first = folder / Path(below[0]).parts[0]
        notice(f"{shown(folder)} - {len(below)} pictures in folders of it are not read, the first in {shown(first)}")
    return own


def _sound(folder: Path, names: list[str], read: Callable[[Path], object]) -> list[str]:
    """The names of the pictures that `read` takes. Raises InputError where it refuses more than a fifth of them."""
    faults = [_fault(folder / name, read) for name in names]
    sound = drop_faulty(faults, names, where=shown(folder), limit=MAX_BAD_SHARE, what="photographs")
    return [names[i] for i in np.flatnonzero(sound)]


def _fault(path: Path, read: Callable[[Path], object]) -> str:
    try:
        read(path)
    except InputError as error:
        return str(error).removeprefix(f"{shown(path)} - ")
    return ""


def _is_text(name: str) -> bool:
    """Whether a name is text: the bytes of one that is not stand in it as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
