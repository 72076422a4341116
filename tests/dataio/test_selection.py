"""Which pixels are drawn: with the promised probabilities, without bias where promised, and again after a stop."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataio.batches import PixelSampler, PixelStore, RayBatch
from dataio.selection.base import SelectionConfig
from dataio.selection.by_gradient import ByGradient, GradientSelection, gradient
from dataio.selection.by_loss import UNSEEN, ByLoss, LossSelection
from dataio.selection.patches import PatchSelection
from dataio.selection.permutation import Permutation
from dataio.selection.scored import CERTAIN, LARGEST_SCORE, inclusion, shares, systematic
from dataio.selection.uniform import UniformSelection
from tests.dataio.test_batches import equal, identity, made_scene
from tests.support.two_ranks import said_by_two_ranks
from utils.errors import InputError

PIXELS = 7 * 5 + 4 * 9 + 3 * 3  # of the training views of the made scene: 80
SELECTIONS: dict[str, SelectionConfig] = {
    "uniform": UniformSelection(),
    "gradient": GradientSelection(unbiased=True),
    "loss": LossSelection(cell=2, every=5, unbiased=True),
    "patches": PatchSelection(side=3),
}
each_selection = pytest.mark.parametrize("name", SELECTIONS)


def store_of(views: tuple[int, ...] = (0, 1, 3)) -> PixelStore:
    return PixelStore(made_scene(), np.array(views))


def test_uniform_is_the_order_itself() -> None:
    store, order = store_of(), Permutation(PIXELS, 5)
    with PixelSampler(made_scene(), rays=8, seed=5, pixels=UniformSelection(), before=8, total=16) as sampler:
        for first in (8, 24, 40):
            batch, truth = next(sampler), store.gather(order.stream(np.arange(first, first + 8)), 0)
            assert torch.equal(batch.color, truth.color.float() / 255) and batch.weight is None and batch.patch is None
            assert torch.equal(batch.rays.camera, truth.camera)


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0.01, 1), st.integers(0, 2**32))
def test_probabilities_sum_to_the_count_and_follow_the_scores(
    count: int, ratio: int, uniform: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    exact = random.exponential(size=count * ratio) ** 3 * (random.random(count * ratio) < 0.7)
    scores = (exact / max(exact.max(), 1e-300) * LARGEST_SCORE).astype(np.int64)
    share = shares(scores, uniform)
    wanted = uniform / len(scores) + (1 - uniform) * scores / max(scores.sum(), 1)
    np.testing.assert_allclose(share / share.sum(), wanted / wanted.sum(), rtol=1e-6)
    chance = inclusion(share, count) / CERTAIN
    assert chance.sum() == pytest.approx(count) and chance.min() > 0 and chance.max() <= 1
    below = chance < 1
    if below.any() and scores.any():
        factor = chance[below] / share[below]
        np.testing.assert_allclose(factor, factor[0], rtol=1e-6)
        assert np.all(share[~below] * factor[0] >= 1 - 1e-6)  # only what would have been above is certain
    for start in (0.0, random.random(), 1 - 2.0**-53):
        chosen = systematic(inclusion(share, count), start, count)
        assert len(chosen) == len(set(chosen)) == count and np.all(np.diff(chosen) > 0) and chosen[-1] < len(share)


def test_systematic_choice_has_the_probabilities() -> None:
    """Exactly: over all starts, each place is chosen for a share of them that is its probability."""
    scores = (1e6 * np.random.default_rng(0).exponential(size=30) ** 2).astype(np.int64)
    chance = inclusion(shares(scores, 0.2), 9)
    counts = np.zeros(30)
    for start in (np.arange(20_000) + 0.5) / 20_000:
        counts[systematic(chance, start, 9)] += 1
    np.testing.assert_allclose(counts / 20_000, chance / CERTAIN, atol=1e-4)


def test_the_gradient_is_that_of_the_picture() -> None:
    scene, store = made_scene(), store_of()
    for number, view in enumerate((0, 1, 3)):
        picture = np.pad(scene.images[view].astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
        across, down = picture[1:-1, 2:] - picture[1:-1, :-2], picture[2:, 1:-1] - picture[:-2, 1:-1]
        truth = np.sqrt((across**2 + down**2).sum(-1)).ravel()
        pixels = np.arange(store.start[number], store.start[number + 1])
        np.testing.assert_allclose(gradient(store, pixels), truth)
        row, column = np.divmod(np.arange(len(pixels)), picture.shape[1] - 2)
        assert np.array_equal(store.number(np.full_like(row, number), row, column), pixels)


def test_frequencies_are_the_probabilities() -> None:
    """Every batch has all pixels as candidates, each time in another order: within five standard errors."""
    store, batches = store_of(), 2000
    selection = GradientSelection(candidates=4, uniform=0.3).build(store, rays=PIXELS // 4, seed=1)
    assert isinstance(selection, ByGradient)
    scores = (1000 * gradient(store, np.arange(PIXELS))).astype(np.int64)
    truth = inclusion(shares(scores, 0.3), PIXELS // 4) / CERTAIN
    counts = np.zeros(PIXELS)
    for batch in range(batches):
        counts[selection.choose(batch * selection.places).pixels] += 1
    error = np.sqrt(truth * (1 - truth) / batches)
    assert np.abs(counts / batches - truth).max() < 5 * error.max() and truth.max() > 2 * truth.min()


def pattern(store: PixelStore, pixels: np.ndarray) -> np.ndarray:
    """A made-up squared error: large in the upper left corner of each picture."""
    _, row, column = store.locate(pixels)
    return np.where((row < 2) & (column < 2), 0.64, 0.01).astype(np.float32)


def taught(selection: ByLoss, steps: int) -> int:
    """Let a selection see the pattern for some batches; returns the position after them."""
    for step in range(steps):
        chosen = selection.choose(step * selection.places)
        assert chosen.bins is not None
        error = torch.from_numpy(pattern(selection.store, chosen.pixels))
        changed = selection.learn(torch.from_numpy(chosen.bins), error)
        assert changed == (step % selection.every == selection.every - 1)
    return steps * selection.places


def by_loss(**keys: Any) -> ByLoss:
    selection = LossSelection.model_validate({"cell": 2, "every": 10, **keys}).build(store_of(), rays=10, seed=2)
    assert isinstance(selection, ByLoss)
    return selection


def test_the_map_of_errors_becomes_the_errors_and_they_are_drawn_more() -> None:
    selection = by_loss(uniform=0.2)
    assert set(selection.errors.tolist()) == {UNSEEN}
    assert len(selection.errors) == 3 * 4 + 5 * 2 + 2 * 2  # cells of 2 x 2
    first = taught(selection, 40)
    pixels = np.arange(PIXELS)
    np.testing.assert_allclose(selection.errors[selection.bins(pixels)], pattern(selection.store, pixels), rtol=1e-6)
    hard = pattern(selection.store, pixels) > 0.1
    counts, batches = np.zeros(PIXELS), 800
    for batch in range(batches):
        counts[selection.choose(first + batch * selection.places).pixels] += 1
    # 12 of 80 pixels are eight times as wrong, by the root: 0.2 / 80 + 0.8 * 8 / (12 * 8 + 68) over the same with 1.
    expected = (0.2 / 80 + 0.8 * 8 / 164) / (0.2 / 80 + 0.8 / 164)
    assert hard.sum() == 12 and counts[hard].mean() / counts[~hard].mean() == pytest.approx(expected, rel=0.1)


def test_the_map_forgets_and_passes_over_what_is_not_finite() -> None:
    selection = by_loss(every=1, keep=0.75)
    bins = torch.zeros(4, dtype=torch.int64)
    for error, truth in ((0.5, 0.5), (0.1, 0.4), (float("nan"), 0.4), (float("inf"), 0.4)):
        assert selection.learn(bins, torch.full((4,), error))
        assert selection.errors[0] == pytest.approx(truth) and set(selection.errors[1:].tolist()) == {UNSEEN}


@pytest.mark.parametrize("kind", ["gradient", "loss"])
def test_weighted_means_are_the_plain_ones(kind: str) -> None:
    """Of any function of pixels, also one that goes with the score; the unweighted means are far off."""
    keys = {"unbiased": True, "uniform": 0.2, "candidates": 3}
    store, first = store_of(), 0
    selection = GradientSelection.model_validate(keys).build(store, rays=10, seed=3)
    score = gradient(store, np.arange(PIXELS))
    if kind == "loss":
        selection = by_loss(**keys)
        first, score = taught(selection, 30), pattern(store, np.arange(PIXELS))
    functions = np.stack([np.random.default_rng(0).random(PIXELS), score / score.max(), np.ones(PIXELS)], axis=1)
    weighted, plain = [], []
    for batch in range(1500):
        chosen = selection.choose(first + batch * selection.places)
        assert chosen.weight is not None and chosen.weight.max() <= 1 / 0.2 + 1e-6
        weighted.append((functions[chosen.pixels] * chosen.weight[:, None]).mean(0))
        plain.append(functions[chosen.pixels].mean(0))
    found, truth = np.mean(weighted, 0), functions.mean(0)
    error = np.std(weighted, 0) / np.sqrt(len(weighted))
    assert np.all(np.abs(found - truth) < 4 * error) and error[0] < 0.01
    assert abs(np.mean(plain, 0)[1] - truth[1]) > 20 * error[1]


@pytest.mark.parametrize("kind", [GradientSelection, LossSelection])
def test_the_mean_error_is_that_of_pixels_drawn_alike(kind: type[SelectionConfig]) -> None:
    """In expectation, whether or not the losses weigh the rays; the plain mean of those that were chosen is higher."""
    scene, keys = made_scene(), {"uniform": 0.2, "candidates": 3}
    keys |= {"cell": 2, "every": 10} if kind is LossSelection else {}
    store = store_of()
    color = store.gather(np.arange(PIXELS), 0).color.float() / 255
    truth = (color - 0.3).square().mean(-1).mean()
    found, plain = [], []
    with PixelSampler(scene, rays=10, seed=3, pixels=kind.model_validate(keys)) as sampler:
        for batch in drawn(sampler, 1500):
            assert batch.weight is None
        for _ in range(1500):
            error = (next(sampler).color - 0.3).square().mean(-1)
            found.append(sampler.unbiased_mean(error) or 0.0)
            plain.append(float(error.mean()))
    deviation = np.std(found) / np.sqrt(len(found))
    assert sampler.chooses and abs(np.mean(found) - float(truth)) < 4 * deviation
    if kind is LossSelection:
        assert np.mean(plain) - float(truth) > 10 * deviation


def test_pixels_drawn_alike_need_no_other_mean() -> None:
    with PixelSampler(made_scene(), rays=10, seed=3, pixels=UniformSelection()) as sampler:
        next(sampler)
        assert sampler.unbiased_mean(torch.ones(10)) is None and not sampler.chooses


def drawn(sampler: PixelSampler, count: int) -> list[RayBatch]:
    """The next batches, after each of which the sampler learns a made-up error, a function of the batch."""
    batches = []
    for _ in range(count):
        batches.append(next(sampler))
        sampler.learn((batches[-1].color - 0.3).square().mean(-1))
    return batches


def same(a: RayBatch, b: RayBatch) -> bool:
    weights = (torch.zeros(0) if each.weight is None else each.weight for each in (a, b))
    return equal(a, b) and torch.equal(*weights) and a.patch == b.patch


@each_selection
@pytest.mark.parametrize("stop", [3, 10, 13])
def test_resuming_gives_the_uninterrupted_stream(name: str, stop: int) -> None:
    with PixelSampler(made_scene(), rays=18, seed=9, pixels=SELECTIONS[name]) as whole:
        batches = drawn(whole, 30)
    with PixelSampler(made_scene(), rays=18, seed=9, pixels=SELECTIONS[name]) as first:
        drawn(first, stop)
        state = first.state_dict()
        after = drawn(first, 9)
        first.load_state_dict(state)  # back, although more was learned
        assert all(map(same, after, drawn(first, 9)))
    with PixelSampler(made_scene(), rays=18, seed=9, pixels=SELECTIONS[name]) as second:
        second.load_state_dict(state)
        assert all(map(same, batches[stop:], drawn(second, 30 - stop)))


def test_what_was_learned_of_other_cells_is_passed_over() -> None:
    with PixelSampler(made_scene(), rays=18, seed=9, pixels=LossSelection(cell=2)) as first:
        drawn(first, 3)
        state = first.state_dict()
    with PixelSampler(made_scene(), rays=18, seed=9, pixels=LossSelection(cell=3)) as second:
        second.load_state_dict(state)
        drawn(second, 2)


RANK = """
import json, sys, torch
from utils import distributed
from dataio.batches import PixelSampler
from dataio.selection.by_loss import LossSelection
from tests.dataio.test_batches import made_scene
from tests.dataio.test_selection import drawn
ranks = distributed.setup("cpu")
def made():
    config = LossSelection(cell=2, every=4)
    return PixelSampler(made_scene(), rays=9, seed=9, pixels=config, before=9 * ranks.rank, total=18)
