"""Which views are held out for tests: one in so many, each from among the others and not from their edge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataio.files import Float64

NEIGHBORS = 6


def held_out(names: list[str], centers: Float64, every: int) -> npt.NDArray[np.int64]:
    """Indices [K], ascending, of one view in `every` > 0, of V with `names` and camera centers [V, 3].

    The views are taken by name in groups of `every`; of each the one that is best surrounded by the others is held out,
    since a view beyond all others asks for what no method can know. A last group of one view gives none.
    """
    order = np.argsort(np.array(names), kind="stable")
    if len(order) < 2:
        return order[:0].astype(np.int64)
    lonely = edge(centers)
    groups = [order[begin : begin + every] for begin in range(0, len(order), every)]
    if every > 1 and len(groups[-1]) == 1:
        groups.pop()
    return np.sort([int(group[lonely[group].argmin()]) for group in groups]).astype(np.int64)


def edge(centers: Float64) -> Float64:
    """[V] in [0, 1]: how far all neighbors of a camera center [V, 3] lie in one direction; 0 in their midst.

    The length of the mean unit vector to the nearest `NEIGHBORS`, rounded, so that equal places are equal.
    """
    way = centers[None] - centers[:, None]
    apart = np.linalg.norm(way, axis=-1)
    np.fill_diagonal(apart, np.inf)
    count = min(NEIGHBORS, len(centers) - 1)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :count]
    unit = np.take_along_axis(way, nearest[..., None], 1)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=-1, keepdims=True), 1e-300)
    return np.round(np.linalg.norm(unit.mean(axis=1), axis=-1), 3)
