"""Every pixel once per epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from dataio.pictures.device_pixels import DevicePixels
from dataio.pictures.pixel_store import PixelStore
from dataio.selection.base import Chosen, ChosenOnDevice, Selection, SelectionConfig
from dataio.selection.permutation import Permutation


class UniformSelection(SelectionConfig):
    """Every pixel once per epoch, in an order that the seed decides."""

    type: Literal["uniform"] = "uniform"

    def build(self, store: PixelStore, *, rays: int, seed: int) -> Selection:
        return EachOnce(Permutation(len(store), seed), rays)


class EachOnce(Selection):
    """The order itself."""

    def choose(self, first: int) -> Chosen:
        return Chosen(self.upcoming(first))

    def on_device(self, pixels: DevicePixels) -> Callable[[Tensor], ChosenOnDevice]:
        return lambda first: ChosenOnDevice(self.order.on_device(pixels.kernels, first, self.places))
