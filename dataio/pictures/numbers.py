"""Files of numbers per pixel: pictures of 8 or 16 bits per channel, with one channel or three, and .npy arrays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from dataio.files import shown
from dataio.pictures import images
from dataio.pictures.images import Source
from utils.errors import InputError

Array = npt.NDArray[Any]

MODES = {1: ("L", "I;16", "I;16L", "I;16B", "I;16N"), 3: ("RGB", "RGBA", "P")}
WORDS = {1: "gray of 8 or 16 bits", 3: "three channels of 8 or 16 bits"}
SHAPES = {1: "floats [H,W]", 3: "floats [H,W,3] or [3,H,W]"}


def size_of(path: Source, channels: int) -> tuple[int, int]:
    """(width, height) from the header of a picture or an .npy array with one channel or three.

    Raises InputError for files of other numbers.
    """
    if is_array(path):
        height, width = _mapped(path, channels).shape[:2]
        return width, height
    with images.opened(path) as picture:
        _check_mode(picture, path, channels)
        return picture.size


def stored(path: Source, channels: int) -> Array:
    """The numbers [H, W] or [H, W, 3] that a file stores.

    uint8 or uint16 of a picture, whose alpha is left out; floats of an .npy array, not yet read. Raises InputError as
    `size_of` does, and for files that are damaged.
    """
    if is_array(path):
        return _mapped(path, channels)
    with images.opened(path) as picture:
        _check_mode(picture, path, channels)
        short = any(";16" in str(tile) for tile in getattr(picture, "tile", ()))
        if channels == 1:
            return images.decoded(picture, path).astype(np.uint16 if short else np.uint8, copy=False)
        return _short_color(path) if short else images.decoded(picture, path, mode="RGB")


def is_array(path: Source) -> bool:
    """Whether a file has the name of an array."""
    return isinstance(path, Path) and path.suffix.lower() == ".npy"


def _check_mode(picture: Image.Image, path: Source, channels: int) -> None:
    if picture.mode not in MODES[channels]:
        raise InputError(f"{shown(path)} - got {picture.mode} pixels - expected {WORDS[channels]}, or an .npy array")


def _mapped(path: Source, channels: int) -> Array:
    """[H, W] or [H, W, 3] floats, not yet read."""

    def fits(array: npt.NDArray[np.generic]) -> bool:
        flat = array.ndim == 2 if channels == 1 else array.ndim == 3 and 3 in (array.shape[0], array.shape[-1])
        return flat and array.dtype.kind == "f" and 0 < array.size <= channels * images.MAX_PIXELS

    assert isinstance(path, Path)
    array: Array = images.mapped_array(path, fits, SHAPES[channels])
    return array if channels == 1 or array.shape[-1] == 3 else array.transpose(1, 2, 0)


def _short_color(path: Source) -> Array:
    """[H, W, 3] uint16 of a picture of 16 bits. Raises InputError.

    Pillow keeps eight bits of a color: the upper ones, and the lower ones when it takes the bytes for swapped.
    """
    with images.opened(path) as upper, images.opened(path) as lower:
        assert isinstance(lower, ImageFile.ImageFile)
        lower.tile = [tile._replace(args=_swapped(tile.args)) for tile in lower.tile]
        high, low = (images.decoded(picture, path, mode="RGB").astype(np.uint16) for picture in (upper, lower))
    return high << 8 | low


def _swapped(arguments: Any) -> Any:
    """A decoder's arguments for the other order of bytes; the way of storing pixels is the only one, or the first."""
    if isinstance(arguments, tuple):
        return (_swapped(arguments[0]), *arguments[1:])
    kind, _, order = arguments.partition(";16")
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    return f"{kind};16{'B' if little else 'L'}"