with made() as whole:
    drawn(whole, 6)
    state = whole.state_dict()
    rest = [batch.color for batch in drawn(whole, 6)]
    last = whole.state_dict()
with made() as second:
    second.load_state_dict(state)
    again = [batch.color for batch in drawn(second, 6)]
    equal = all(map(torch.equal, rest, again)) and all(map(torch.equal, last["selection"]["errors"],
        second.state_dict()["selection"]["errors"]))
print(json.dumps({"equal": equal, "first": rest[0].tolist(), "errors": last["selection"]["errors"].tolist(),
                  "rays": int(state["selection"]["sums"][1].sum())}))
distributed.cleanup()
"""


def test_two_ranks_learn_one_map_and_resume() -> None:
    said = said_by_two_ranks(RANK)
    assert said[0]["equal"] and said[1]["equal"]
    assert said[0]["errors"] == said[1]["errors"] and said[0]["first"] != said[1]["first"]
    assert said[0]["rays"] == 2 * 2 * 9  # of two steps on two ranks since the map changed


def test_patches_are_squares_of_neighbors_and_each_comes_once() -> None:
    side, per_batch = 3, 2
    squares = (7 - 2) * (5 - 2) + (4 - 2) * (9 - 2) + 1  # 30
    rays, squares_of = per_batch * side**2, PatchSelection(side=side)
    samplers = [
        PixelSampler(made_scene(), rays=rays, seed=4, pixels=squares_of, before=r * rays, total=3 * rays)
        for r in range(3)
    ]
    corners = []
    for _ in range(squares // (3 * per_batch)):
        for sampler in samplers:
            batch = next(sampler)
            assert batch.patch == side
            pixels = np.array(identity(batch)).reshape(per_batch, side, side, 3)
            step = pixels - pixels[:, :1, :1]
            assert not step[..., 0].any()  # one view
            assert np.all(step[..., 1] == np.arange(side)) and np.all(step[..., 2] == np.arange(side)[:, None])
            corners += [tuple(square[0, 0]) for square in pixels]
    for sampler in samplers:
        sampler.close()
    assert len(set(corners)) == len(corners) == squares and samplers[0].epoch == 1.0


def test_parts_of_a_batch_keep_patches_whole() -> None:
    with PixelSampler(made_scene(), rays=36, seed=4, pixels=PatchSelection(side=3)) as sampler:
        batch = next(sampler)
    parts = batch.split(18)
    assert [len(part) for part in parts] == [18, 18] and [part.patch for part in parts] == [3, 3]
    assert batch.to("cpu").patch == 3 and parts[0].to("cpu").share == 0.5
    assert batch[torch.tensor([3, 1])].patch is None


def test_parts_share_the_weighed_sums() -> None:
    with PixelSampler(made_scene(), rays=30, seed=4, pixels=GradientSelection(candidates=2, unbiased=True)) as sampler:
        batch = next(sampler)
    assert batch.mask is not None and batch.weight is not None and batch.depth is not None
    truth = (batch.mask * batch.weight).sum()
    shares = [part.total_mask() / part.share for part in batch.split(7)]
    torch.testing.assert_close(torch.stack(shares), truth.expand(5))
    known = ((batch.depth > 0) * batch.weight).sum()
    torch.testing.assert_close(batch.total_measured(), known)
    assert replace(batch, weight=None).total_mask() == batch.mask.sum()


def test_a_picture_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(InputError, match=r"b - got 4 x 9 pixels - expected at least 5 x 5 \(train.pixels.side\)"):
        PixelSampler(made_scene(), rays=25, seed=0, pixels=PatchSelection(side=5))


@pytest.mark.cuda
@each_selection
def test_a_gpu_draws_the_same(name: str) -> None:
    """The map too: errors are added up as whole numbers, in whatever order."""
    with PixelSampler(made_scene(), rays=18, seed=9, pixels=SELECTIONS[name]) as here:
        batches = drawn(here, 12)
    with PixelSampler(made_scene(), rays=18, seed=9, pixels=SELECTIONS[name], device="cuda") as there:
        for ours in batches:
            batch = next(there)
            there.learn((ours.color.cuda() - 0.3).square().mean(-1))
            assert torch.equal(ours.color, batch.color.cpu()) and ours.patch == batch.patch
