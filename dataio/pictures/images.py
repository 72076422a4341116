"""Reading pictures: size known from the header first, every defect one line, pixels never turned by EXIF.

The EXIF orientation is ignored on purpose: poses belong to the pixels as they are stored.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dataio.files import BROKEN_ARRAY, inside, shown
from dataio.pictures.packed import Packed, PackedNumbers
from dataio.pictures.pfm import read_pfm
from utils.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".PNG", ".JPG", ".JPEG", ".TIF", ".TIFF")
MAX_PIXELS = 200_000_000
# The largest number of 16 bits is a sensor's "no measurement" (7-Scenes), or one that did not fit.
NO_DEPTH = 65535
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# What Pillow raises for a damaged file is whatever its parsing stumbles over.
BROKEN_PICTURE = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, OverflowError, struct.error,
    Image.DecompressionBombError, Warning,
)  # fmt: skip

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Source = Path | Packed  # where the bytes of a picture are
Depth = npt.NDArray[np.uint16 | np.float32]

STRIP = 256  # rows that are worked on at once


def beside(path: Path) -> Path | None:
    """The picture of the same name with another suffix, or with one where `path` has none; None without any.

    Upper case counts as lower case. Of several the one whose suffix stands first in `SUFFIXES`.
    """
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    for suffix in SUFFIXES:  # a look at each is quicker than a list of the folder
        if (other := path.with_name(stem + suffix)).is_file():
            return other
    if not path.parent.is_dir():
        return None
    same = (other for other in sorted(path.parent.iterdir()) if other.stem.lower() == stem.lower())
    return next(filter(is_picture, same), None)


def named(root: Path, name: str, *, where: str, allow_outside: bool = False) -> Path:
    """The picture that a data set names, or one beside it as of `beside`; the name itself where there is none.

    root, where, allow_outside, raises: as `dataio.files.inside`, also for the one beside it.
    """
    path = inside(root, name, where=where, allow_outside=allow_outside)
    other = None if path.is_file() else beside(path)
    if other is None:
        return path
    name = PurePosixPath(name.replace("\\", "/")).with_name(other.name).as_posix()
    return inside(root, name, where=where, allow_outside=allow_outside)


def has_alpha(path: Source) -> bool:
    """Whether `read_image` will give an alpha, from the header. Raises InputError."""
    with opened(path) as picture:
        return _has_alpha(picture)


def is_opaque(path: Source) -> bool:
    """Whether a picture has no alpha, or one of 255 everywhere, as where a program writes one that says nothing."""
    if not has_alpha(path):
        return True
    _, alpha = read_image(path)
    return alpha is None or bool(alpha.min() == 255)


def _has_alpha(picture: Image.Image) -> bool:
    if picture.mode.startswith("I;16"):
        return False
    return picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info


def is_picture(path: Path) -> bool:
    """Whether a file has the name of a picture; one that begins with a dot is another program's note about it."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names."""
    return sorted(path for path in folder.iterdir() if is_picture(path) and path.is_file())


def image_size(path: Source) -> tuple[int, int]:
    """(width, height) from the header. Raises InputError."""
    with opened(path) as picture:
        return picture.size


def read_image(path: Source) -> tuple[UInt8, UInt8 | None]:
    """Color [H, W, 3] and, where the file has one, straight alpha [H, W]; both uint8.

    Gray, palette, CMYK and 16-bit pictures are converted to 8-bit RGB. Raises InputError for files that are
    missing, truncated, of another format, animated or larger than the pixel budget.
    """
    with opened(path) as picture:
        if _frames(picture, path) > 1:
            raise InputError(f"{shown(path)} - got several pictures in one file - expected one")
        if picture.mode.startswith("I;16"):
            gray = (decoded(picture, path).astype(np.uint16) >> 8).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=-1), None
        if picture.mode in ("I", "F"):
            raise InputError(f"{shown(path)} - got {picture.mode} pixels - expected 8 or 16 bits per channel")
        alpha = _has_alpha(picture)
        pixels = decoded(picture, path, mode="RGBA" if alpha else "RGB").astype(np.uint8, copy=False)
    if alpha:
        return np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
    return pixels, None


def _frames(picture: Image.Image, path: Source) -> int:
    """How many pictures there are in a file; one of TIFF is gone through for it. Raises InputError."""
    try:
        return getattr(picture, "n_frames", 1)
    except BROKEN_PICTURE as error:
        raise InputError(f"{shown(path)} - damaged image: {shown(error)}") from error


def read_mask(path: Source) -> UInt8:
    """Mask [H, W] uint8, 255 = object: the gray value of the picture, or its alpha where that says more.

    Raises InputError as `read_image` does.
    """
    color, alpha = read_image(path)
    if alpha is not None and alpha.min() < 255:
        return alpha
    return np.asarray(color.max(axis=-1), dtype=np.uint8)


def read_depth(path: Source, unit: float) -> Float32:
    """z depth [H, W] float32 in world units, 0 = unknown, from a 16-bit picture, an .npy array or a PFM.

    unit: world units per stored number. Raises InputError as `read_image` does.
    """
    return stored_depth(path).astype(np.float32) * np.float32(unit)


