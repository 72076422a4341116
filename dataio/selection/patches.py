"""Squares of neighboring pixels, for losses that compare structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dataio.pictures.device_pixels import DevicePixels
from dataio.pictures.pixel_store import PixelStore
from dataio.selection.base import Chosen, ChosenOnDevice, Selection, SelectionConfig
from dataio.selection.permutation import Permutation
from utils.errors import InputError


class PatchSelection(SelectionConfig):
    """Squares of side x side pixels; every one that lies wholly in a picture once per epoch."""

    type: Literal["patches"] = "patches"
    side: int = Field(8, ge=2, le=1024, description="pixels; train.rays is a multiple of its square")

    @property
    def patch(self) -> int | None:
        return self.side

    def build(self, store: PixelStore, *, rays: int, seed: int) -> Selection:
        return Patches(store, self.side, rays // self.side**2, seed=seed)


class Patches(Selection):
    """The order of all squares, by their upper left pixels; the pixels of one stand row by row."""

    def __init__(self, store: PixelStore, side: int, count: int, *, seed: int) -> None:
        """count: squares per batch. Raises InputError for a picture smaller than a square."""
        for name, (height, width) in zip(store.names, store.shapes, strict=True):
            if min(height, width) < side:
                got, expected = f"{width} x {height} pixels", f"at least {side} x {side} (train.pixels.side)"
                raise InputError(f"{name} - got {got} - expected {expected}")
        rooms = store.shapes - side + 1
        self._wide = rooms[:, 1]
        self._start = np.concatenate([[0], np.cumsum(rooms.prod(axis=1))])
        self._store, self._side = store, side
        super().__init__(Permutation(int(self._start[-1]), seed), count)

    def resize(self, rays: int) -> None:
        self.places = rays // self._side**2

    def choose(self, first: int) -> Chosen:
        squares = self.upcoming(first)[:, None, None]
        view = np.searchsorted(self._start, squares, side="right") - 1
        row, column = np.divmod(squares - self._start[view], self._wide[view])
        along = np.arange(self._side)
        return Chosen(self._store.number(view, row + along[:, None], column + along).reshape(-1))

    def on_device(self, pixels: DevicePixels) -> Callable[[Tensor], ChosenOnDevice]:
        begin, end, wide, first_pixel, width = (
            torch.from_numpy(np.ascontiguousarray(x)).to(pixels.device)
            for x in (self._start[:-1], self._start[1:], self._wide, self._store.start[:-1], self._store.width)
        )
        along = torch.arange(self._side, device=pixels.device)

        def choose(first: Tensor) -> ChosenOnDevice:
            squares = self.order.on_device(pixels.kernels, first, self.places)
            view = torch.searchsorted(end, squares, right=True)
            place = squares - begin[view]
            row = torch.div(place, wide[view], rounding_mode="floor")
            corner = first_pixel[view] + row * width[view] + place - row * wide[view]
            square = along[:, None] * width[view, None, None] + along
            return ChosenOnDevice((corner[:, None, None] + square).reshape(-1))

        return choose
