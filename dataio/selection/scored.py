"""What choices by a score share: some pixels are drawn from more candidates, each with a known probability.

Scores, shares and probabilities are whole numbers, so that no sum depends on its order, and a GPU finds the very same
pixels (`models.kernels.pixels.systematic`). Floating-point numbers are multiplied and divided here, never added up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import Field
from torch import Tensor

from dataio.pictures.device_pixels import DevicePixels
from dataio.pictures.pixel_store import Int64, PixelStore
from dataio.selection.base import Chosen, ChosenOnDevice, Selection, SelectionConfig
from dataio.selection.permutation import Permutation, random_number

LARGEST_SCORE = 2**30
SHARE = 2**30  # of one in the mean
CERTAIN = 2**38  # the probability 1

# Scores [M] int64 of candidates [M] int64, and their bins [M] int64 or None.
DeviceScorer = Callable[[Tensor], tuple[Tensor, Tensor | None]]


class ScoredConfig(SelectionConfig):
    """Some pixels out of more candidates, the more likely the higher their score."""

    candidates: int = Field(4, ge=1, le=64, description="pixels that are scored, per ray")
    uniform: float = Field(0.5, gt=0, le=1, description="share of the probability that does not ask for the score")
    unbiased: bool = Field(False, description="weigh rays by 1 / relative probability, as if pixels were uniform")


class Scored(Selection):
    """The next candidates of the order that visits every pixel once per epoch, thinned out by their scores.

    A candidate is chosen with a probability proportional to uniform / M + (1 - uniform) score / (sum of scores), M the
    candidates, cut to 1; none is chosen twice. With weights, a batch's mean is in expectation its candidates' mean.
    """

    def __init__(self, config: ScoredConfig, store: PixelStore, *, rays: int, seed: int) -> None:
        super().__init__(Permutation(len(store), seed), config.candidates * rays)
        self.config, self.store, self.rays, self.seed = config, store, rays, seed

    def resize(self, rays: int) -> None:
        self.rays, self.places = rays, self.config.candidates * rays

    def score(self, pixels: Int64) -> tuple[Int64, Int64 | None]:
        """Scores [M] of candidates [M], 0 to LARGEST_SCORE, and the bins [M] under which their errors are learned."""
        raise TypeError("a choice by score defines it")

    def choose(self, first: int) -> Chosen:
        candidates = self.upcoming(first)
        scores, bins = self.score(candidates)
        chance = inclusion(shares(scores, self.config.uniform), self.rays)
        chosen = systematic(chance, random_number(self.seed, first), self.rays)
        importance = (self.rays / (len(candidates) * (chance[chosen] / CERTAIN))).astype(np.float32)
        weight = importance if self.config.unbiased else None
        return Chosen(candidates[chosen], weight, None if bins is None else bins[chosen], importance)

    def scorer(self, pixels: DevicePixels) -> DeviceScorer | None:
        """`score` where the photographs are, number for number; None: the host chooses."""
        return None

    def on_device(self, pixels: DevicePixels) -> Callable[[Tensor], ChosenOnDevice] | None:
        scorer, keys, kernels = self.scorer(pixels), self.config, pixels.kernels
        if scorer is None:
            return None

        def choose(first: Tensor) -> ChosenOnDevice:
            candidates = self.order.on_device(kernels, first, self.places)
            scores, bins = scorer(candidates)
            chosen, importance = kernels.systematic(scores, first, self.rays, uniform=keys.uniform, seed=self.seed)
            weight = importance if keys.unbiased else None
            bins = None if bins is None else bins[chosen]
            return ChosenOnDevice(candidates[chosen], weight, bins, importance)

        return choose


def shares(scores: Int64, uniform: float) -> Int64:
    """[M] >= 1, what each one's probability is proportional to: the mixture of the same for all and of its score.

    scores: [M], 0 to LARGEST_SCORE; all zero counts as all equal. uniform: in (0, 1]. A mean share is SHARE.
    """
    per_score = (1 - uniform) * SHARE * len(scores) / max(int(scores.sum()), 1)
    return np.asarray(max(int(uniform * SHARE), 1) + (scores * per_score).astype(np.int64))


def inclusion(share: Int64, count: int) -> Int64:
    """[M] the probability of each to be among the `count` <= M chosen ones, in units of 1 / CERTAIN.

    share: [M] >= 1, what it is proportional to below 1. The sum of the result is `count`, but for less than M units.
    """
    total, sure = int(share.sum()), 0
    rest, left = count, total
    while True:  # what is certain leaves its surplus to the others, of which some may then be certain too
        above = share > left // rest
        now = int(np.count_nonzero(above))
        if now == sure:
            chance = (share * (rest * float(CERTAIN) / left)).astype(np.int64)
            return np.where(above, CERTAIN, chance) if sure else chance
        sure, rest, left = now, count - now, total - int(share[above].sum())


def systematic(chance: Int64, start: float, count: int) -> Int64:
    """`count` different places in 0 .. M-1, in order, each with the probability chance [M] / CERTAIN <= 1.

    chance: its sum is that of `count` certain ones, or a little less. start: in [0, 1), the only random number.
    Systematic sampling, Madow (1949).
    """
    ends = np.cumsum(chance)
    room = min(int(ends[-1]) - (count - 1) * CERTAIN, CERTAIN)
    first = int(start * room)
    return np.searchsorted(ends, first + CERTAIN * np.arange(count, dtype=np.int64), side="right")
