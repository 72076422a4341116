"""The tree of blocks, and the integer program by which it is planned: against HiGHS, and against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from models.encodings.octree import CHILDREN, Floats, Integers, Octree, children, first_nodes, parents
from models.encodings.tiling import MERGED, SPLIT, Costs, best_changes, expected


def grown(seed: int, deepest: int, leaves: int) -> Octree:
    """A tree in which leaves were split at random until there are about as many."""
    rng = np.random.default_rng(seed)
    tree = Octree.uniform(1, deepest)
    while len(tree) < leaves - CHILDREN and (tree.levels < deepest).any():
        change = np.zeros(len(tree), np.int64)
        change[rng.choice(np.flatnonzero(tree.levels < deepest))] = 1
        tree = tree.changed(change)
    return tree


def errors(tree: Octree, seed: int, known: float = 0.5) -> Floats:
    """Of all nodes, heavy-tailed; a share `known` of those that are no leaves was measured."""
    rng = np.random.default_rng(seed)
    count = first_nodes(tree.deepest)[-1]
    error = rng.exponential(size=count) ** 3
    error[rng.random(count) > known] = np.nan
    error[tree.nodes] = rng.exponential(size=len(tree)) ** 3
    return error


@pytest.mark.parametrize("seed", range(3))
def test_leaves_fill_the_cube_once(seed: int) -> None:
    tree = grown(seed, deepest=4, leaves=100)
    low = tree.centers() - tree.half_sides()[:, None]
    high = tree.centers() + tree.half_sides()[:, None]
    assert (high - low).prod(1).sum() == 8.0
    points = np.random.default_rng(seed).uniform(-1, 1, (500, 3))
    holds = ((points[:, None] >= low) & (points[:, None] < high)).all(2)
    assert (holds.sum(1) == 1).all()
    x, y, z = np.floor((points + 1) * 8).astype(int).T
    assert np.array_equal(tree.lattice()[x, y, z], holds.argmax(1))
    assert Octree.of(tree.levels, 4).levels is not None and len({*tree.nodes}) == len(tree)


def test_sums_over_leaves() -> None:
    tree = grown(3, deepest=3, leaves=60)
    cells = np.random.default_rng(0).random((8, 8, 8))
    wanted = [cells[tree.lattice() == leaf].sum() for leaf in range(len(tree))]
    np.testing.assert_allclose(tree.sums(cells), wanted, rtol=1e-12)


def test_parents_hold_their_children() -> None:
    tree = Octree.uniform(2, 3)
    above = Octree.uniform(1, 3)
    assert np.array_equal(children(above.nodes).flatten(), tree.nodes)
    assert np.array_equal(parents(tree.nodes), np.repeat(above.nodes, 8)) and parents(np.zeros(1, np.int64)) == -1
    distance = np.abs(tree.centers() - np.repeat(above.centers(), 8, 0))
    assert (distance == 0.25).all()
    assert np.array_equal(tree.families(), np.arange(0, 64, 8)) and len(Octree.uniform(0, 3).families()) == 0


def test_a_split_and_its_merge() -> None:
    tree = Octree.uniform(1, 2)
    finer = tree.changed(np.eye(8, dtype=np.int64)[3])
    assert finer.levels.tolist() == [1] * 3 + [2] * 8 + [1] * 4 and finer.families().tolist() == [3]
    assert np.array_equal(finer.changed(np.where(finer.levels == 2, -1, 0)).levels, tree.levels)
    for wrong in (np.where(finer.levels == 2, 1, 0), np.where(np.arange(15) < 8, -1, 0)):
        with pytest.raises(ValueError, match="only eight siblings"):
            finer.changed(wrong)


@pytest.mark.parametrize("levels", [[1] * 7, [1] * 9, [2] * 4 + [1] * 7 + [2] * 4, [3] * 512, [-1]])
def test_what_is_no_tree(levels: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fill the cube once"):
        Octree.of(levels, 2)


def by_highs(tree: Octree, costs: Costs, budget: int) -> float:
    """The optimum of the published program: binaries none, split, group for each leaf."""
    count, families = len(tree), tree.families()
    member = np.full(count, -1)
    for first in families:
        member[first : first + CHILDREN] = first
    equal, row = [], 0
    for leaf in range(count):
        family = range(member[leaf], member[leaf] + CHILDREN) if member[leaf] >= 0 else ()
        equal += [(row, leaf, 1.0), (row, count + leaf, 1.0)] + [(row, 2 * count + i, 1 / 8) for i in family]
        equal += [(row + 1, leaf, 1.0), (row + 1, count + leaf, 1.0), (row + 1, 2 * count + leaf, 1.0)]
        row += 2
    rows, columns, values = zip(*equal, strict=True)
    ones = LinearConstraint(coo_array((values, (rows, columns)), shape=(row, 3 * count)).tocsr(), 1, 1)
    blocks = np.repeat([1.0, CHILDREN, 1 / CHILDREN], count)
    allowed = np.concatenate([np.ones(count), np.isfinite(costs.split), member >= 0])
    cost = np.concatenate([costs.stay, np.where(np.isfinite(costs.split), costs.split, 0), costs.merge])
    found = milp(
        cost,
        constraints=[ones, LinearConstraint(blocks[None], -np.inf, budget)],
        bounds=Bounds(0, allowed),
        integrality=np.ones(3 * count, np.int64),
        options={"mip_rel_gap": 0},
    )
    assert found.success
    return float(found.fun)


def test_the_optimum_is_that_of_a_solver() -> None:
    """On a hundred random trees, with more or less of a budget, and of what was measured."""
    kinds = set()
    for seed in range(100):
        tree = grown(seed, deepest=3 + seed % 2, leaves=20 + seed)
        costs = expected(tree, errors(tree, seed, known=seed % 3 / 2))
        budget = len(tree) + [0, 10, 60, 500][seed % 4]
        change = best_changes(tree, costs, budget)
        after = tree.changed(change)
        assert len(after) <= budget and Octree.of(after.levels, tree.deepest)
        assert costs.total(change) == pytest.approx(by_highs(tree, costs, budget), rel=1e-6, abs=1e-6)
        kinds |= {*change.tolist()}
    assert kinds == {-1, 0, 1}


@pytest.mark.parametrize("seed", range(8))
def test_the_optimum_is_that_of_trying_everything(seed: int) -> None:
    tree = Octree.uniform(1, 2 + seed % 2)
    costs = expected(tree, errors(tree, seed, known=0.5))
    costs = Costs(costs.stay, costs.split, costs.merge / (1 + 20 * (seed > 3)))
    budget = 8 + 7 * (seed % 4) + seed % 3
    all_changes = [*itertools.product((0, 1), repeat=8), (-1,) * 8]
    fitting = [np.array(change) for change in all_changes if len(tree.changed(np.array(change))) <= budget]
    best = min(costs.total(change) for change in fitting)
    assert costs.total(best_changes(tree, costs, budget)) == pytest.approx(best, rel=1e-12)


def test_costs_by_hand() -> None:
    """Guessed where never measured; the parent's share for a merge, the children's sum for a split where they were."""
    tree = Octree.uniform(1, 2)
    error = np.full(73, np.nan)
    error[1:9] = np.arange(8.0)
    costs = expected(tree, error)
    np.testing.assert_allclose(costs.merge, MERGED * np.arange(8))
    np.testing.assert_allclose(costs.split, SPLIT * np.arange(8))
    error[0], error[9:17] = 16.0, 0.25
    costs = expected(tree, error)
    np.testing.assert_allclose(costs.merge, 2.0)
    np.testing.assert_allclose(costs.split, [2.0, *(SPLIT * np.arange(1, 8))])


def change_of(error: list[float], budget: int, deepest: int = 2) -> Integers:
    known = np.full(first_nodes(deepest)[-1], np.nan)
    known[1:9] = error
    tree = Octree.uniform(1, deepest)
    return best_changes(tree, expected(tree, known), budget)


def test_equal_costs_go_by_the_order_of_blocks() -> None:
    assert change_of([1.0] * 8, 8 + 2 * 7 + 6).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert change_of([0.0] * 8, 100).tolist() == [-1] * 8  # nobody sees them
    assert change_of([0.0] * 7 + [1.0], 100).tolist() == [0] * 7 + [1]
    assert change_of([1.0] * 8, 100, deepest=1).tolist() == [0] * 8  # there is no deeper level


def test_no_plan_exceeds_its_budget() -> None:
    """Plan after plan, by errors that wander."""
    tree, known = Octree.uniform(2, 5), np.full(first_nodes(5)[-1], np.nan)
    for seed in range(20):
        known[tree.nodes] = np.random.default_rng(seed).exponential(size=len(tree)) ** 3
        tree = tree.changed(best_changes(tree, expected(tree, known), 256))
        assert 249 < len(tree) <= 256 or seed < 2
    assert tree.levels.max() == 5 and tree.levels.min() <= 3
    with pytest.raises(ValueError, match="expected at most 100"):
        best_changes(tree, expected(tree, known), 100)
