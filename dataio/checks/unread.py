"""What lies beside the pictures of a data set and is not read: masks in another folder, pictures without a pose."""

from __future__ import annotations

from pathlib import Path

from dataio.files import notice, shown
from dataio.pictures import images
from dataio.views import Views

MASK_FOLDERS = ("masks", "mask", "Masks", "Mask", "segmentation", "silhouettes")
FEW = 0.5  # share of the pictures in a folder that should have a pose


def say_masks(views: Views, mask_place: str) -> None:
    """A line for each folder of masks beside the pictures, where the data have no masks and the pictures no alpha.

    mask_place: where masks are looked for, in words.
    """
    first = next((path for path in views.images if path.is_file()), None)
    if views.masks is not None or (first is not None and images.has_alpha(first) and not images.is_opaque(first)):
        return
    tops = _folders(views) | ({views.folder} if views.folder else set())
    beside = tops | {folder.parent for folder in tops}
    for folder in sorted(place / name for place in beside for name in MASK_FOLDERS):
        if folder.is_dir() and any(map(images.is_picture, folder.rglob("*"))):
            notice(f"{shown(folder)} is not read: masks are looked for in {mask_place}")


def say_pictures(views: Views) -> None:
    """A line where pictures have no pose, a warning where those are most: what only they show will be missing."""
    tops = [views.folder] if views.folder else sorted(_folders(views))
    there = {path for top in tops for path in _pictures(top, deep=views.folder is not None)}
    sources = [*views.images, *(source for files in views.files.values() for source in files)]
    used = {path for path in sources if isinstance(path, Path)}
    stems = {path.stem for path in used}
    # r_0_depth.png beside r_0.png is another picture of the same.
    without = [path for path in there - used if not _is_of_another(path, stems)]
    if not without:
        return
    known = len(views.images)
    text = f"it has poses for {known} of the {known + len(without)} pictures in {shown(tops[0])}"
    if known < FEW * (known + len(without)):
        text = f"warning: {text}: what the others show is missing; find the poses anew, with more overlap"
    notice(f"{shown(views.source)} - {text}")


def _is_of_another(path: Path, stems: set[str]) -> bool:
    """Whether a name begins with one of the stems, up to one of its underscores."""
    parts = path.stem.split("_")
    return any("_".join(parts[:count]) in stems for count in range(1, len(parts)))


def _folders(views: Views) -> set[Path]:
    return {path.parent for path in views.images if isinstance(path, Path) and path.parent.is_dir()}


def _pictures(folder: Path, *, deep: bool) -> list[Path]:
    entries = folder.rglob("*") if deep else folder.iterdir()
    return [path for path in entries if images.is_picture(path) and path.is_file()]
