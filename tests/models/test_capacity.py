"""Samples in arrays of fixed capacity: the numbers of exactly so many samples, and an overflow is reported."""

from pathlib import Path

import pytest
import torch

from dataio.batches import RayBatch
from engine.trainer import Trainer
from models.capacity import Capacity
from models.model import VISIBLE
from models.objective import Report
from models.samples import compact_indices
from tests.engine.test_training import SPHERE, quick_hulls, trained
from tests.support.analytic import rays_at_sphere

__all__ = ["quick_hulls"]
EXACT = [SPHERE, "losses.eikonal.random_points=0"]  # no numbers are drawn after those of rays, of which there are more
# Where the eikonal loss draws from a background's samples, those that fill up a room are among them.
OPEN = [*EXACT, "losses.eikonal.random_points=0"]
MEDIA: dict[str, list[str]] = {"neus_hash": EXACT, "neus_hash_open": OPEN, "nerf_hash": [], "nerf_hash_open": []}


def capacities(run: Trainer) -> list[Capacity]:
    return [part for part in run.objective.modules() if isinstance(part, Capacity)]


def step(run: Trainer) -> tuple[Report, list[torch.Tensor]]:
    torch.manual_seed(5)
    run.sampler.load_state_dict({"position": 0})
    report = run.gradients(next(run.sampler))
    run.sampler.close()
    return report, [p.grad.clone() for p in run.objective.parameters() if p.grad is not None]


def set_capacities(run: Trainer, spare: float) -> None:
    """For `spare` times as much as a step wants."""
    for part in capacities(run):
        part.resize(*[100_000] * len(part.demand))
    step(run)
    for part in capacities(run):
        part.resize(*(int(spare * int(n)) + 1 for n in part.demand))
        assert part.demand.any()
        part.demand.zero_()


@pytest.mark.parametrize("name", MEDIA)
def test_nothing_changes_in_rooms_that_are_large_enough(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path, 2, "train.rays=64", *MEDIA[name], config=name)
    exact, expected = step(run)
    set_capacities(run, 1.3)
    report, found = step(run)
    assert not report.overflowed and not exact.overflowed
    if exact.gradients:
        torch.testing.assert_close(report.off_unit(), exact.off_unit())
    if run.objective.model.background is None:  # in which the rays that fill up a room have samples too
        assert report.samples == exact.samples
    torch.testing.assert_close(report.terms, exact.terms)
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["neus_hash", "neus_hash_open"])
def test_a_room_that_is_too_small_is_said_and_the_next_is_larger(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path, 2, "train.rays=600", SPHERE, config=name)
    set_capacities(run, 0.5)
    before = [part.sizes for part in capacities(run)]
    report, found = step(run)
    assert report.overflowed and all(p.isfinite().all() for p in found)
    for _ in range(3):  # what was cut at one stage is not seen by those behind it
        for part in capacities(run):
            part.fit()
        report, _ = step(run)
    assert not report.overflowed
    kept = [part.sizes for part in capacities(run)]
    assert all(a is not None and b is not None and a[0] > b[0] for a, b in zip(kept, before, strict=True))
    for _ in range(2):  # what fits is left alone, also if nothing was wanted since
        for part in capacities(run):
            part.fit()
    assert kept == [part.sizes for part in capacities(run)]


def test_rooms_are_for_training_alone(tmp_path: Path) -> None:
    run = trained(tmp_path, 2, "train.rays=64", SPHERE, config="neus_hash_open")
    set_capacities(run, 0.01)
    rays, model = rays_at_sphere(30), run.objective.model
    assert model(rays).overflowed
    rendering = model.eval()(rays)
    assert rendering.overflowed is None and len(rendering.media[0].samples.t) == int(rendering.media[0].samples.count())
    assert len(rendering.media[1].samples.rays) == int((rendering.opacity < 1 - VISIBLE).sum())


def test_places() -> None:
    mask = torch.tensor([False, True, True, False, True, False])
    assert compact_indices(mask, None).tolist() == [1, 2, 4] and compact_indices(mask, 2).tolist() == [1, 2]
    assert compact_indices(mask, 5).tolist() == [1, 2, 4, 6, 6]


def test_a_batch_of_parts_is_cut_where_one_of_them_is() -> None:
    def report(overflowed: bool) -> Report:
        number = torch.tensor(1.0)
        return Report(number, {}, number, number, torch.tensor(overflowed), torch.ones(2), [], torch.ones(2))

    batch = RayBatch(rays_at_sphere(4), torch.zeros(4, 3))
    shares = [part.share for part in batch.split(2)]
    assert Report.merged([report(False), report(True)], shares).overflowed
    assert not Report.merged([report(False), report(False)], shares).overflowed
