"""Samples in rooms of a fixed length: the same numbers as of exactly so many samples, and what does not fit is said."""

from pathlib import Path

import pytest
import torch

from dataio.batches import RayBatch
from engine.trainer import Training
from models.capacity import Rooms
from models.losses.losses import Report
from models.samples import places
from models.volume import VISIBLE
from tests.engine.test_training import SPHERE, quick_hulls, trained
from tests.support.analytic import rays_at_sphere

__all__ = ["quick_hulls"]
EXACT = [SPHERE, "losses.eikonal.random_points=0"]  # no numbers are drawn after those of rays, of which there are more
MEDIA: dict[str, list[str]] = {"neus_hash": EXACT, "neus_hash_open": EXACT, "nerf_hash": [], "nerf_hash_open": []}


def rooms(run: Training) -> list[Rooms]:
    return [part for part in run.objective.modules() if isinstance(part, Rooms)]


def step(run: Training) -> tuple[Report, list[torch.Tensor]]:
    torch.manual_seed(5)
    run.sampler.load_state_dict({"position": 0})
    report = run.gradients(next(run.sampler))
    run.sampler.close()
    return report, [p.grad.clone() for p in run.objective.parameters() if p.grad is not None]


def make_room(run: Training, spare: float) -> None:
    """For `spare` times as much as a step wants."""
    for part in rooms(run):
        part.resize(*[100_000] * len(part.wanted))
    step(run)
    for part in rooms(run):
        part.resize(*(int(spare * int(n)) + 1 for n in part.wanted))
        assert part.wanted.any()
        part.wanted.zero_()


@pytest.mark.parametrize("name", MEDIA)
def test_nothing_changes_in_rooms_that_are_large_enough(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path, 2, "train.rays=64", *MEDIA[name], config=name)
    exact, expected = step(run)
    make_room(run, 1.3)
    report, found = step(run)
    assert not report.cut and not exact.cut
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
    make_room(run, 0.5)
    before = [part.sizes for part in rooms(run)]
    report, found = step(run)
    assert report.cut and all(p.isfinite().all() for p in found)
    for _ in range(3):  # what was cut at one stage is not seen by those behind it
        for part in rooms(run):
            part.fit()
        report, _ = step(run)
    assert not report.cut
    kept = [part.sizes for part in rooms(run)]
    assert all(a is not None and b is not None and a[0] > b[0] for a, b in zip(kept, before, strict=True))
    for _ in range(2):  # what fits is left alone, also if nothing was wanted since
        for part in rooms(run):
            part.fit()
    assert kept == [part.sizes for part in rooms(run)]


def test_rooms_are_for_training_alone(tmp_path: Path) -> None:
    run = trained(tmp_path, 2, "train.rays=64", SPHERE, config="neus_hash_open")
    make_room(run, 0.01)
    rays, model = rays_at_sphere(30), run.objective.model
    assert model(rays).cut
    rendering = model.eval()(rays)
    assert rendering.cut is None and len(rendering.media[0].samples.t) == int(rendering.media[0].samples.count())
    assert len(rendering.media[1].samples.rays) == int((rendering.opacity < 1 - VISIBLE).sum())


def test_places() -> None:
    mask = torch.tensor([False, True, True, False, True, False])
    assert places(mask, None).tolist() == [1, 2, 4] and places(mask, 2).tolist() == [1, 2]
    assert places(mask, 5).tolist() == [1, 2, 4, 6, 6]


def test_a_batch_of_parts_is_cut_where_one_of_them_is() -> None:
    def report(cut: bool) -> Report:
        number = torch.tensor(1.0)
        return Report(number, {}, number, number, torch.tensor(cut), torch.ones(2), [], torch.ones(2))

    batch = RayBatch(rays_at_sphere(4), torch.zeros(4, 3))
    shares = [part.share for part in batch.split(2)]
    assert Report.merged([report(False), report(True)], shares).cut
    assert not Report.merged([report(False), report(False)], shares).cut
