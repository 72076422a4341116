"""Reading pictures: size known from the header first, every defect one line, pixels never turned by EXIF.

The EXIF orientation is ignored on purpose: poses belong to the pixels as they are stored.
"""

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dataio.files import shown
from dataio.packed import Packed, PackedNumbers
from utils.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".PNG", ".JPG", ".JPEG")
MAX_PIXELS = 200_000_000
# The largest number of 16 bits is a sensor's "no measurement" (7-Scenes), or one that did not fit.
NO_DEPTH = 65535
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Source = Path | Packed  # where the bytes of a picture are


def image_size(path: Source) -> tuple[int, int]:
    """(width, height) from the header. Raises InputError."""
    with _open(path) as picture:
        return picture.size


def read_image(path: Source) -> tuple[UInt8, UInt8 | None]:
    """Color [H,W,3] and, where the file has one, straight alpha [H,W]; both uint8.

    Gray, palette, CMYK and 16-bit pictures are converted to 8-bit RGB. Raises InputError for files that are
    missing, truncated, of another format, animated or larger than the pixel budget.
    """
    with _open(path) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            raise InputError(f"{shown(path)} - got several pictures in one file - expected one")
        if picture.mode.startswith("I;16"):
            gray = (_decode(picture, path).astype(np.uint16) >> 8).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=-1), None
        if picture.mode in ("I", "F"):
            raise InputError(f"{shown(path)} - got {picture.mode} pixels - expected 8 or 16 bits per channel")
        has_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
        pixels = _decode(picture, path, mode="RGBA" if has_alpha else "RGB").astype(np.uint8, copy=False)
    if has_alpha:
        return np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
    return pixels, None


def read_mask(path: Source) -> UInt8:
    """Mask [H,W] uint8, 255 = object: the gray value of the picture, or its alpha where that says more.

    Raises InputError as `read_image` does.
    """
    color, alpha = read_image(path)
    if alpha is not None and alpha.min() < 255:
        return alpha
    return np.asarray(color.max(axis=-1), dtype=np.uint8)


def read_depth(path: Source, unit: float) -> Float32:
    """z depth [H,W] float32 in world units, 0 = unknown, from a 16-bit picture or an .npy array.

    unit: world units per stored number. Of whole numbers 65535 is unknown too. Raises InputError as `read_image`
    does.
    """
    stored = _stored_depth(path)
    known = np.isfinite(stored) & (stored > 0)
    if stored.dtype.kind in "iu":
        known &= stored != NO_DEPTH
    return np.where(known, stored.astype(np.float32) * np.float32(unit), np.float32(0))


def _stored_depth(path: Source) -> npt.NDArray[np.generic]:
    if isinstance(path, PackedNumbers):
        return path.numbers()
    if isinstance(path, Path) and path.suffix == ".npy":
        return _read_depth_array(path)
    with _open(path) as picture:
        if not picture.mode.startswith(("I", "F")):
            raise InputError(f"{shown(path)} - got {picture.mode} pixels - expected 16 bits or float")
        return _decode(picture, path)


def _read_depth_array(path: Path) -> npt.NDArray[np.generic]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 2 or array.dtype.kind not in "fu" or array.size > MAX_PIXELS:
            raise InputError(f"{shown(path)} - got {array.dtype} {array.shape} - expected numbers [H,W]")
        return np.array(array)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{shown(path)} - cannot be read as .npy: {shown(error)}") from error


def resized(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """A picture or mask at another (width, height), averaged over areas."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def subsampled(depth: Float32, size: tuple[int, int]) -> Float32:
    """A depth map at another (width, height), by nearest pixel: depths across an edge have no mean."""
    return np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)


def composited(color: UInt8, mask: UInt8, background: tuple[float, float, float]) -> UInt8:
    """color * mask + background * (1 - mask), rounded. color [H,W,3], mask [H,W], background in [0,1]."""
    share = mask[..., None].astype(np.uint16)
    back = np.round(np.array(background) * 255).astype(np.uint16)
    # 255 * 255 + 127 fits in 16 bits.
    return ((color * share + back * (255 - share) + 127) // 255).astype(np.uint8)


def _open(path: Source) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(path.read()) if isinstance(path, Packed) else path, formats=FORMATS)
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)} - no such image") from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise InputError(f"{shown(path)} - not a readable image - expected one of {kinds}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise InputError(f"{shown(path)} - cannot be opened as an image: {shown(error)}") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise InputError(f"{shown(path)} - got {width} x {height} pixels - expected at most {MAX_PIXELS}")
    return picture


def _decode(picture: Image.Image, path: Source, *, mode: str | None = None) -> npt.NDArray[np.generic]:
    try:
        return np.array(picture if mode is None else picture.convert(mode))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{shown(path)} - damaged image: {shown(error)}") from error
