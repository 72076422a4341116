"""What choices by a score share: some pixels are drawn from more candidates, each with a known probability."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dataio.pictures.pixel_store import Int64, PixelStore
from dataio.selection.base import Chosen, Selection, SelectionConfig
from dataio.selection.permutation import Permutation

Float64 = npt.NDArray[np.float64]


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

    def score(self, pixels: Int64) -> tuple[Float64, Int64 | None]:
        """Scores [M] >= 0 of candidates [M], in any unit; and the bins [M] under which their errors are learned."""
        raise TypeError("a choice by score defines it")

    def choose(self, first: int) -> Chosen:
        candidates = self.upcoming(first)
        scores, bins = self.score(candidates)
        chance = inclusion(scores, self.config.uniform, self.rays)
        start = np.random.default_rng((self.seed % 2**64, first)).random()
        chosen = systematic(chance, start, self.rays)
        importance = (self.rays / (len(candidates) * chance[chosen])).astype(np.float32)
        weight = importance if self.config.unbiased else None
        return Chosen(candidates[chosen], weight, None if bins is None else bins[chosen], importance)


def inclusion(scores: Float64, uniform: float, count: int) -> Float64:
    """[M] the probability of each to be among the `count` <= M chosen ones: the mixture of both, at most 1.

    scores: [M] >= 0; all zero counts as all equal. The sum of the result is `count`.
    """
    total = scores.sum()
    relative = scores / total if total > 0 else np.full(len(scores), 1 / len(scores))
    relative = uniform / len(scores) + (1 - uniform) * relative
    sure = np.zeros(len(scores), dtype=bool)
    while True:  # what is certain leaves its surplus to the others, of which some may then be certain too
        rest = count - np.count_nonzero(sure)
        chance = np.where(sure, 1.0, relative * (rest / max(relative[~sure].sum(), 1e-300)))
        above = chance > 1
        if not above.any():
            return chance
        sure |= above


def systematic(chance: Float64, start: float, count: int) -> Int64:
    """`count` different places in 0 .. M-1, in order, each with the probability chance [M] <= 1, their sum is `count`.

    start: in [0, 1), the only random number. Systematic sampling, Madow (1949).
    """
    places = np.searchsorted(np.cumsum(chance), start + np.arange(count), side="right")
    return np.minimum(places, len(chance) - 1)
