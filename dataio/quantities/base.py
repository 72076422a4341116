"""What a quantity per pixel says of itself: how it is found, decoded, kept, resized, and brought into a batch.

A quantity is a subclass of `Quantity` in a file of this folder; to define it is to register it. Everything between the
file and the batch (`dataio.pictures.pixels`, `dataio.pictures.pixel_store`, `dataio.batches`) is a loop over these.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dataio.cameras import Cameras, Rays
from dataio.files import shown
from dataio.pictures import images
from dataio.pictures.images import Source, UInt8
from dataio.views import Views
from utils.config.parts import discover
from utils.errors import InputError

Array = npt.NDArray[Any]


class Photograph(NamedTuple):
    """A decoded picture, which its quantities belong to."""

    color: UInt8  # [H, W, 3]
    alpha: UInt8 | None  # [H, W]


class Quantity:
    """One number per pixel, or several, that data say of their pictures.

    name: in `RayBatch.pixel(name)` and `Scene.quantities`. frame_keys: keys of a frame of transforms.json that name its
    file, the first that is there. folder: of its files, beside that of the pictures; None: none. suffixes: of those
    files, in lower case, the best first. dtype, channels: of the stored numbers, and how many there are per pixel.
    is_length: whether they are lengths, in world units, which the scene's frame scales. is_direction: whether they are
    three numbers that turn with their camera.
    """

    name: ClassVar[str]
    frame_keys: ClassVar[tuple[str, ...]] = ()
    folder: ClassVar[str | None] = None
    suffixes: ClassVar[tuple[str, ...]] = (".npy", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
    dtype: ClassVar[Any] = np.uint8
    channels: ClassVar[int] = 1
    is_length: ClassVar[bool] = False
    is_direction: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        other = type(_registry.get(cls.name, cls()))
        # The same class may come twice, by a reloaded module; two classes of one name are a mistake.
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"quantity {cls.name!r}: {cls.__qualname__} and {other.__qualname__}")
        _registry[cls.name] = cls()

    def size(self, path: Source) -> tuple[int, int] | None:
        """(width, height) from a file's header, None where only decoding tells. Raises InputError for other files."""
        return images.image_size(path)

    def read(self, path: Source) -> Array:
        """The stored numbers [H, W] or [H, W, K] of a file, of a type that `stored_as` fits. Raises InputError."""
        raise TypeError("a quantity says how it is read")

    def stored_as(self, views: Views) -> np.dtype[Any]:
        """The type of the stored numbers, from the headers of the files. Raises InputError."""
        return np.dtype(self.dtype)

    def of_view(self, views: Views, view: int, photograph: Photograph) -> Array:
        """The stored numbers [H, W] or [H, W, K] of a view's pixels in full size. Raises InputError."""
        path = views.files[self.name][view]
        numbers = self.read(path)
        same_size(path, numbers.shape, photograph.color.shape)
        return numbers

    def resized(self, numbers: Array, size: tuple[int, int]) -> Array:
        """Stored numbers [H, W] or [H, W, K] at another (width, height): here by nearest pixel."""
        return images.subsampled(numbers, size)

    def factor(self, views: Views) -> float | None:
        """What stored numbers are multiplied by when they are read, world units for lengths; None: they are kept."""
        return None

    def of_pixels(self, numbers: Tensor, rays: Rays, cameras: Cameras) -> Tensor:
        """Numbers of R pixels as they stand in a batch, float32, from those that were read.

        numbers: [R] or [R, K], stored numbers times the factor, lengths in scene units. rays: through the R pixels.
        cameras: all of the scene, which `rays.camera` counts. Nothing here may wait for a GPU.
        """
        return numbers.float()

    def known(self, values: Tensor) -> Tensor:
        """[R] float32 in [0, 1]: how much of each pixel's value [R] or [R, K], as in a batch, is known."""
        return (values != 0 if values.ndim == 1 else (values != 0).any(-1)).float()

    def check(self, path: Source, picture: Source, views: Views) -> None:
        """Raises InputError where a file does not fit its picture, as far as the headers tell."""
        size = self.size(path)
        if size is not None:
            same_size(path, size[::-1], images.image_size(picture)[::-1])


_registry: dict[str, Quantity] = {}


def quantities() -> dict[str, Quantity]:
    """All quantities by name, in alphabetical order."""
    _discover()
    return dict(sorted(_registry.items()))


def quantity(name: str) -> Quantity:
    """The quantity of a name; there must be one."""
    _discover()
    return _registry[name]


@cache
def _discover() -> None:
    discover(__name__.rpartition(".")[0])


def same_size(path: Source, shape: tuple[int, ...], of_image: tuple[int, ...]) -> None:
    """Raises InputError where two shapes [H, W, ...] differ in height or width."""
    if shape[:2] != of_image[:2]:
        got, expected = (f"{width} x {height}" for height, width in (shape[:2], of_image[:2]))
        raise InputError(f"{shown(path)} - got {got} pixels - expected {expected} as its image has")
