"""What frames become: a video, a clip, a still, or the pictures themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataio.pictures.images import read_image
from engine.rendering.work import Work
from utils.errors import InputError
from utils.files import replacing, write_bytes, write_json
from utils.pictures import clips
from utils.pictures.clips import write_clip
from utils.pictures.images import Picture
from utils.pictures.png_rows import write_png_rows
from utils.pictures.sheets import BAND, Panel, sheet_bands, sheet_size
from utils.pictures.spool import Spool
from utils.pictures.ticks import round_step
from utils.pictures.video import write_video

MOST_SIDE = {".mp4": 16384, **clips.MOST_SIDE}  # pixels, of what the formats hold
DEEPEST = 65535  # of a 16-bit picture; it stands for this far and farther
DEPTH_SUFFIXES = (".npy", ".png")


def check_outputs(outs: Sequence[Path], frames: int, sizes: set[tuple[int, int]]) -> None:
    """Raise InputError where frames of these sizes (width, height) do not make what a file's suffix says."""
    for out in outs:
        suffix = out.suffix.lower()
        if suffix == ".png" and frames != 1:
            raise InputError(f"--out: {out} - there are {frames} frames - expected a folder for them, or --frames 1")
        if suffix in MOST_SIDE and len(sizes) > 1:
            some = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
            raise InputError(f"--out: {out} - pictures of several sizes ({some}) - expected --size WxH, or a folder")
        largest = max(max(size) for size in sizes)
        if largest > MOST_SIDE.get(suffix, largest):
            most = MOST_SIDE[suffix]
            raise InputError(f"--out: {out} - frames of {largest} pixels - expected up to {most}, or a folder")


def write_sheet(path: Path, panels: Sequence[Panel], columns: int) -> None:
    """A frame as PNG, in the memory of some rows. Raises StorageError where the disk refuses."""
    height, width = panels[0].picture.shape[:2]
    write_png_rows(path, sheet_bands(panels, columns), *sheet_size(width, height, len(panels), columns))


def write_depth(work: Work, index: int, depth: Spool, scale: float) -> None:
    """z depth [H, W], as float32 .npy in its own units, and as 16-bit PNG in those of `scale`; 0 where nothing is."""
    height, width = depth.shape
    with replacing(work.file(index, ".npy")) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (height, width)}
        np.lib.format.write_array_header_1_0(file, header)
        for band in _bands(depth):
            file.write(band.astype("<f4").tobytes())
    levels = (np.rint(band / scale).clip(0, DEEPEST).astype(np.uint16) for band in _bands(depth))
    write_png_rows(work.file(index, ".png"), levels, width, height)


def depth_scale(farthest: float) -> float:
    """The size of a step of 16-bit depths that reach `farthest`: 1, 2 or 5 times a power of ten."""
    return round_step(max(farthest, 1e-30) / DEEPEST)


def say_depths(folder: Path, scale: float, units: str) -> None:
    """depth.json: what the numbers of depth files mean."""
    content = {
        "depth": "along the optical axis; of a panorama along the ray; 0: nothing",
        "npy": "float32, in `units`",
        "png": "16 bits, times `png_scale` in `units`; 65535: that far or farther",
        "png_scale": scale,
        "units": units,
    }
    write_json(folder / "depth.json", content)


def write_outputs(work: Work, outs: Sequence[Path], fps: float) -> None:
    """Make of the frames of a folder, all of them there, what was asked for. Raises StorageError and InputError."""
    count = len(work.names)
    for out in outs:
        suffix = out.suffix.lower()
        if suffix == ".mp4":
            write_video(out, _frames(work), fps=fps)
        elif suffix in clips.SUFFIXES:
            write_clip(out, _frames(work), count, fps=fps)
        elif suffix == ".png":
            write_bytes(out, work.file(0).read_bytes())


def _frames(work: Work) -> Iterator[Picture]:
    """The frames again; raises InputError for one that cannot be read."""
    for index in range(len(work.names)):
        yield read_image(work.file(index))[0]


def _bands(spool: Spool) -> Iterator[NDArray[Any]]:
    return (spool[top : top + BAND] for top in range(0, spool.shape[0], BAND))
