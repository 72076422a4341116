"""The pixels of some views by number: where each is in its picture, and all that the data say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataio.pictures.pictures import Array, Pictures
from dataio.pictures.pixels import COLOR
from dataio.scene import Scene

Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class GatheredPixels:
    """What the background thread hands over: numbers only, so that rays are made where the cameras are."""

    camera: Tensor  # [R] int64
    pixel: Tensor  # [R, 2] float32, centers at +0.5
    color: Tensor  # [R, 3] uint8
    quantities: dict[str, Tensor]  # [R] or [R, K] by name, as their files say it: a depth is a z depth
    end: int  # the stream's position after this batch
    weight: Tensor | None = None  # [R] float32
    bins: Tensor | None = None  # [R] int64, what a selection learns the errors of
    importance: Tensor | None = None  # [R] float32, see `Chosen`

    def pinned(self) -> GatheredPixels:
        """The same in memory from which a GPU copies while the program goes on."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {name: v.pin_memory() for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **tensors, quantities={name: v.pin_memory() for name, v in self.quantities.items()})


class PixelStore:
    """All pixels of some views, where the scene has them; a pixel's number counts through view, row, column."""

    def __init__(self, scene: Scene, views: Int64) -> None:
        """scene: where the views are from. views: [V] indices."""
        self.views = views
        self.names = [scene.names[view] for view in views]
        self._color = Pictures.of(scene.images)
        self._quantities = {name: Pictures.of(pictures) for name, pictures in scene.quantities.items()}
        self.shapes = self._color.shapes[views]
        self.width = self.shapes[:, 1]
        alike = bool((self.shapes == self.shapes[:1]).all())
        self._area = int(self.shapes[0].prod()) if alike else None  # of every view
        self.start = np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1))])
        # From numbers among these views to places among all of them.
        self._shift = self._color.start[views] - self.start[:-1]

    def __len__(self) -> int:
        return int(self.start[-1])

    @property
    def pictures(self) -> dict[str, Pictures]:
        """All that is stored of the scene's views, these and others, by name; the colors as "color"."""
        return {COLOR: self._color, **self._quantities}

    @property
    def size(self) -> int:
        """Bytes of all that is stored of these views' pixels."""
        return len(self) * sum(stored.flat[:1].nbytes for stored in self.pictures.values())

    def stored(self, name: str) -> Iterator[Array]:
        """Of each view the stored numbers, [P] or [P, K], row by row, as its file says them; without a copy."""
        pictures = self.pictures[name]
        for view in self.views:
            yield pictures.flat[pictures.start[view] : pictures.start[view + 1]]

    def locate(self, pixels: Int64) -> tuple[Int64, Int64, Int64]:
        """Which of the views, row and column, [R] each, of the pixels of the given numbers [R]."""
        if self._area is None:
            view = np.searchsorted(self.start, pixels, side="right") - 1
            row, column = np.divmod(pixels - self.start[view], self.width[view])
        else:
            view, place = np.divmod(pixels, self._area)
            row, column = np.divmod(place, self.width[0])
        return view, row, column

    def number(self, view: Int64, row: Int64, column: Int64) -> Int64:
        """The numbers [R] of pixels that lie within their picture: the inverse of `locate`."""
        return np.asarray(self.start[view] + row * self.width[view] + column)

    def colors(self, pixels: Int64, view: Int64) -> UInt8:
        """[R, 3] uint8 colors of the pixels of the given numbers [R], which lie in the views [R]."""
        return self._color.take(pixels + self._shift[view])

    def gather(self, pixels: Int64, end: int) -> GatheredPixels:
        """The pixels of the given numbers [R]."""
        view, row, column = self.locate(pixels)
        point = np.empty((len(pixels), 2), dtype=np.float32)
        point[:, 0], point[:, 1] = column, row
        point += 0.5
        places = pixels + self._shift[view]
        return GatheredPixels(
            camera=torch.from_numpy(self.views[view]),
            pixel=torch.from_numpy(point),
            color=torch.from_numpy(self._color.take(places)),
            quantities={name: torch.from_numpy(each.take(places)) for name, each in self._quantities.items()},
            end=end,
        )
