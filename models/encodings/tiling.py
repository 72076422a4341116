"""Where blocks of an octree should lie: the integer program of ACORN, solved exactly.

Martel et al., "ACORN: Adaptive Coordinate Networks for Neural Scene Representation" (2021), section 3.2: each block
stays as it is, is split into eight, or is merged with its seven siblings, at the least total cost within a budget of
blocks. A split costs seven blocks and a merge frees seven, so the program is a knapsack of equal weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.encodings.octree import CHILDREN, Floats, Integers, Octree, children, parents

SPLIT = 1 / 8 - 0.02  # of the error is left by a split that was never tried
MERGED = 8 + 0.2  # times the error comes of a merge that was never tried


@dataclass(frozen=True)
class Costs:
    """What is expected of each leaf [K]: if it stays, if it is split (inf where it cannot be), if it is merged.

    merge: shares of what a family as a whole would cost.
    """

    stay: Floats
    split: Floats
    merge: Floats

    def total(self, change: Integers) -> float:
        """The cost of changes [K], as of `Octree.changed`."""
        return float(np.select([change == 1, change == -1], [self.split, self.merge], self.stay).sum())


def expected(tree: Octree, error: Floats) -> Costs:
    """The published costs.

    error: [all nodes], what each contributed to the error when it was last a leaf, NaN for never; the leaves' own are
    known. Where a parent was one, or all the children, a merge or a split costs what they did, else what is guessed.
    """
    stay, above = error[tree.nodes], parents(tree.nodes)
    merge = np.where(above < 0, np.nan, error[above]) / CHILDREN
    split = np.full(len(tree), np.inf)
    deep = tree.levels < tree.deepest
    split[deep] = _known(error[children(tree.nodes[deep])].sum(1), SPLIT * stay[deep])
    return Costs(stay, split, _known(merge, MERGED * stay))


def _known(measured: Floats, guessed: Floats) -> Floats:
    """What was measured, and where it was not (NaN) what is guessed."""
    return np.where(np.isnan(measured), guessed, measured)


def best_changes(tree: Octree, costs: Costs, budget: int) -> Integers:
    """[K] changes, as of `Octree.changed`, of the least total cost that leave at most `budget` leaves.

    Exact, by a dynamic program over families: each merges, which frees a unit of seven blocks, or splits its best k,
    which takes k; the other leaves do the latter. Of equal costs fewer units win, then earlier leaves.
    Raises ValueError for more leaves than the budget to begin with.
    """
    if len(tree) > budget:
        raise ValueError(f"{len(tree)} blocks - expected at most {budget}")
    units = (budget - len(tree)) // (CHILDREN - 1)
    families = tree.families()
    members = families[:, None] + np.arange(CHILDREN)
    single = np.setdiff1d(np.arange(len(tree)), members)
    gain = costs.split - costs.stay  # negative where a split helps
    options = np.array([_options(gain[own], (costs.merge[own] - costs.stay[own]).sum()) for own in members])
    alone = np.concatenate([[0.0], np.sort(gain[single])]).cumsum()
    taken = _least(options.reshape(-1, CHILDREN + 2), alone, units)
    change = np.zeros(len(tree), np.int64)
    for own, count in zip(members, taken[:-1], strict=True):
        change[own] = -1 if count < 0 else 0
        _split(change, own, gain, count)
    _split(change, single, gain, taken[-1])
    return change


def _options(gain: Floats, merge: float) -> Floats:
    """[10] costs of a family of gains [8] by the units it takes, -1 to 8, over that of doing nothing."""
    return np.concatenate([[merge, 0.0], np.sort(gain).cumsum()])


def _split(change: Integers, leaves: Integers, gain: Floats, count: int) -> None:
    """Split the `count` of `leaves` that gain the most; of equal ones the earlier."""
    if count > 0:
        change[leaves[np.argsort(gain[leaves], kind="stable")[:count]]] = 1


def _least(options: Floats, alone: Floats, units: int) -> list[int]:
    """The units that each family, and all other leaves together, take, at most `units` in sum, at the least cost.

    options: [G, 10] as of `_options`. alone: [S + 1] costs of the other leaves by units, from none on.
    """
    best, choices = np.zeros(1), []  # best[i]: the least cost of the families so far that take i - their number units
    for costs in options:
        table = np.full((len(costs), len(best) + len(costs) - 1), np.inf)
        for k, cost in enumerate(costs):
            table[k, k : k + len(best)] = best + cost
        choices.append(table.argmin(0))
        best = table.min(0)
    left = units + len(options) - np.arange(len(best))  # for the others
    most = np.minimum.accumulate(alone)
    total = np.where(left >= 0, best + most[np.clip(left, 0, len(most) - 1)], np.inf)
    place = int(total.argmin())
    taken = [int(alone[: left[place] + 1].argmin())]
    for choice in reversed(choices):
        option = int(choice[place])
        taken.append(option - 1)
        place -= option
    return taken[::-1]
