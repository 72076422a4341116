"""All pixels of a data set, decoded once: into one array in memory or, beyond a limit, a file on disk.

The bytes are those of each kind of number, the widest first, as depths, then all colors, then all masks and the like;
each kind is one flat array, picture after picture. So nothing is there twice, and a file has the same bytes as the
array.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dataio.files import notice, shown
from dataio.pictures import cache, images
from dataio.pictures.images import Source, UInt8
from dataio.pictures.packed import Packed
from dataio.pictures.pictures import Pictures
from dataio.quantities.base import Array, Photograph, Quantity, quantities
from dataio.views import Views
from utils import memory
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
    quantities: dict[str, Pictures]  # [H, W] or [H, W, K] by name, as read: lengths in world units


COLOR = "color"


@dataclass(frozen=True)
class _Plane:
    """Where the bytes of all pictures of one kind are."""

    name: str  # `COLOR`, or a quantity's
    dtype: np.dtype[Any]
    channels: int

    @property
    def width(self) -> int:
        """Bytes per pixel."""
        return self.dtype.itemsize * self.channels


@dataclass(frozen=True)
class _Layout:
    """Where each picture's bytes are."""

    shapes: npt.NDArray[np.int64]  # [V, 2] height, width
    start: npt.NDArray[np.int64]  # [V+1] pixels before each picture
    planes: tuple[_Plane, ...]  # one after another
    quantities: tuple[Quantity, ...]  # that the scene will have

    def offsets(self) -> dict[str, int]:
        """The first byte of each plane, by name."""
        before = np.cumsum([0, *(plane.width for plane in self.planes)]) * int(self.start[-1])
        return {plane.name: int(offset) for plane, offset in zip(self.planes, before[:-1], strict=True)}

    @property
    def size(self) -> int:
        """Bytes in all."""
        return int(self.start[-1]) * sum(plane.width for plane in self.planes)


def read_pixels(options: DecodeOptions, views: Views) -> Pixels:
    """Decode all pictures in parallel; what is cached on disk is taken from there. Raises InputError.

    Raises MemoryError when less is free than the pixels take, and the pictures that are decoded at a time.
    Raises StorageError when the pixels need more memory than `options.ram` and the cache cannot be written.
    """
    layout = _plan(options, views, present_quantities(options, views))
    _check_memory(options, views, layout)
    file = None
    if layout.size <= options.ram:
        buffer = np.empty(layout.size, dtype=np.uint8)

        def put(offset: int, part: UInt8) -> None:
            buffer[offset : offset + len(part)] = part

        _fill(options, views, layout, put)
    else:
        kind, state = _digests(options, views, layout)
        file = cache.mapped(
            options.cache,
            kind=kind,
            state=state,
            size=layout.size,
            fill=lambda put: _fill(options, views, layout, put),
        )
        buffer = np.frombuffer(file, dtype=np.uint8)
    return _by_name(views, layout, buffer, file)


def bytes_in_memory(options: DecodeOptions, views: Views, present: Sequence[Quantity]) -> int:
    """What all pictures will take, by their headers; 0 where they are read from a file. present: as `check_files` says.
    """
    layout = _plan(options, views, present)
    return layout.size if layout.size <= options.ram else 0


def _by_name(views: Views, layout: _Layout, buffer: UInt8, file: mmap.mmap | None) -> Pixels:
    """The bytes [N] of all pictures as pictures. file: what they are a view of, when that is a file."""
    factors = {quantity.name: quantity.factor(views) for quantity in layout.quantities}
    found: dict[str, Pictures] = {}
    for plane, first in zip(layout.planes, layout.offsets().values(), strict=True):
        flat = buffer[first : first + int(layout.start[-1]) * plane.width].view(plane.dtype)
        flat = flat if plane.channels == 1 else flat.reshape(-1, plane.channels)
        found[plane.name] = Pictures(flat, layout.shapes, factor=factors.get(plane.name), file=file)
    return Pixels(color=found.pop(COLOR), quantities=found)


def _digests(options: DecodeOptions, views: Views, layout: _Layout) -> tuple[str, str]:
    """What the data and the options are, and what the pictures are, for the name of the file."""
    kind: list[Any] = [str(views.source.resolve()), options.masks, options.background, options.downscale]
    known = {plane.name: plane for plane in layout.planes}
    depth = known["depth"].dtype if "depth" in known else None
    state = [_states(views), _registration(views), layout.shapes.tolist(), str(depth), "mask" in known]
    # Appended, so that files without other quantities keep the names that they have had before there were any.
    further = [(p.name, str(p.dtype), p.channels) for p in layout.planes if p.name in views.further]
    if further:
        kind, state = [*kind, [name for name, _, _ in further]], [*state, further]
    return cache.digest(kind), cache.digest(state)


def _plan(options: DecodeOptions, views: Views, present: Sequence[Quantity]) -> _Layout:
    """Everything that can be known from the headers."""
    shapes = np.array([_scaled(size, options.downscale)[::-1] for size in views.size], dtype=np.int64)
    start = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
    planes = [_Plane(quantity.name, quantity.stored_as(views), quantity.channels) for quantity in present]
    # The widest first, so that no number lies across its alignment.
    planes = sorted([_Plane(COLOR, np.dtype(np.uint8), 3), *planes], key=lambda plane: -plane.dtype.itemsize)
    return _Layout(shapes, start, tuple(planes), tuple(present))


