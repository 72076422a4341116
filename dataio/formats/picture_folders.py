"""Where the pictures are that a file of poses names, and at which size: images/, images_2/, images_4/ ..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataio.files import Float64, inside, notice, shown, within
from dataio.pictures import images
from utils.errors import InputError

SMALLER = (2, 4, 8)


class PictureFolder(NamedTuple):
    """The folder that was chosen."""

    paths: list[Path]  # of the pictures that were asked for; some may not be there
    factor: int  # by how much it is smaller than the pictures that were calibrated, as its name says
    masks: Path | None  # the folder of masks beside it


class Limits(NamedTuple):
    """What a data set's files may lead to."""

    allow_outside: bool  # anything
    named: bool = False  # the user named the folder, so that it may lie anywhere; not so the pictures' names

    def check_folder(self, folder: Path, where: str) -> Path:
        """The folder. Raises InputError when it is a link that leads out of its own."""
        if not (self.allow_outside or self.named):
            inside(folder.parent, folder.name, where=where)
        return folder


class Fitted(NamedTuple):
    """Cameras that fit the pictures' own sizes."""

    intrinsics: Float64  # [C, 4]
    size: npt.NDArray[np.int64]  # [C, 2]


def choose(
    bases: Sequence[Path], names: Sequence[str], *, where: str, downscale: int, limits: Limits
) -> PictureFolder:
    """The folder that holds the named pictures.

    bases: folders for full-size pictures, the likeliest first; `images` stands for `images_N` too. A folder of
    the size that `downscale` asks for is taken where there is one, smaller ones where the full size is not
    there. Raises InputError when no folder has one of the pictures, and for names that lead out of them.
    """
    for base in bases:
        for folder, factor in _sizes(base, downscale):
            if folder.is_dir():
                limits.check_folder(folder, where)
                paths = [_find(folder, name, where, limits.allow_outside) for name in names]
                if any(path.is_file() for path in paths):
                    if factor not in (1, downscale):
                        notice(f"{where} - the pictures are those of {shown(folder.name)}, there are no larger ones")
                    return PictureFolder(paths, factor, _masks_beside(base, factor, limits, where))
    full = ", ".join(shown(base) for base in bases)
    raise InputError(
        f"{where} - none of its pictures was found, the first is {shown(names[0])} - looked in {full}; "
        "data.images=FOLDER names the folder"
    )


def listed(base: Path, *, where: str, downscale: int, limits: Limits) -> tuple[Path, int]:
    """The folder at `base`, or the one of a smaller size as `choose` takes it, and by how much it is smaller.

    Raises InputError when there is none with a picture.
    """
    for folder, factor in _sizes(base, downscale):
        if folder.is_dir():
            limits.check_folder(folder, where)
            if images.pictures_in(folder):
                return folder, factor
    raise InputError(f"{where} - no pictures in {shown(base)} - data.images=FOLDER names the folder")


def _sizes(base: Path, downscale: int) -> list[tuple[Path, int]]:
    if base.name != "images":
        return [(base, 1)]
    smaller = {factor: base.with_name(f"{base.name}_{factor}") for factor in SMALLER}
    order = [(base, 1), *((folder, factor) for factor, folder in smaller.items())]
    wanted = base.with_name(f"{base.name}_{downscale}")
    masks_fit = not base.with_name("masks").is_dir() or base.with_name(f"masks_{downscale}").is_dir()
    return [(wanted, downscale), *order] if downscale > 1 and masks_fit else order


def _masks_beside(base: Path, factor: int, limits: Limits, where: str) -> Path | None:
    folder = base.with_name("masks" if factor == 1 else f"masks_{factor}")
    return limits.check_folder(folder, where) if folder.is_dir() else None


def _find(folder: Path, name: str, where: str, allow_outside: bool) -> Path:
    """The picture, perhaps with another suffix: smaller copies are often written as PNG."""
    if PurePosixPath(name.replace("\\", "/")).name in ("", ".."):
        raise InputError(f"{where} - got the picture {shown(repr(name))} - expected the name of a file")
    path = inside(folder, name, where=where, allow_outside=allow_outside)
    if path.is_file():
        return path
    other = images.beside(path)
    return path if other is None else within(folder, other, allow_outside=allow_outside)


def fitted(
    intrinsics: Float64, size: npt.NDArray[np.int64], paths: Sequence[Path], *, where: str
) -> Fitted:
    """Cameras whose pictures were resized since: intrinsics and sizes follow where the shape is the same.

    intrinsics: [C, 4]. size: [C, 2] of the cameras. A picture of another shape keeps its camera, and is found
    faulty later. Says in one line that pictures have another size than their cameras.
    """
    found = size.copy()
    for view, path in enumerate(paths):
        if path.is_file():
            actual = np.array(images.image_size(path))
            ratio = actual / size[view]
            # A resized side is rounded up or down: one pixel of play.
            if np.abs(actual - size[view] * ratio.mean()).max() <= 1.5:
                found[view] = actual
    changed = (found != size).any(axis=-1)
    if changed.any():
        view = int(np.flatnonzero(changed)[0])
        sizes = " x ".join(map(str, found[view])), " x ".join(map(str, size[view]))
        notice(f"{where} - pictures of {sizes[0]} were calibrated at {sizes[1]}: their cameras follow")
    return Fitted(intrinsics * np.tile(found / size, 2), found)
