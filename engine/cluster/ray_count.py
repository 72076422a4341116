"""How many rays a step has: always the same, or as many as keep about the samples that were asked for."""

from __future__ import annotations

from typing import Any

import torch

from engine.cluster.shares import share_of
from engine.experiment import MOST_RAYS, ExperimentConfig
from models.capacity import FIT_EVERY
from models.objective import Report
from utils.distributed import Ranks, sum_across_ranks
from utils.entries import Entry

NEAR = 1 / 8  # of the samples that were asked for: as near, the number of rays stays
DIGITS = 5  # binary ones of a number of rays: it has few sizes, and each is within 1/32 of what was meant


class RayCount:
    """The rays of a step, as ranks share them out, and how many there have been.

    With `train.samples` their number is chosen before every step in which capacities are fitted, on all ranks alike, by
    the samples of a ray since the last choice; the first steps take one that is surely small. Coarse numbers, and none
    that is near enough is changed: each change has a recorded step recorded anew.
    """

    def __init__(self, config: ExperimentConfig, ranks: Ranks) -> None:
        """Raises InputError where there are fewer rays, or patches, than ranks."""
        self._config, self._ranks = config, ranks
        self.samples = config.train.samples
        self.rays = config.train.first_rays  # as train.rays says them: of all ranks, or of each
        self.share = share_of(config, ranks, rays=self.rays)
        self.taken = 0  # rays of all ranks in the steps before
        # Samples and rays of this rank since the last choice: whole numbers, whose sums are exact.
        self._counted = torch.zeros(2, dtype=torch.float64, device=ranks.device)

    def count(self, report: Report) -> None:
        """Count a step that was taken; does not synchronize. One that overflowed lacks samples, and says nothing."""
        self.taken += self.share.total
        if self.samples is not None:
            own = torch.stack([report.samples, torch.full_like(report.samples, self.share.own)])
            self._counted += own * ~report.overflowed

    def chosen(self, step: int) -> bool:
        """Choose where it is due before a step, all ranks together; whether the number of rays is another one now.

        Synchronizes where it is due.
        """
        if self.samples is None or step % FIT_EVERY:
            return False
        samples, rays = sum_across_ranks(self._counted).tolist()
        self._counted.zero_()
        before, each = self.rays, max(samples / max(rays, 1.0), 1.0)
        if not rays or abs(each * before / self.samples - 1) <= NEAR:
            return False
        self._take(coarse(self.samples / each, self._config.train.patch_area))
        return self.rays != before

    def _take(self, rays: int) -> None:
        """Steps of so many rays, or of the fewest that give every rank some."""
        area, several = self._config.train.patch_area, self._config.distributed.rays == "run"
        self.rays = max(rays, area * (self._ranks.world if several else 1))
        self.share = share_of(self._config, self._ranks, rays=self.rays)

    def state_dict(self) -> dict[str, Any] | None:
        """What a run goes on from; None where the number is always the same. All ranks together."""
        if self.samples is None:
            return None
        samples, rays = sum_across_ranks(self._counted).tolist()
        return {"rays": self.rays, "taken": self.taken, "counted": [samples, rays]}

    def load_state_dict(self, state: Entry, step: int) -> None:
        """Go on before a step, whatever the number of ranks was. state: nothing, where the number was always the same.

        Raises InputError for what is no such state.
        """
        self.taken = step * self.share.total
        if self.samples is None or state.missing:
            return
        area = self._config.train.patch_area
        rays, self.taken = state["rays"].whole(area, MOST_RAYS), state["taken"].whole()
        if rays % area:
            raise state["rays"].refused(f"a multiple of {area}, the pixels of a patch")
        counted = state["counted"].numbers(2, 0.0, 2.0**53)
        self._take(rays)
        self._counted.copy_(torch.tensor(counted if self._ranks.is_main else [0.0, 0.0], dtype=torch.float64))

    @property
    def own_samples(self) -> int | None:
        """Those that a step of this rank keeps, about; None where no number was asked for."""
        return None if self.samples is None else round(self.samples * self.share.own / self.rays)

    def measures(self) -> dict[str, float]:
        """For the log: how many rays a step of all ranks has, where that changes."""
        return {} if self.samples is None else {"perf/rays_per_step": float(self.share.total)}


def coarse(rays: float, area: int) -> int:
    """A number near `rays` >= 0 of few sizes: at least one patch of `area` rays, in whole ones."""
    patches = max(rays / area, 1.0)
    step = 1 << max(int(patches).bit_length() - DIGITS, 0)
    return min(round(patches / step) * step * area, MOST_RAYS // area * area)