def stored_depth(path: Source) -> Depth:
    """The numbers [H, W] that a depth map stores, 0 = unknown: uint16 where the file has that, else float32.

    Of 16 bits 65535 is unknown too. Raises InputError as `read_image` does.
    """
    depth: npt.NDArray[np.generic]
    if isinstance(path, PackedNumbers):
        depth = path.numbers()
    elif isinstance(path, Path) and path.suffix.lower() == ".npy":
        depth = np.array(_npy_depth(path))
    elif isinstance(path, Path) and path.suffix.lower() == ".pfm":
        depth = read_pfm(path)
    else:
        with opened(path) as picture:
            if not picture.mode.startswith(("I", "F")):
                raise InputError(f"{shown(path)} - got {picture.mode} pixels - expected 16 bits or float")
            depth = decoded(picture, path)
    if _is_short(depth.dtype):
        short = depth.astype(np.uint16, copy=False)
        return np.where(short == NO_DEPTH, np.uint16(0), short)
    numbers = depth.astype(np.float32)
    return np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.float32(0))


def depth_is_short(path: Source) -> bool:
    """Whether `stored_depth` will give uint16, from the header. Raises InputError."""
    if isinstance(path, Packed):
        return isinstance(path, PackedNumbers)
    if path.suffix.lower() == ".npy":
        return _is_short(_npy_depth(path).dtype)
    if path.suffix.lower() not in SUFFIXES:
        return False
    with opened(path) as picture:
        return picture.mode.startswith("I;16")


def _is_short(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "u" and dtype.itemsize == 2


def _npy_depth(path: Path) -> npt.NDArray[np.generic]:
    def fits(array: npt.NDArray[np.generic]) -> bool:
        return array.ndim == 2 and array.dtype.kind in "fu" and array.size <= MAX_PIXELS

    return mapped_array(path, fits, "numbers [H,W]")


def mapped_array(
    path: Path, fits: Callable[[npt.NDArray[np.generic]], bool], expected: str
) -> npt.NDArray[np.generic]:
    """The array [*N] of an .npy file, not yet read. Raises InputError when it is none, or `fits` says no.

    expected: what fits, in words.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise InputError(f"{shown(path)} - got several arrays - expected {expected}")
        if not fits(array):
            raise InputError(f"{shown(path)} - got {array.dtype} {array.shape} - expected {expected}")
        return np.asarray(array)
    except BROKEN_ARRAY as error:
        raise InputError(f"{shown(path)} - cannot be read as .npy: {shown(error)}") from error


def resized(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """A picture [H, W, 3] or mask [H, W], uint8, at another (width, height), averaged over areas."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def subsampled(numbers: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Numbers [H, W] or [H, W, K] at another (width, height), by nearest pixel: across an edge they have no mean."""
    return np.asarray(cv2.resize(numbers, size, interpolation=cv2.INTER_NEAREST), dtype=numbers.dtype)


def composited(color: UInt8, mask: UInt8, background: tuple[float, float, float]) -> UInt8:
    """color * mask + background * (1 - mask), rounded. color [H, W, 3], mask [H, W], background in [0, 1]."""
    result = np.empty_like(color)
    back = np.round(np.array(background) * 255).astype(np.uint16)
    for rows in strips(len(color)):  # the sums take four times the memory of a picture
        share = mask[rows, :, None].astype(np.uint16)
        # 255 * 255 + 127 fits in 16 bits.
        result[rows] = (color[rows] * share + back * (255 - share) + 127) // 255
    return result


def strips(height: int) -> Iterator[slice]:
    """The rows of a picture, `STRIP` at a time."""
    return (slice(row, min(row + STRIP, height)) for row in range(0, height, STRIP))


def opened(path: Source) -> Image.Image:
    """The picture with its header read, not yet decoded. Raises InputError."""
    try:
        picture = Image.open(io.BytesIO(path.read()) if isinstance(path, Packed) else path, formats=FORMATS)
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)} - no such image") from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise InputError(f"{shown(path)} - not a readable image - expected one of {kinds}") from error
    except BROKEN_PICTURE as error:
        raise InputError(f"{shown(path)} - cannot be opened as an image: {shown(error)}") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise InputError(f"{shown(path)} - got {width} x {height} pixels - expected at most {MAX_PIXELS}")
    if not _is_covered(picture):
        picture.close()
        raise InputError(f"{shown(path)} - damaged image: got data of a part of its {width} x {height} pixels")
    return picture


def _is_covered(picture: Image.Image) -> bool:
    """Whether the pieces that the header lists reach to the last row; Pillow leaves the rest black, without a word."""
    boxes = [piece[1] for piece in getattr(picture, "tile", ()) if piece[1] is not None]
    return not boxes or max(box[3] for box in boxes) >= picture.height


def decoded(picture: Image.Image, path: Source, *, mode: str | None = None) -> npt.NDArray[np.generic]:
    """The numbers [H, W] or [H, W, K] of a picture that is open, in another of Pillow's modes. Raises InputError."""
    try:
        picture.load()
        picture = picture if mode in (None, picture.mode) else picture.convert(mode)
        # Strip by strip: Pillow hands out a copy of what it is asked for, and joins that from a second one.
        width, height = picture.size
        pixels = None
        for rows in strips(height):
            strip = np.asarray(picture.crop((0, rows.start, width, rows.stop)))
            pixels = np.empty((height, *strip.shape[1:]), strip.dtype) if pixels is None else pixels
            pixels[rows] = strip
        return np.zeros((0, 0)) if pixels is None else pixels
    except BROKEN_PICTURE as error:
        raise InputError(f"{shown(path)} - damaged image: {shown(error)}") from error
