"""Features of pictures, to be matched with those of others."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[Any]  # uint8, as cv2 gives and takes it
OPENCV_CONTRAST = 0.04  # of the weakest feature, unless said otherwise


def sift_features(
    gray: Picture, mask: Picture | None, *, most: int, contrast: float = OPENCV_CONTRAST
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Pixels [N, 2] and descriptors [N, 128] of the strongest SIFT features of a picture, N <= `most`.

    gray: [H, W]. mask: [H, W], they are looked for where it is 128 or more; None: everywhere. Lowe, "Distinctive image
    features" (2004).
    """
    where = None if mask is None else (np.asarray(mask) > 127).astype(np.uint8)
    found, descriptors = cv2.SIFT.create(nfeatures=most, contrastThreshold=contrast).detectAndCompute(gray, where)
    # OpenCV's pixel centers are whole numbers.
    pixels = np.array([point.pt for point in found], dtype=np.float64).reshape(-1, 2) + 0.5
    none = np.zeros((0, 128), dtype=np.float32)
    return pixels, none if descriptors is None else np.asarray(descriptors, np.float32)
