"""What every choice of pixels offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dataio.pictures.device_pixels import DevicePixels
from dataio.pictures.pixel_store import Int64, PixelStore
from dataio.selection.permutation import Permutation
from utils.config.parts import Part
from utils.entries import Entry


class SelectionConfig(Part):
    """Chooses the pixels of every batch."""

    @property
    def patch(self) -> int | None:
        """Side of the squares of neighboring pixels that a batch is made of, where it is."""
        return None

    def build(self, store: PixelStore, *, rays: int, seed: int) -> Selection:
        """The choice among a store's pixels, `rays` per batch and rank. Raises InputError for unfit pictures."""
        raise TypeError("a selection config says how it is built")


@dataclass(frozen=True)
class Chosen:
    """The pixels of one batch."""

    pixels: Int64  # [R] numbers of the store
    weight: npt.NDArray[np.float32] | None = None  # [R] factors of the rays in the losses
    bins: Int64 | None = None  # [R] what the errors of these rays are learned under
    importance: npt.NDArray[np.float32] | None = None  # [R] times these, a mean is that of pixels drawn alike; None: is


@dataclass(frozen=True)
class ChosenOnDevice:
    """The same, where the photographs are: `Chosen` as tensors of that device."""

    pixels: Tensor  # [R] int64
    weight: Tensor | None = None  # [R] float32
    bins: Tensor | None = None  # [R] int64
    importance: Tensor | None = None  # [R] float32


class Selection:
    """Pixels by place: what stands at the places of an order that the seed decides, or a part of it.

    A rank's batch uses up `places` of them. The choice is a function of the first place and of what was learned
    until now, nothing else, so that the stream of batches can go on from any position. It is called by a thread.
    """

    def __init__(self, order: Permutation, places: int) -> None:
        self.order, self.places = order, places

    def resize(self, rays: int) -> None:
        """Choose batches of so many rays from here on. It is not called while a thread chooses."""
        self.places = rays

    def choose(self, first: int) -> Chosen:
        """The batch whose places begin at `first` >= 0."""
        raise TypeError("a selection defines choose")

    def on_device(self, pixels: DevicePixels) -> Callable[[Tensor], ChosenOnDevice] | None:
        """`choose` where the photographs are: the same pixels, bit for bit, of a first place [1] int64 that lies there.

        It asks nothing of the host and is of static shapes, so that it can be recorded. From here on `learn` and the
        state are of that device too. None: there is no such form, and the host chooses.
        """
        return None

    def learn(self, bins: Tensor, error: Tensor) -> bool:
        """Take the mean squared color errors [R] of a batch's rays and their bins [R], on the same device.

        Called after every batch, by all ranks. Returns whether choices are others from here on: what was chosen ahead
        is then dropped.
        """
        return False

    def state_dict(self) -> dict[str, Any]:
        """What was learned, by all ranks: they must call it together."""
        return {}

    def load_state_dict(self, state: Entry, *, main: bool) -> None:
        """Go on from there. main: of the first rank, which keeps what ranks add up.

        Raises InputError for what no selection of this type has learned.
        """

    def upcoming(self, first: int) -> Int64:
        """[P] what stands at the P = `places` places of the batch that begins at `first`."""
        return self.order.stream(np.arange(first, first + self.places, dtype=np.int64))