def present_quantities(options: DecodeOptions, views: Views) -> list[Quantity]:
    """The quantities that the scene will have. Raises InputError when only some views have masks."""
    names = views.files.keys() - {"mask"} | ({"mask"} if have_masks(options, views) else set())
    return [quantity for name, quantity in quantities().items() if name in names]


def _scaled(size: npt.NDArray[np.int64], downscale: int) -> tuple[int, int]:
    width, height = (max(1, round(int(n) / downscale)) for n in size)
    return width, height


def have_masks(options: DecodeOptions, views: Views) -> bool:
    """Whether the scene will have masks, from files or alpha. Raises InputError when only some views have."""
    if options.masks == "off":
        return False
    if views.masks is not None:
        return not (options.masks == "auto" and _all_white(views.masks, views))
    lacking = [shown(path) for path in views.images if not images.has_alpha(path)]
    if options.masks in ("composite", "keep") and len(lacking) == len(views.images):
        raise InputError(f"data.masks: {options.masks} - {shown(views.source)} has neither masks nor alpha")
    if len(lacking) == len(views.images):
        return False
    if options.masks == "auto" and all(map(images.is_opaque, views.images)):
        notice(f"{shown(views.source)} - the pictures' alpha is opaque everywhere: taken as no mask")
        return False
    if lacking:
        raise InputError(f"{lacking[0]} - has no mask or alpha, others have - expected all or none")
    return True


def _all_white(masks: Sequence[Source], views: Views) -> bool:
    """Whether every mask that is there is white everywhere, which says as little as none; a line where it is so."""
    there = [path for path in masks if path.is_file()]
    if not there or not all(images.read_mask(path).min() == 255 for path in there):
        return False
    notice(f"{shown(views.source)} - the masks are white everywhere: taken as no masks; data.masks=keep keeps them")
    return True


def check_files(options: DecodeOptions, views: Views) -> list[Quantity]:
    """Whether the files of masks, depths and the like are there and fit their pictures, by their headers.

    Returns the quantities that the scene will have. Raises InputError for the first file that does not fit, as decoding
    would.
    """
    present = present_quantities(options, views)
    for quantity in present:
        for picture, path in zip(views.images, views.files.get(quantity.name, ()), strict=False):
            if isinstance(path, Packed) or isinstance(picture, Packed) or not picture.is_file():
                continue
            if not path.is_file():
                raise InputError(f"{shown(path)} - no such file - expected it for {shown(picture)}")
            quantity.check(path, picture, views)
    return present


def _states(views: Views) -> list[tuple[str, int, int]]:
    """Path, size and time of change of all files that pixels come from."""
    sources = [*views.images, *(source for files in views.files.values() for source in files)]
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

    offsets, planes = layout.offsets(), {plane.name: plane for plane in layout.planes}

    def work(view: int) -> None:
        for name, numbers in _read(options, views, view, layout.quantities):
            plane = planes[name]
            first = offsets[name] + plane.width * int(layout.start[view])
            put(first, _bytes(numbers.astype(plane.dtype, copy=False)))

    pool = ThreadPoolExecutor(_threads(views, layout))
    try:
        for _ in _progress(pool.map(work, range(len(views.names))), len(views.names)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _bytes(array: npt.NDArray[Any]) -> UInt8:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _check_memory(options: DecodeOptions, views: Views, layout: _Layout) -> None:
    """Raises MemoryError, before anything is decoded, when the pixels and the pictures in progress do not fit."""
    kept = layout.size if layout.size <= options.ram else 0
    needed, free = kept + _threads(views, layout) * _each(views, layout), memory.free()
    if needed > max(free, MEMORY_ALWAYS):
        width, height = views.size[views.size.prod(axis=1).argmax()]
        raise MemoryError(
            f"{shown(views.source)}: pictures of up to {width} x {height} pixels need {needed / 2**20:,.0f} MiB while"
            f" they are read, {kept / 2**20:,.0f} of it afterwards; {free / 2**20:,.0f} MiB are free"
        )


def _each(views: Views, layout: _Layout) -> int:
    """Bytes that a thread needs while it decodes."""
    further = sum(plane.width for plane in layout.planes if plane.name in views.further)
    return (BYTES_PER_PIXEL + 2 * further) * int(views.size.prod(axis=1).max())


def _threads(views: Views, layout: _Layout) -> int:
    """As many as there are cores, unless their pictures in progress would take too much memory."""
    room = max(MEMORY_ALWAYS, int(MEMORY_SHARE * layout.size))
    return max(1, min(MAX_THREADS, os.cpu_count() or 1, room // _each(views, layout)))


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
    options: DecodeOptions, views: Views, view: int, present: Sequence[Quantity]
) -> Iterator[tuple[str, Array]]:
    """Name and numbers [H, W] or [H, W, K] of each quantity of a view, and of its color, in the wanted size."""
    color, alpha = images.read_image(views.images[view])
    size = _scaled(views.size[view], options.downscale)
    photograph = Photograph(color, alpha)
    for quantity in present:
        numbers = quantity.of_view(views, view, photograph)
        if quantity.name == "mask" and options.masks != "keep":
            # Composite first: straight colors must not be averaged without their alpha.
            color = images.composited(color, numbers, options.background)
        yield quantity.name, quantity.resized(numbers, size)
    yield COLOR, images.resized(color, size)
