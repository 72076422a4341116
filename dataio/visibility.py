"""Which points the cameras saw: what no camera saw, no method can know."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dataio.normalize import Float64
from dataio.scene import Scene


def times_seen(scene: Scene, views: npt.NDArray[np.int64], points: Float64, *, margin: float) -> npt.NDArray[np.int64]:
    """How many of the views saw each point [N, 3], scene frame; [N].

    A view with measured depths saw what is in its frame, at most `margin` (scene units) behind what it measured there;
    where it measured nothing it saw nothing. Without depths, it saw all that is in its frame.
    """
    seen = np.zeros(len(points), dtype=np.int64)
    place = torch.from_numpy(np.asarray(points, dtype=np.float32))
    for view in (int(v) for v in views):
        pixels, depth = (x.numpy() for x in scene.cameras.project(place, view))
        width, height = (int(n) for n in scene.cameras.size[view])
        column, row = np.floor(np.nan_to_num(pixels, nan=-1.0).clip(-1, 2**30)).astype(np.int64).T
        inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        if scene.depths is not None:
            measured = scene.depths[view][row[inside], column[inside]]
            inside[inside] = (measured > 0) & (depth[inside] < measured + margin)
        seen += inside
    return seen
