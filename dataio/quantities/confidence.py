"""How much a pixel's depth and normal are trusted."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dataio.files import shown
from dataio.pictures import images, numbers
from dataio.pictures.images import Source
from dataio.quantities.base import Array, Quantity
from dataio.views import Views
from utils.errors import InputError

SCALE = 65535  # stored numbers per one


class Confidence(Quantity):
    """0 to 1, 1 = certain: a gray picture of 8 or 16 bits, or an .npy array [H, W] in [0, 1], NaN being 0.

    Stored as uint16. Smaller pictures have the confidence of the pixel that their depth and normal are of.
    """

    name = "confidence"
    frame_keys = ("confidence_path", "confidence_file_path")
    folder = "confidence"
    dtype = np.uint16

    def size(self, path: Source) -> tuple[int, int]:
        """(width, height). Raises InputError for what is not gray."""
        return numbers.size_of(path, 1)

    def read(self, path: Source) -> Array:
        """[H, W] uint16. Raises InputError, also for numbers outside of [0, 1]."""
        stored = numbers.stored(path, 1)
        result = np.empty(stored.shape, np.uint16)
        for rows in images.strips(len(stored)):
            result[rows] = _shares(stored[rows], path)
        return result

    def factor(self, views: Views) -> float:
        """To [0, 1]."""
        return 1 / SCALE

    def known(self, values: Tensor) -> Tensor:
        """[R]: the confidence [R] itself, so that its sum is that of the confidence."""
        return values


def _shares(stored: Array, path: Source) -> Array:
    """[H, W] uint16 of what a file stores, [H, W] uint8, uint16 or floats."""
    if stored.dtype.kind == "u":
        return stored.astype(np.uint16) * np.uint16(SCALE // np.iinfo(stored.dtype).max)
    share = np.nan_to_num(stored.astype(np.float64), nan=0.0)
    if share.min() < 0 or share.max() > 1:
        raise InputError(f"{shown(path)} - got {share.min():g} to {share.max():g} - expected numbers in 0 to 1")
    return np.rint(share * SCALE).astype(np.uint16)
