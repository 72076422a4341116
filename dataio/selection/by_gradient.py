"""Pixels where the photograph changes: edges and texture."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from dataio.pictures.device_pixels import DevicePixels
from dataio.pictures.pixel_store import Int64, PixelStore
from dataio.selection.base import Selection
from dataio.selection.scored import DeviceScorer, Scored, ScoredConfig

Float64 = npt.NDArray[np.float64]
UNIT = 2**20  # of the score, per level; a gradient has at most 625


class GradientSelection(ScoredConfig):
    """More of the pixels at edges and in texture: the score is the length of the image gradient."""

    type: Literal["gradient"] = "gradient"

    def build(self, store: PixelStore, *, rays: int, seed: int) -> Selection:
        return ByGradient(self, store, rays=rays, seed=seed)


class ByGradient(Scored):
    """Scored by neighbors, which are looked up on demand: no map of any picture is kept."""

    def score(self, pixels: Int64) -> tuple[Int64, None]:
        """[M] `gradient` at pixels [M], in units, and no bins; see `Scored.score`."""
        return (gradient(self.store, pixels) * UNIT).astype(np.int64), None

    def scorer(self, pixels: DevicePixels) -> DeviceScorer:
        """See `Scored.scorer`."""
        return lambda candidates: (pixels.gradients(candidates, UNIT), None)


def gradient(store: PixelStore, pixels: Int64) -> Float64:
    """[M] length of the color's gradient at pixels [M], in levels per two pixels, over all channels.

    By the difference of both neighbors in each direction; at the picture's border the pixel stands in for the one
    beyond.
    """
    view, row, column = store.locate(pixels)
    height, width = store.shapes[view].T
    left, right = pixels - (column > 0), pixels + (column < width - 1)
    above, below = pixels - width * (row > 0), pixels + width * (row < height - 1)
    across, down = (
        store.colors(a, view).astype(np.int32) - store.colors(b, view) for a, b in ((right, left), (below, above))
    )
    return np.sqrt((across**2 + down**2).sum(axis=1))
