"""All pixels of a data set, decoded once: into one array in memory or, beyond a limit, a file on disk.

The bytes are those of all depths, then all colors, then all masks; each kind is one flat array, picture after
picture. So nothing is there twice, and a file has the same bytes as the array.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dataio.files import notice, shown
from dataio.pictures import cache, images
from dataio.pictures.images import Depth, Source, UInt8
from dataio.pictures.packed import Packed
from dataio.pictures.pictures import Pictures
from dataio.pictures.registration import registered
from dataio.views import Views
from utils.errors import InputError

Put = Callable[[int, UInt8], None]  # stores bytes at an offset

# What a thread needs while it decodes, and how much more than the pixels themselves all threads may take.
BYTES_PER_PIXEL, MEMORY_SHARE, MEMORY_ALWAYS = 8, 0.15, 256 * 2**20
MAX_THREADS = 8
SECONDS_BETWEEN_LINES = 15.0


@dataclass(frozen=True)
class DecodeOptions:
    """How pictures are looked at, and how much memory they may take."""

    masks: str  # as DataConfig.masks
    background: tuple[float, float, float]
    downscale: int
    ram: int  # bytes
    cache: Path  # folder


@dataclass(frozen=True)
class Pixels:
    """All pictures of a scene, by kind."""

    color: Pictures  # [H, W, 3] uint8
    mask: Pictures | None  # [H, W] uint8, 255 = object
    depth: Pictures | None  # [H, W] float32, z depth in world units, 0 = unknown


@dataclass(frozen=True)
class _Layout:
    """Where each picture's bytes are."""

    shapes: npt.NDArray[np.int64]  # [V, 2] height, width
    start: npt.NDArray[np.int64]  # [V+1] pixels before each picture
    depth: np.dtype[Any] | None
    mask: bool

    @property
    def color_offset(self) -> int:
        return int(self.start[-1]) * (self.depth.itemsize if self.depth else 0)

    @property
    def mask_offset(self) -> int:
        return self.color_offset + 3 * int(self.start[-1])

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.mask_offset + (int(self.start[-1]) if self.mask else 0)


def read_pixels(options: DecodeOptions, views: Views) -> Pixels:
    """Decode all pictures in parallel; what is cached on disk is taken from there. Raises InputError.

    Raises StorageError when the pixels need more memory than `options.ram` and the cache cannot be written.
    """
    layout = _plan(options, views)
    file = None
    if layout.size <= options.ram:
        buffer = np.empty(layout.size, dtype=np.uint8)

        def put(offset: int, part: UInt8) -> None:
            buffer[offset : offset + len(part)] = part

        _fill(options, views, layout, put)
    else:
        state = [_states(views), _registration(views), layout.shapes.tolist(), str(layout.depth), layout.mask]
        file = cache.mapped(
            options.cache,
            kind=cache.digest([str(views.source.resolve()), options.masks, options.background, options.downscale]),
            state=cache.digest(state),
            size=layout.size,
            fill=lambda put: _fill(options, views, layout, put),
        )
        buffer = np.frombuffer(file, dtype=np.uint8)
    colors = buffer[layout.color_offset : layout.mask_offset].reshape(-1, 3)
    depth = None
    if layout.depth is not None:
        numbers = buffer[: layout.color_offset].view(layout.depth)
        depth = Pictures(numbers, layout.shapes, factor=views.depth_unit, file=file)
    return Pixels(
        color=Pictures(colors, layout.shapes, file=file),
        mask=Pictures(buffer[layout.mask_offset :], layout.shapes, file=file) if layout.mask else None,
        depth=depth,
    )


def _plan(options: DecodeOptions, views: Views) -> _Layout:
    """Everything that can be known from the headers."""
    shapes = np.array([_scaled(size, options.downscale)[::-1] for size in views.size], dtype=np.int64)
    depth = None
    if views.depths is not None:
        short = all(images.depth_is_short(path) for path in views.depths)
        depth = np.dtype(np.uint16 if short else np.float32)
    start = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
    return _Layout(shapes, start, depth, have_masks(options, views))


def _scaled(size: npt.NDArray[np.int64], downscale: int) -> tuple[int, int]:
    width, height = (max(1, round(int(n) / downscale)) for n in size)
    return width, height


def have_masks(options: DecodeOptions, views: Views) -> bool:
    """Whether the scene will have masks, from files or alpha. Raises InputError when only some views have."""
    if options.masks == "off":
        return False
    if views.masks is not None:
        return True
    lacking = [shown(path) for path in views.images if not images.has_alpha(path)]
    if options.masks in ("composite", "keep") and len(lacking) == len(views.images):
        raise InputError(f"data.masks: {options.masks} - {shown(views.source)} has neither masks nor alpha")
    if lacking and len(lacking) < len(views.images):
        raise InputError(f"{lacking[0]} - has no mask or alpha, others have - expected all or none")
    if not lacking and options.masks == "auto" and all(map(images.is_opaque, views.images)):
        notice(f"{shown(views.source)} - the pictures' alpha is opaque everywhere: taken as no mask")
        return False
    return not lacking


