"""A way through given poses, in so many frames, each of the poses at one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError
from utils.paths.camera_paths import Spline
from utils.paths.timing import Easing, shares_through

Floats = NDArray[np.float64]
AROUND = 3  # keys beyond each end of a loop, so that it closes as smoothly as it goes


@dataclass(frozen=True)
class Through:
    """poses: [F, 3, 4]. share: [F] of the way, 0 to 1. keys: [K], at which share each key is; a loop ends with 1."""

    poses: Floats
    share: Floats
    keys: Floats


def through(keys: Floats, frames: int, *, easing: Easing = "linear", loop: bool = False) -> Through:
    """Through keys [K, 3, 4] in their order, F = `frames`.

    Positions follow a cubic spline and orientations a rotation spline. The first frame is the first key; without a loop
    the last frame is the last key, with it the first key follows the last frame. Raises InputError where two keys in a
    row are the same, for a single one, or for more keys than frames.
    """
    ring = np.concatenate([keys, keys[:1]]) if loop else keys
    if len(keys) < 2 or np.abs(np.diff(ring, axis=0)).max(axis=(1, 2)).min() < 1e-9:
        raise InputError("--path: views - one follows itself - expected at least two, and none twice in a row")
    beyond = AROUND if loop else 0
    spline = Spline.through(keys[np.arange(-beyond, len(ring) + beyond) % len(keys)])
    shares = spline.shares()[beyond : beyond + len(ring)]
    own = (shares - shares[0]) / (shares[-1] - shares[0])
    share = shares_through(own, frames, closed=loop, easing=easing)
    return Through(spline.at(shares[0] + share * (shares[-1] - shares[0])), share, own)
