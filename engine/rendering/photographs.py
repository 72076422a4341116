"""The photographs beside which given views are shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dataio.pictures.images import resized
from engine.run import Run
from models.rendering.frames import Tile, size_of
from models.rendering.renderers.base import Renderer
from utils.errors import InputError
from utils.pictures.images import Picture

if TYPE_CHECKING:
    from dataio.cameras import Cameras

TILE = 1 << 16  # pixels


class PhotographRenderer(Renderer):
    """The photographs of views [F], frame by frame, in the size of the cameras that ask for them."""

    def __init__(self, run: Run, views: NDArray[np.int64]) -> None:
        """Raises InputError where the data of the run are not to be had."""
        self.scene, self.views = run.load_scene(), views
        self.in_size = lru_cache(maxsize=1)(self._in_size)  # a frame is asked for by several modes

    def _in_size(self, index: int, width: int, height: int) -> Picture:
        return resized(self.scene.images[int(self.views[index])], (width, height))

    def picture(self, cameras: Cameras, index: int) -> Picture:
        """[H, W, 3] the photograph of frame `index`."""
        return self.in_size(index, *size_of(cameras, index))

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        """The photograph row by row, whatever `coarse` is: nothing has to be computed."""
        colors = torch.from_numpy(np.array(self.picture(cameras, index))).view(-1, 3)
        for pixels in torch.arange(len(colors)).split(TILE):
            known = torch.ones(len(pixels))
            yield Tile(pixels=pixels, step=1, depth=0 * known, opacity=known, color=colors[pixels].float() / 255)


def photographs(run: Run | None, views: NDArray[np.int64] | None, cameras: Cameras) -> PhotographRenderer:
    """Those of views [F] at the sizes of cameras [F]. Raises InputError where there are none, or of another shape."""
    if run is None or views is None:
        raise InputError("--modes: truth and error - there is no photograph - expected a run and --path views")
    found = PhotographRenderer(run, views)
    for index, view in enumerate(views):
        (width, height), (own_height, own_width) = size_of(cameras, index), found.scene.images[int(view)].shape[:2]
        if abs(width * own_height - height * own_width) > max(own_width, own_height):
            raise InputError(
                f"--size: {width}x{height} - {run.names[view]} has {own_width}x{own_height}"
                " - expected its shape for truth and error"
            )
    return found
