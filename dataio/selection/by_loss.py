"""Pixels where the model was wrong when it was last evaluated there."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dataio.pictures.device_pixels import DevicePixels, PixelKernels
from dataio.pictures.pixel_store import Int64, PixelStore
from dataio.selection.base import Selection
from dataio.selection.scored import DeviceScorer, Scored, ScoredConfig
from utils.distributed import sum_across_ranks
from utils.entries import Entry

# Errors are added up as whole numbers: exact, so that neither the order of a GPU's threads, nor the number of ranks,
# nor a checkpoint in between makes a difference. 2^-32 of full scale; a sum holds 2^27 errors of the largest size.
UNIT, LARGEST = 2.0**-32, 16.0
UNSEEN = -1.0
SCORE = 2**28  # units of the score, per root mean squared error, which is at most 4


class LossSelection(ScoredConfig):
    """More of the pixels where the color is wrong: the score is the error that was last seen around the pixel."""

    type: Literal["loss"] = "loss"
    cell: int = Field(16, ge=1, description="errors are kept for squares of so many pixels")
    every: int = Field(256, ge=1, description="steps after which the errors seen since then begin to count")
    keep: float = Field(0.5, ge=0, lt=1, description="share of a cell's error that stays where it was seen again")

    def build(self, store: PixelStore, *, rays: int, seed: int) -> Selection:
        return ByLoss(self, store, rays=rays, seed=seed)


class ByLoss(Scored):
    """Scored by a coarse map per view, which changes every `every` steps only: between, choices can be made ahead."""

    def __init__(self, config: LossSelection, store: PixelStore, *, rays: int, seed: int) -> None:
        super().__init__(config, store, rays=rays, seed=seed)
        self.cell, self.every, self.keep = config.cell, config.every, config.keep
        rows, self._wide = (-(-store.shapes // self.cell)).T
        self._start = np.concatenate([[0], np.cumsum(rows * self._wide)])
        cells = int(self._start[-1])
        self.errors = torch.full((cells,), UNSEEN)  # [cells] mean squared; of all views
        self._scores = torch.full((cells,), SCORE, dtype=torch.int64)
        self._sums = torch.zeros(2, cells, dtype=torch.int64)  # of errors, in units; their number
        self._steps = 0  # since the map changed
        self._kernels: PixelKernels | None = None  # where the photographs are on a device, and the map with them

    def bins(self, pixels: Int64) -> Int64:
        """[M] the cells of pixels [M]."""
        view, row, column = self.store.locate(pixels)
        return np.asarray(self._start[view] + row // self.cell * self._wide[view] + column // self.cell)

    def score(self, pixels: Int64) -> tuple[Int64, Int64]:
        """[M] root mean squared errors last measured around pixels [M], and their cells [M]; see `Scored.score`."""
        bins = self.bins(pixels)
        return self._scores.numpy()[bins], bins

    def scorer(self, pixels: DevicePixels) -> DeviceScorer:
        """See `Scored.scorer`; the map moves there."""
        self._kernels = pixels.kernels
        self.errors, self._scores, self._sums = (x.to(pixels.device) for x in (self.errors, self._scores, self._sums))
        grids = torch.from_numpy(np.stack([self._start[:-1], self._wide], axis=1)).to(pixels.device)

        def score(candidates: Tensor) -> tuple[Tensor, Tensor]:
            bins = pixels.kernels.cells(candidates, pixels.layout, grids, side=self.cell)
            return self._scores[bins], bins

        return score

    def learn(self, bins: Tensor, error: Tensor) -> bool:
        """Add errors [R] to their cells [R]; all ranks add up every `every` steps; see `Selection.learn`."""
        if self._sums.device != error.device:
            self._sums = self._sums.to(error.device)
        if self._kernels is None:
            known = torch.isfinite(error)
            units = (error.detach().nan_to_num(0.0).clamp(0.0, LARGEST) / UNIT).to(torch.int64) * known
            self._sums.index_add_(1, bins, torch.stack([units, known.to(torch.int64)]))
        else:
            self._kernels.add_errors(self._sums, bins, error.detach(), unit=UNIT, largest=LARGEST)
        self._steps += 1
        if self._steps < self.every:
            return False
        self._fold(sum_across_ranks(self._sums).to(self.errors.device))
        self._sums.zero_()
        self._steps = 0
        return True

    def _fold(self, sums: Tensor) -> None:
        """Let new errors, [2, cells] sums and counts, into the map."""
        mean = (sums[0].double() * UNIT / sums[1].clamp_min(1).double()).float()
        mixed = torch.where(self.errors == UNSEEN, mean, self.keep * self.errors + (1 - self.keep) * mean)
        self._use(torch.where(sums[1] > 0, mixed, self.errors))

    def _use(self, errors: Tensor) -> None:
        # In place: a recorded step reads this memory. What a thread has chosen by numbers of both kinds is dropped.
        self.errors.copy_(errors)
        seen = errors != UNSEEN
        count, total = seen.sum(), ((errors.double() / UNIT).to(torch.int64) * seen).sum()
        usual = torch.where(count > 0, total.double() * UNIT / count.clamp_min(1).double(), 1.0)
        self._scores.copy_((torch.where(seen, errors.double(), usual).sqrt() * SCORE).to(torch.int64))

    def state_dict(self) -> dict[str, Any]:
        sums = sum_across_ranks(self._sums).cpu()
        return {"errors": self.errors.cpu().clone(), "sums": sums, "steps": self._steps}

    def load_state_dict(self, state: Entry, *, main: bool) -> None:
        """See `Selection.load_state_dict`."""
        errors = state["errors"].tensor((None,), torch.float32)
        sums = state["sums"].tensor((2, len(errors)), torch.int64)
        steps = state["steps"].whole()
        if errors.shape != self.errors.shape:
            return  # of other cells: a config that was changed on purpose
        self._use(torch.where(errors >= 0, errors.clamp_max(LARGEST), UNSEEN).to(self.errors.device))
        self._sums.copy_(sums if main else torch.zeros_like(sums))
        self._steps = steps
