"""What a folder that no format recognizes looks most like, and what it lacks for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from dataio.files import shown

# What each layout consists of; a tuple of names where one of them is enough.
LAYOUTS: dict[str, tuple[str | tuple[str, ...], ...]] = {
    "scannet": ("color", "depth", "pose", "intrinsic"),
    "dtu": ("image", ("cameras_sphere.npz", "cameras.npz")),
    "colmap": ("images", "sparse"),
    "nerfpp": ("train/rgb", "train/pose", "train/intrinsics"),
    "blendedmvs": ("cams", "blended_images"),
    "llff": ("poses_bounds.npy", "images"),
    "opendronemap": ("images", ("opensfm/reconstruction.json", "odm_report/shots.geojson")),
    "transforms": (("transforms.json", "transforms_train.json"),),
    "metashape": ("cameras.xml",),
}
HEIC, VIDEO = (".heic", ".heif", ".hif"), (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".insv")
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
MOST_LOOKED_AT = 5000  # files and folders


def nearest_miss(path: Path) -> str:
    """One clause about a folder or file that no format recognizes: what it seems to be, and what to do."""
    entries = [path] if path.is_file() else list(_below(path))
    if not entries:
        return "it is empty"
    if (other := foreign(entries)) is not None:
        return other
    return _most_alike(path) if path.is_dir() else "expected a folder, or one of the files that a format names"


def foreign(files: Sequence[Path]) -> str | None:
    """One clause about photographs and videos among files that are read nowhere here, and what to do; None without."""
    suffixes = [file.suffix.lower() for file in files]
    heic, raw = (sum(suffix in kind for suffix in suffixes) for kind in (HEIC, RAW))
    if heic:
        return (
            f"{heic} HEIC photographs, which are not read: convert them to JPEG with their EXIF, for example by"
            " `heif-convert` or `sips -s format jpeg`"
        )
    if raw:
        return (
            f"{raw} raw files of a camera, which are not read: develop them to JPEG with their EXIF, all in the same"
            " way, for example by `darktable-cli`"
        )
    video = next((file for file, suffix in zip(files, suffixes, strict=True) if suffix in VIDEO), None)
    if video is None:
        return None
    return (
        f"a video, {shown(video.name)}: take frames out of it first, for example `ffmpeg -i VIDEO -vf fps=2 -q:v 2"
        " photos/%04d.jpg`, then `python prepare.py photos OUT`"
    )


def _most_alike(path: Path) -> str:
    lacking = {
        layout: [names for names in parts if not any((path / name).exists() for name in _all(names))]
        for layout, parts in LAYOUTS.items()
    }
    near = {layout: 0.5 * bool(_renamed(path, names)) for layout, names in lacking.items()}
    there = {layout: len(LAYOUTS[layout]) - len(names) + near[layout] for layout, names in lacking.items()}
    best = max(there, key=lambda layout: (there[layout], -len(lacking[layout])))
    if not there[best]:
        sought = [f"{name}: {', '.join(' or '.join(_all(names)) for names in LAYOUTS[name])}" for name in LAYOUTS]
        return f"nothing in it has the name of a part of one; looked for {'; '.join(sought)}"
    missing = " and ".join(" or ".join(_all(names)) for names in lacking[best])
    hint = "".join(f"; there is {shown(found)}" for found in _renamed(path, lacking[best]))
    return f"most like {best}, of which {missing or 'a usable file'} is missing{hint}"


def _all(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _renamed(path: Path, lacking: list[str | tuple[str, ...]]) -> list[str]:
    """Entries whose names are nearly those that are missing."""
    own = [entry.name for entry in islice(sorted(path.iterdir()), MOST_LOOKED_AT)]
    near = (get_close_matches(name, own, n=1, cutoff=0.75) for names in lacking for name in _all(names))
    return sorted({found[0] for found in near if found})


def _below(path: Path) -> Iterator[Path]:
    """Files in the folder and in its folders."""
    for entry in islice(sorted(path.iterdir()), MOST_LOOKED_AT):
        if entry.is_file():
            yield entry
        elif entry.is_dir():
            yield from (inner for inner in islice(sorted(entry.iterdir()), MOST_LOOKED_AT) if inner.is_file())
