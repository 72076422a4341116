"""The pixels of some views in a device's memory, where kernels choose and gather them and no host has to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from dataio.files import notice
from dataio.pictures.pixel_store import GatheredPixels, PixelStore
from dataio.pictures.pixels import COLOR
from utils.errors import InputError

Place = Literal["auto", "gpu", "host"]
SHARE = 0.5  # of a GPU's free memory, which pixels may take where nothing else is said
MOST_PIXELS = 2**31 - 1  # that a kernel counts


class PixelKernels(Protocol):
    """What works on pixels where they are, as functions of tensors: those of `models.kernels.pixels`."""

    def order(self, first: Tensor, places: int, *, count: int, seed: int) -> Tensor:
        """[P] int64, what stands at P places from `first` [1] int64 on: `Permutation.stream`."""

    def systematic(
        self, scores: Tensor, first: Tensor, count: int, *, uniform: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Places [K] int64 and importance [K] float32 of K = `count` among scores [M] int64: `Scored.choose`."""

    def locate(self, pixels: Tensor, layout: Tensor) -> tuple[Tensor, Tensor]:
        """Cameras [R] int64 and centers [R, 2] float32 of pixels [R] int64; layout: of `DevicePixels`."""

    def rows(self, table: Tensor, pixels: Tensor) -> Tensor:
        """[R, K] uint8, the rows of a table [P, K] at pixels [R] int64."""

    def gradients(self, pixels: Tensor, layout: Tensor, color: Tensor, *, unit: float) -> Tensor:
        """[M] int64, lengths of the image gradient at pixels [M] int64, times `unit`; color: [P, 3] uint8."""

    def cells(self, pixels: Tensor, layout: Tensor, grids: Tensor, *, side: int) -> Tensor:
        """[M] int64, squares that pixels [M] int64 lie in; grids: [V, 2] int64, first square and squares in a row."""

    def add_errors(self, sums: Tensor, bins: Tensor, error: Tensor, *, unit: float, largest: float) -> None:
        """Add errors [R] and their number to sums [2, C] int64 of their bins [R] int64, in place."""


@dataclass(frozen=True)
class _Plane:
    """What is stored of one kind."""

    table: Tensor  # [P, K] uint8, the bytes of each pixel
    dtype: torch.dtype
    shape: tuple[int, ...]  # of a pixel's numbers
    factor: float | None

    def at(self, rows: Tensor) -> Tensor:
        """The numbers [R] or [R, K] of rows [R, K] uint8 of the table."""
        values = rows.view(self.dtype).reshape(-1, *self.shape)
        return values if self.factor is None else values.float() * self.factor


class DevicePixels:
    """A `PixelStore` in a device's memory: the same numbers of pixels, the same bits of what is gathered."""

    def __init__(self, store: PixelStore, device: torch.device, kernels: PixelKernels) -> None:
        self.device, self.kernels = device, kernels
        columns = [store.start[:-1], store.width, store.shapes[:, 0], store.views]
        self.layout = torch.from_numpy(np.stack(columns, axis=1)).to(device)  # [V, 4], see models.kernels.pixels.store
        self._planes = {name: _plane(store, name, device) for name in store.pictures}

    def gradients(self, pixels: Tensor, unit: float) -> Tensor:
        """[M] int64, in units of 1 / `unit`: lengths of the image gradient at pixels [M] int64."""
        return self.kernels.gradients(pixels, self.layout, self._planes[COLOR].table, unit=unit)

    def gather(self, pixels: Tensor) -> GatheredPixels:
        """See `PixelStore.gather`; pixels [R] int64, on the device. The end of the batch is left to who counts."""
        camera, point = self.kernels.locate(pixels, self.layout)
        found = {name: plane.at(self.kernels.rows(plane.table, pixels)) for name, plane in self._planes.items()}
        return GatheredPixels(camera, point, found.pop(COLOR), found, end=-1)


def lies_on_device(store: PixelStore, device: torch.device, place: Place) -> bool:
    """Whether pixels are kept on the device, as `data.device` wants it; a line where a GPU has no memory for them.

    Raises InputError for a device that is not there, and for more pixels than a kernel counts.
    """
    if place == "host" or (place == "auto" and device.type != "cuda"):
        return False
    if device.type != "cuda":
        raise InputError(f"data.device: gpu - the run computes on a {device.type} - expected auto or host")
    too_many = len(store) > MOST_PIXELS
    if place == "gpu" and too_many:
        raise InputError(f"data.device: gpu - got {len(store)} pixels - expected {MOST_PIXELS} at most, or host")
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, and not in use
    free = torch.cuda.mem_get_info(device)[0] + kept
    fits = store.size <= SHARE * free and not too_many
    if place == "auto" and not fits:
        sizes = f"{store.size / 2**20:,.0f} MiB of pixels, {free / 2**20:,.0f} MiB of the GPU's memory are free"
        notice(f"data.device: {sizes}: pixels stay on the host, which gathers them for each step")
    return fits or place == "gpu"


def _plane(store: PixelStore, name: str, device: torch.device) -> _Plane:
    pictures = store.pictures[name]
    pixel = pictures.flat[:1]
    table = torch.empty(len(store), pixel.nbytes, dtype=torch.uint8, device=device)
    for first, numbers in zip(store.start[:-1].tolist(), store.stored(name), strict=True):
        own = np.array(numbers).reshape(len(numbers), -1).view(np.uint8)  # a file's pages are read here, and once
        table[first : first + len(own)].copy_(torch.from_numpy(own))
    factor = None if pictures.factor is None else float(np.float32(pictures.factor))
    return _Plane(table, torch.from_numpy(pixel.copy()).dtype, pixel.shape[1:], factor)
