"""Rows of a field's tables that no ray sees: found from the weights of training rays, dropped at shares of the run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.encodings.growth import Grow, due
from models.encodings.linked_voxels import LinkedVoxels, LinkedVoxelsConfig
from models.feedback import Feedback
from utils.config.parts import StrictModel


class PruneConfig(StrictModel):
    """When rows are dropped, and which."""

    at: Grow = Field(description="progresses at which rows are dropped")
    window: float = Field(0.05, gt=0, lt=1, description="share of the run before, in which weights are observed")
    weight: float = Field(1e-3, gt=0, lt=1, description="rows seen with less than this are dropped")
    dilate: int = Field(1, ge=0, le=4, description="corners about those that are seen which stay too")

    @model_validator(mode="after")
    def _windows_apart(self) -> PruneConfig:
        for before, at in zip((0.0, *self.at), self.at, strict=False):
            if at - self.window < before:
                raise ValueError(f"window: {self.window:g} before {at:g} begins before {before:g}; expected less")
        return self

    def check(self, parts: dict[str, LinkedVoxelsConfig]) -> None:
        """Raises ValueError for encodings, by their keys, that grow apart, or while they are observed."""
        if len({(part.cells, part.grow, part.growth) for part in parts.values()}) > 1:
            raise ValueError(f"prune: {' and '.join(parts)} differ in cells, grow or growth; expected the same")
        grow = next(iter(parts.values())).grow
        if within := [g for at in self.at for g in grow if at - self.window < g < at]:
            raise ValueError(f"prune: grows at {within[0]:g}, while weights are observed; expected outside of windows")

    def build(self, encoding: LinkedVoxels) -> Pruning:
        """For encodings that grow as `encoding` does."""
        return Pruning(self, max(encoding.sides[due(encoding.grow, at - self.window)][0] for at in self.at))


class Pruning(nn.Module):
    """Observes weights before each of the progresses at which rows are dropped.

    A corner's weight is the largest of a sample of a training ray in one of the eight cells about it, as where each
    sample's weight is spread to the corners of its cell. Fridovich-Keil, Yu et al., "Plenoxels" (2022), section 3.3.

    events: how many beginnings and ends of windows are over. watched: the cells on each axis that are observed. Both
    are state, with what is observed.
    """

    events: Tensor
    watched: Tensor

    def __init__(self, config: PruneConfig, cells: int) -> None:
        """cells: on each axis, the most at any of the progresses."""
        super().__init__()
        self.weight, self.dilate, self.most = config.weight, config.dilate, cells
        self.times = tuple(time for at in config.at for time in (at - config.window, at))
        self.feedback = Feedback(cells, sums=False)
        self.register_buffer("events", torch.zeros((), dtype=torch.int64))
        self.register_buffer("watched", torch.ones((), dtype=torch.int64))
        self._over, self.feedback.listening = 0, False

    def refresh(self, progress: float, encodings: Sequence[LinkedVoxels]) -> None:
        """Observe from the beginning of a window on, prune at its end; the same on all ranks."""
        if self.feedback.listening and self.feedback.resolution != encodings[0].cells:
            self._watch(encodings[0])  # it grew in the step in which the window began
        while self._over < len(self.times) and progress >= self.times[self._over]:
            if self.feedback.listening:
                self._prune(encodings)
            self._over += 1
            self.events.fill_(self._over)
            self.feedback.listening = self._over % 2 == 1  # every second event ends a window
            self._watch(encodings[0])

    def resume(self, encodings: Sequence[LinkedVoxels]) -> None:
        """Go on as the state says, after it was loaded. Raises ValueError for one that cannot be."""
        self._over, watched = int(self.events), int(self.watched)
        if not (0 <= self._over <= len(self.times) and 1 <= watched <= self.most):
            most = f"{len(self.times)} events and {self.most} cells"
            raise ValueError(f"pruning after {self._over} events, {watched} cells - expected at most {most}")
        self.feedback.listening = self._over % 2 == 1
        self.feedback.watch(watched, encodings[0].box)

    def _watch(self, encoding: LinkedVoxels) -> None:
        self.watched.fill_(min(encoding.cells, self.most))
        self.feedback.watch(min(encoding.cells, self.most), encoding.box)
        self.feedback.reset()

    def _prune(self, encodings: Sequence[LinkedVoxels]) -> None:
        """Nothing is dropped where nothing was observed, as in a run of a few steps."""
        weights = self.feedback.weights()
        if weights.any():
            seen = at_corners(weights.permute(2, 1, 0), self.dilate)
            for encoding in encodings:
                encoding.prune(seen, self.weight)


def at_corners(weights: Tensor, dilate: int) -> Tensor:
    """[n, n, n] >= 0 of cells -> [n + 1, n + 1, n + 1]: the largest of the cells about a corner.

    dilate: also of those about corners which are so many steps away, on each axis.
    """
    reach = 1 + 2 * dilate
    around = F.pad(weights[None, None], (1,) * 6)
    return F.max_pool3d(F.max_pool3d(around, 2, 1), reach, 1, dilate)[0, 0]
