"""Every pixel once per epoch."""

from __future__ import annotations

from typing import Literal

from dataio.pictures.pixel_store import PixelStore
from dataio.selection.base import Chosen, Selection, SelectionConfig
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
