"""When a path is where: shares of the way for each frame, with easing, exact where a view was chosen."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from utils.errors import InputError

Floats = NDArray[np.float64]
Easing = Literal["linear", "in", "out", "in_out"]
TABLE = 4001  # places at which an easing is tabled to be inverted


def eased(share: Floats, easing: Easing) -> Floats:
    """[F] shares of the way at shares [F] of the time, both in [0, 1].

    linear: even speed; in: from standing; out: to standing; in_out: both, by Hermite's 3 x^2 - 2 x^3.
    """
    rest = 1.0 - share
    ways = {"linear": share, "in": share**2, "out": 1.0 - rest**2, "in_out": share**2 * (3.0 - 2.0 * share)}
    return ways[easing]


def shares_through(keys: Floats, frames: int, *, closed: bool = False, easing: Easing = "linear") -> Floats:
    """[F] shares of the way in rising order, F = `frames`, with each key's share exactly at one frame.

    keys: [K], rising from 0 to 1, at least two. closed: the last key is the first again, and comes after the last
    frame. The speed differs from the easing's by as little as it takes for keys to meet whole frames. Raises
    InputError where there are more keys than frames.
    """
    count, last = len(keys) - closed, frames - 1 + closed
    if frames < count:
        raise InputError(f"--frames: {frames} - the path leads through {count} views - expected as many or more")
    if last == 0:
        return keys[:1].copy()
    table = np.linspace(0.0, 1.0, TABLE)
    times = np.interp(keys, eased(table, easing), table) * last
    at = met = whole(times)
    order = np.arange(frames, dtype=np.float64)
    if closed:  # the round before and the one after, so that the speed at both ends is one
        at, times = (np.concatenate([x[:-1] - last, x, x[1:] + last]) for x in (at, times))
    time = PchipInterpolator(at, times)(order) if len(at) > 2 else order
    share = eased(np.clip(time / last, 0.0, 1.0), easing)
    share[met[:count]] = keys[:count]  # not only nearly
    return share


def whole(times: Floats) -> NDArray[np.int64]:
    """[K] different whole numbers in the order of times [K], near to them, the first and the last unmoved.

    times: rising, from 0 to a whole number of at least K - 1.
    """
    at, last = np.rint(times).astype(np.int64), round(float(times[-1]))
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + 1)
    at[-1] = last
    for i in range(len(at) - 2, -1, -1):
        at[i] = min(at[i], at[i + 1] - 1)
    return at