def check_files(options: DecodeOptions, views: Views) -> None:
    """Whether masks and depth maps are there and of their pictures' sizes, by their headers, before all is decoded.

    Raises InputError for the first that is not, as decoding would.
    """
    have_masks(options, views)
    masks = None if options.masks == "off" else views.masks
    for paths in (masks, views.depths):
        for view, path in enumerate(paths or ()):
            picture = views.images[view]
            if isinstance(path, Packed) or isinstance(picture, Packed) or not picture.is_file():
                continue
            if not path.is_file():
                raise InputError(f"{shown(path)} - no such file - expected it for {shown(picture)}")
            other_camera = paths is views.depths and views.depth_camera is not None
            if other_camera or not images.is_picture(path):  # of another size, or an array whose size shows when read
                continue
            _same_size(path, images.image_size(path)[::-1], images.image_size(picture)[::-1])


def _states(views: Views) -> list[tuple[str, int, int]]:
    """Path, size and time of change of all files that pixels come from."""
    sources = [*views.images, *(views.masks or []), *(views.depths or [])]
    # Of packed pictures the whole file stands once.
    paths = dict.fromkeys(source.file if isinstance(source, Packed) else source for source in sources)
    return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()]


def _registration(views: Views) -> list[Any]:
    """What the place of a depth in the color image follows from; nothing where one camera took both."""
    camera = views.depth_camera
    if camera is None:
        return []
    numbers = (camera.intrinsics, camera.color_from_depth, views.intrinsics)
    return [views.depth_unit, camera.size, *(array.tolist() for array in numbers)]


def _fill(options: DecodeOptions, views: Views, layout: _Layout, put: Put) -> None:
    """Decode every picture once and put its bytes where the layout says."""

    def work(view: int) -> None:
        color, mask, depth = _read(options, views, view, masks=layout.mask)
        first = int(layout.start[view])
        put(layout.color_offset + 3 * first, _bytes(color))
        if mask is not None:
            put(layout.mask_offset + first, _bytes(mask))
        if depth is not None and layout.depth is not None:
            put(layout.depth.itemsize * first, _bytes(depth.astype(layout.depth, copy=False)))

    pool = ThreadPoolExecutor(_threads(views, layout))
    try:
        for _ in _progress(pool.map(work, range(len(views.names))), len(views.names)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _bytes(array: npt.NDArray[Any]) -> UInt8:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _threads(views: Views, layout: _Layout) -> int:
    """As many as there are cores, unless their pictures in progress would take too much memory."""
    each = BYTES_PER_PIXEL * int(views.size.prod(axis=1).max())
    room = max(MEMORY_ALWAYS, int(MEMORY_SHARE * layout.size))
    return max(1, min(MAX_THREADS, os.cpu_count() or 1, room // each))


def _progress(done: Iterable[None], count: int) -> Iterator[None]:
    """A bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        yield from tqdm(done, desc="reading", total=count, unit="image", leave=False, delay=1.0)
        return
    said = time.monotonic()
    for number, each in enumerate(done, start=1):
        yield each
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            notice(f"read {number} of {count} images")


def _read(
    options: DecodeOptions, views: Views, view: int, *, masks: bool
) -> tuple[UInt8, UInt8 | None, Depth | None]:
    color, mask = images.read_image(views.images[view])
    if not masks:
        mask = None
    elif views.masks is not None:
        mask = images.read_mask(views.masks[view])
        _same_size(views.masks[view], mask.shape, color.shape)
    size = _scaled(views.size[view], options.downscale)
    if mask is not None:
        # Composite first: straight colors must not be averaged without their alpha.
        if options.masks != "keep":
            color = images.composited(color, mask, options.background)
        mask = images.resized(mask, size)
    depth = None
    if views.depths is not None:
        depth = images.subsampled(_read_depth(views, views.depths[view], view, color), size)
    return images.resized(color, size), mask, depth


def _read_depth(views: Views, path: Source, view: int, color: UInt8) -> Depth:
    """The stored depth of each color pixel, also where another camera took it."""
    depth = images.stored_depth(path)
    camera = views.depth_camera
    if camera is None:
        _same_size(path, depth.shape, color.shape)
        return depth
    if depth.shape != camera.size[::-1]:
        got, expected = f"{depth.shape[1]} x {depth.shape[0]}", f"{camera.size[0]} x {camera.size[1]}"
        raise InputError(f"{shown(path)} - got {got} pixels - expected {expected} as the other depths have")
    unit = np.float32(views.depth_unit)
    seen = registered(depth.astype(np.float32) * unit, camera, views.intrinsics[view], color.shape[1::-1]) / unit
    if depth.dtype == np.uint16:
        return np.where(seen < images.NO_DEPTH, np.rint(seen), 0).astype(np.uint16)
    return seen


def _same_size(path: Source, shape: tuple[int, ...], of_image: tuple[int, ...]) -> None:
    """Raises InputError where two shapes differ in height or width."""
    if shape[:2] != of_image[:2]:
        got, expected = (f"{width} x {height}" for height, width in (shape[:2], of_image[:2]))
        raise InputError(f"{shown(path)} - got {got} pixels - expected {expected} as its image has")
