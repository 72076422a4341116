"""Where the files of quantities per pixel are: named by the data's own file, or in a folder beside the pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator

from dataio.files import inside, notice, shown
from dataio.pictures.images import Source
from dataio.quantities.base import Quantity, quantities
from dataio.views import OWN_FIELDS, Views
from utils.errors import InputError


def further_names() -> list[str]:
    """The quantities that `data.quantities` may name: masks and depths have their own rules."""
    return [name for name in quantities() if name not in OWN_FIELDS]


def _known(value: Literal["auto"] | tuple[str, ...]) -> Literal["auto"] | tuple[str, ...]:
    unknown = [] if value == "auto" else [name for name in value if name not in further_names()]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no quantity of this kind; choices: {', '.join(further_names())}")
    return value


Wanted = Annotated[Literal["auto"] | tuple[str, ...], AfterValidator(_known)]


def named_in_frames(
    frames: Sequence[Mapping[str, Any]], find: Callable[[str, str], Path], where: str
) -> dict[str, list[Path]]:
    """The files that the frames of a transforms.json name by the keys of the quantities, by quantity.

    frames: their keys. find: the path of a name, given the place to name in an error. Raises InputError where some
    frames name a file and others do not.
    """
    found: dict[str, list[Path]] = {}
    for name, quantity in quantities().items():
        for key in quantity.frame_keys:
            names = {view: frame[key] for view, frame in enumerate(frames) if frame.get(key) is not None}
            if names and name not in found:
                found[name] = [find(each, f"{where}: {key}") for each in _for_all(names, len(frames), key, where)]
    return found


def _for_all(names: Mapping[int, Any], count: int, key: str, where: str) -> list[str]:
    """The names of files by frame, as a list. Raises InputError where one is no text, or not all frames have one."""
    for view, name in names.items():
        if not isinstance(name, str):
            raise InputError(f"{where}: frames[{view}].{key} - got {shown(repr(name)[:60])} - expected a file's path")
    if len(names) < count:
        raise InputError(f"{where}: {key} - {len(names)} of {count} frames have it - expected all or none")
    return list(names.values())


def with_further(
    views: Views, wanted: Literal["auto"] | tuple[str, ...], *, root: str | None, allow_outside: bool
) -> Views:
    """The views with the files of the quantities that are wanted, and without those of others; masks and depths stay.

    Files that the format knows go before those of a folder beside the pictures. wanted: names; auto: what there is.
    root: of the data. Raises InputError where only some views have a file, or none has one that is wanted by name.
    """
    files = {name: sources for name, sources in views.files.items() if name not in further_names()}
    for name in further_names() if wanted == "auto" else wanted:
        quantity = quantities()[name]
        sources = views.files.get(name) or _beside(views, quantity, root, allow_outside)
        if sources is not None:
            files[name] = sources
        elif wanted != "auto":
            raise InputError(
                f"data.quantities: {name} - {shown(views.source)} has none - expected {quantity.folder or name}/"
                " beside the pictures with a file for each of them"
            )
    return views.with_files(files)


def _beside(views: Views, quantity: Quantity, root: str | None, allow_outside: bool) -> list[Source] | None:
    """A file for each view in the quantity's folder; None without one. Raises InputError where only some have one."""
    listed: dict[Path, dict[str, Path]] = {}
    tries = [_places(image, quantity, root) for image in views.images]
    for place in (place for places in tries for place in places if place.folder not in listed):
        listed[place.folder] = _files(place.folder, quantity.suffixes)
    there = sorted(shown(folder) for folder, files in listed.items() if files)
    if not there:
        return None
    found: dict[Path, Source] = {}
    for image, places in zip(views.images, tries, strict=True):
        path = next((_inside(place, listed, allow_outside) for place in places if place.is_in(listed)), None)
        if path is not None and path in found:
            raise InputError(f"{shown(path)} - got {shown(found[path])} and {shown(image)} - expected one picture")
        if path is not None:
            found[path] = image
    if not found:
        notice(f"{there[0]} - no file in it has the name of a picture: not read")
        return None
    if len(found) < len(tries):
        lacking = next(shown(image) for image in views.images if image not in found.values())
        some = f"has none for {lacking}, {len(found)} of {len(tries)} pictures have one"
        raise InputError(f"{there[0]} - {some} - expected all or none; data.quantities says what is read")
    return list(found)


class _Place(NamedTuple):
    """Where a picture's file of a quantity may be."""

    base: Path  # the folder that it may not lead out of
    folder: Path
    stem: str

    def is_in(self, listed: Mapping[Path, Mapping[str, Path]]) -> bool:
        """Whether there is a file, among those of each folder by their stems."""
        return self.stem in listed[self.folder]


def _inside(place: _Place, listed: Mapping[Path, Mapping[str, Path]], allow_outside: bool) -> Path:
    path = listed[place.folder][place.stem]
    return inside(place.base, str(path.relative_to(place.base)), where=shown(path), allow_outside=allow_outside)


def _places(image: Source, quantity: Quantity, root: str | None) -> list[_Place]:
    """For root/images/a/1.png: root/normals/images/a/1, root/images/normals/1, root/normals/a/1, and a suffix.

    The pictures of images_4 have theirs in normals_4, or in normals. Of a picture that is not below the root: in the
    folder beside its own.
    """
    if quantity.folder is None or not isinstance(image, Path):
        return []
    top = Path(root or ".").expanduser()
    top = top.parent if top.is_file() else top
    if not image.is_relative_to(top):
        top = image.parent.parent
    parts = image.relative_to(top).parts[:-1]
    places = [_Place(top, top.joinpath(quantity.folder, *parts), image.stem)]
    for at in reversed(range(len(parts))):
        base = top.joinpath(*parts[:at])
        smaller = re.fullmatch(r"images(_\d+)", parts[at])
        names = [quantity.folder + smaller[1], quantity.folder] if smaller else [quantity.folder]
        places += [_Place(base, base.joinpath(name, *parts[at + 1 :]), image.stem) for name in names]
    return places


def _files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder with one of the suffixes, by stem; of several the one whose suffix stands first."""
    if not folder.is_dir():
        return {}
    fit = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return {path.stem: path for path in sorted(fit, key=lambda path: -suffixes.index(path.suffix.lower()))}
