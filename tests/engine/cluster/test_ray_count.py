"""Steps by samples: the rays of a step follow the samples that are kept of each, on all ranks alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dataio.batches import PixelSampler
from dataio.selection.base import SelectionConfig
from dataio.selection.by_gradient import GradientSelection
from dataio.selection.by_loss import LossSelection
from dataio.selection.patches import PatchSelection
from dataio.selection.uniform import UniformSelection
from engine import experiment, resume
from engine.cluster import ray_count
from engine.cluster.ray_count import RayCount, coarse
from engine.cluster.shares import RankShare
from engine.experiment import ExperimentConfig, read_config
from engine.gradients import Gradients
from engine.trainer import Trainer
from models.capacity import Capacity
from models.model import Model
from models.networks.mlp import Mlp, MlpConfig
from models.objective import Objective
from tests.dataio.test_batches import made_scene
from tests.engine.test_training import ROOT, SPHERE, TINY_DATA, assert_equal, log_of, run_script, state_of
from utils import distributed
from utils.distributed import Ranks
from utils.entries import Entry
from utils.errors import InputError

CPU = torch.device("cpu")
NEUS = ROOT / "configs" / "neus_hash.yaml"
TINY = [*TINY_DATA, SPHERE, "train.minutes=null", "train.validations=0", "device=cpu", "train.threads=1"]
TINY += ["model.foreground.field.encoding.log2_rows=12"]
SELECTIONS: dict[str, tuple[SelectionConfig, float]] = {  # with the places that a ray takes
    "uniform": (UniformSelection(), 1),
    "gradient": (GradientSelection(), 4),
    "loss": (LossSelection(), 4),
    "patches": (PatchSelection(side=2), 1 / 4),
}


def of_samples(samples: int, *overrides: str) -> ExperimentConfig:
    return read_config(NEUS, [f"train.samples={samples}", *overrides])


def counts(config: ExperimentConfig, world: int = 1) -> list[RayCount]:
    return [RayCount(config, Ranks(rank, world, rank, CPU)) for rank in range(world)]


def report(samples: int, *, overflowed: bool = False) -> Any:
    return SimpleNamespace(samples=torch.tensor(float(samples)), overflowed=torch.tensor(overflowed))


def after(ranks: list[RayCount], each: float, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What is chosen after 16 steps in which every ray kept so many samples."""
    for _ in range(16):
        for rank in ranks:
            rank.count(report(round(each * rank.share.own)))
    total = torch.stack([rank._counted for rank in ranks]).sum(0)
    monkeypatch.setattr(ray_count, "sum_across_ranks", lambda own: total)
    return [rank.chosen(16) for rank in ranks]


@pytest.mark.parametrize("area", [1, 64])
def test_there_are_few_sizes_and_each_is_near(area: int) -> None:
    asked = np.geomspace(16 * area, 2**20, 5000)
    found = [coarse(float(rays), area) for rays in asked]
    assert all(rays % area == 0 for rays in found) and len(set(found)) <= 16 * 17
    assert np.abs(found / asked - 1).max() <= 1 / 32
    assert coarse(0.1, area) == area and coarse(1e12, area) == experiment.MOST_RAYS


def test_the_number_of_rays_follows_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 262144 samples are 1024 rays of 256, 8192 of 32, and no more rays than samples."""
    (count,) = ranks = counts(of_samples(262144))
    assert (count.rays, count.share, count.own_samples) == (1024, RankShare(0, 1024, 1024, 1024), 262144)
    assert not count.chosen(0)  # nothing was counted
    assert after(ranks, 32, monkeypatch) == [True] and count.share == RankShare(0, 8192, 8192, 8192)
    assert count.taken == 16 * 1024
    assert after(ranks, 32 * 1.1, monkeypatch) == [False] and count.rays == 8192  # is near enough
    assert after(ranks, 32 * 1.2, monkeypatch) == [True] and count.rays == 6912  # 27 * 256 is next to 6826.7
    assert after(ranks, 0.01, monkeypatch) == [True] and count.rays == 262144
    assert after(ranks, 0.01, monkeypatch) == [False]


def test_what_overflowed_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (count,) = counts(of_samples(4096))
    for _ in range(16):
        count.count(report(1, overflowed=True))
    assert not count.chosen(16) and count.rays == 16
    count.count(report(1, overflowed=True))
    count.count(report(16 * 32))
    assert count.chosen(32) and count.rays == 4096 // 32


def test_ranks_agree_and_take_what_one_process_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = of_samples(12345)
    (one,), three = counts(config), counts(config, 3)
    for each in (20, 7, 3.5):
        assert after([one], each, monkeypatch) == [True] and after(three, each, monkeypatch) == [True] * 3
        assert [rank.rays for rank in three] == [one.rays] * 3 and sum(rank.share.own for rank in three) == one.rays
        assert [rank.share.before for rank in three] == [sum(r.share.own for r in three[:i]) for i in range(3)]
        assert [rank.taken for rank in three] == [one.taken] * 3
    each_its_own = counts(of_samples(12345, "distributed.rays=rank"), 2)
    assert after(each_its_own, 5, monkeypatch) == [True] * 2
    assert [rank.share for rank in each_its_own] == [RankShare(0, 2432, 4864, 2432), RankShare(2432, 2432, 4864, 2432)]


def test_a_state_goes_on_where_ranks_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    config = of_samples(12345)
    two = counts(config, 2)
    after(two, 7, monkeypatch)
    for rank in two:
        rank.count(report(100 * rank.share.own))
    total = torch.stack([rank._counted for rank in two]).sum(0)
    monkeypatch.setattr(ray_count, "sum_across_ranks", lambda own: total)
    state = two[0].state_dict()
    assert state == two[1].state_dict() and state is not None and state["counted"][1] == two[0].rays
    monkeypatch.undo()
    (one,) = counts(config)
    one.load_state_dict(Entry(state, "rays", "FILE"), 17)
    assert (one.rays, one.taken, one.share.own) == (two[0].rays, two[0].taken, two[0].rays)
    assert one.state_dict() == state
    second = counts(config, 2)[1]
    second.load_state_dict(Entry(state, "rays", "FILE"), 17)
    assert second.share == two[1].share and second._counted.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rays": 0}, "FILE: rays.rays - got 0 - expected a whole number"),
        ({"rays": 65}, "rays.rays - got 65 - expected a multiple of 64, the pixels of a patch"),
        ({"taken": None}, "rays.taken - got nothing"),
        ({"counted": [1.0]}, "rays.counted - got"),
        ({"counted": [1.0, float("nan")]}, "rays.counted.1 - got nan"),
    ],
)
def test_a_state_that_is_none_is_one_line(change: dict[str, Any], said: str) -> None:
    (count,) = counts(of_samples(65536, "train.pixels={type: patches, side: 8}"))
    state = {"rays": 128, "taken": 5, "counted": [1.0, 2.0], **change}
    with pytest.raises(InputError) as caught:
        count.load_state_dict(Entry(state, "rays", "FILE"), 3)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_fixed_number_stays() -> None:
    (count,) = counts(read_config(NEUS, ["train.rays=100"]))
    count.count(report(5))
    assert (count.taken, count.chosen(16), count.state_dict(), count.measures()) == (100, False, None, {})
    count.load_state_dict(Entry(None, "rays", "FILE"), 7)
    assert count.taken == 700 and count.share.own == 100


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.rays=5", "train.samples=600"], "train.rays: is given beside train.samples (got 5 and 600)"),
        (["train.samples=0"], "train.samples: should be greater than or equal to 256 (got 0)"),
        (["train.samples=1e9"], "train.samples"),
        (["train.samples=9999", "train.pixels={type: patches, side: 8}"], "should be at least 16384, those of a patch"),
    ],
)
def test_a_wrong_number_of_samples_is_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(NEUS, overrides)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_for_all_ranks_are_one_line() -> None:
    with pytest.raises(InputError, match="^train.samples: 600 - got 2 rays for 3 ranks - expected at least one for"):
        counts(of_samples(600), 3)


def test_what_is_given_last_counts(tmp_path: Path) -> None:
    """Samples of a config stand for the rays of its base, and the other way round; both in one file are a mistake."""

    def train(text: str, *overrides: str) -> tuple[int | None, int | None]:
        (tmp_path / "child.yaml").write_text(f"base: neus_hash.yaml\ntrain: {{{text}}}\n", "utf-8")
        read = read_config(tmp_path / "child.yaml", overrides).train
        return read.rays, read.samples

    assert train("samples: 600") == (None, 600) and train("rays: 7") == (7, None)
    assert train("samples: 600", "train.rays=7") == (7, None) and train("rays: 7", "train.samples=600") == (None, 600)
    assert train("samples: 600", "train.samples=null") == (experiment.USUAL_RAYS, None)
    with pytest.raises(InputError, match=r"child.yaml:2:15: train.rays: is given beside train.samples"):
        train("rays: 7, samples: 600")


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_stream_goes_on_when_the_number_of_rays_changes(name: str) -> None:
    """Of one process and of two: each pixel once per epoch where none is chosen, and a position says all."""
    scene, (pixels, places) = made_scene(), SELECTIONS[name]
    with PixelSampler(scene, rays=8, seed=5, pixels=pixels) as whole:
        for _ in range(3):
            next(whole)
        whole.resize(rays=24, before=0, total=24)
        first, state = next(whole), whole.state_dict()
        then = next(whole)
    assert state["position"] == (3 * 8 + 24) * places
    with PixelSampler(scene, rays=24, seed=5, pixels=pixels) as again:
        again.load_state_dict(state)
        torch.testing.assert_close(next(again).color, then.color, rtol=0, atol=0)
    halves = []
    for before in (0, 12):
        with PixelSampler(scene, rays=4, seed=5, pixels=pixels, before=before // 3, total=8) as half:
            half.load_state_dict({**state, "position": int(24 * places)})
            half.resize(rays=12, before=before, total=24)
            halves.append(next(half))
            assert half.position == state["position"]
    if places <= 1:  # where no pixels are chosen among others
        torch.testing.assert_close(torch.cat([half.color for half in halves]), first.color, rtol=0, atol=0)


def test_micro_batches_threads_and_capacities_follow() -> None:
    torch.set_num_threads(2)
    network = Mlp(3, 1, MlpConfig.model_validate({"layers": 1, "width": 64, "activation": "relu"}))
    objective, train = Objective(network, {}), of_samples(4096, "train.micro_batch=32").train  # type: ignore[arg-type]
    gradients = Gradients(objective, train, RankShare(0, 16, 16, 16), device=CPU)
    assert (gradients.rays, gradients.threads, gradients.pool) == (16, 1, None)
    assert gradients.resize(RankShare(0, 512, 512, 512)) == 2 and (gradients.rays, gradients.threads) == (32, 2)
    assert gradients.pool is not None and gradients.most_at_once(512) == 64
    gradients.fitting = 8  # what fits into memory
    assert gradients.resize(RankShare(0, *3 * [1024])) == 1 / 4 and gradients.rays == 8
    assert gradients.resize(RankShare(0, *3 * [16])) == 1 and gradients.threads == 1 and gradients.pool is None
    gradients.close()
    torch.set_num_threads(1)


def test_capacities_are_fitted_to_the_rays_to_come() -> None:
    capacity = Capacity(2)
    capacity.demand.copy_(torch.tensor([1000, 3]))
    Model.scale_demand(torch.nn.ModuleList([capacity]), 2.5)  # type: ignore[arg-type]
    capacity.fit()
    assert capacity.sizes == (256 * 13, 256)  # 3125 and 10, each in whole 256


def run_of(folder: Path, steps: int, *overrides: str, upto: int | None = None) -> Trainer:
    """A run of so many steps, or the first ones of it, as if it had been killed."""
    read = experiment.read_config(NEUS, [*TINY, "train.log_every=1", f"train.steps={steps}", *overrides])
    run = resume.open_trainer(read, folder, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    while run.progress < 1 and run.step != upto:
        run.step_once()
    run.close()
    if upto is None:
        run.finish()
    else:
        run.writer.close()
    return run


def test_a_step_keeps_about_the_samples_that_were_asked_for(tmp_path: Path) -> None:
    run_of(tmp_path, 5000, "train.samples=2048", upto=80)
    rows = [row for row in log_of(tmp_path) if "perf/rays_per_step" in row]
    kept = [row["perf/samples_per_ray"] * row["perf/rays_per_step"] for row in rows]
    assert kept[0] < 1024 and len({row["perf/rays_per_step"] for row in rows}) <= 5
    for first in (48, 64):
        assert np.mean(kept[first : first + 16]) == pytest.approx(2048, rel=0.15)


@pytest.mark.parametrize("stop", [16, 21])
def test_a_run_that_is_resumed_across_a_change_is_the_same(stop: int, tmp_path: Path) -> None:
    keys = ("train.samples=1024", f"train.checkpoint_every={stop}", "train.pixels={type: loss, cell: 4, every: 5}")
    run_of(tmp_path / "whole", 24, *keys)
    run_of(tmp_path / "parts", 24, *keys, upto=stop + 1)
    second = run_of(tmp_path / "parts", 24, *keys)
    assert second.begun_at == stop
    assert len({row["perf/rays_per_step"] for row in log_of(tmp_path / "parts") if "opt/lr" in row}) == 2
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")


def test_two_ranks_take_the_steps_of_one(tmp_path: Path) -> None:
    """8 samples of each ray: the same rays in all, the same pixels of the stream, and parameters that agree."""
    keys = [*TINY, "train.steps=18", "train.samples=1024", "model.foreground.sampler={type: stratified, samples: 8}"]
    keys += ["train.pixels={type: uniform}", "distributed.check_every=1"]
    arguments = ["train.py", "configs/neus_hash.yaml", *keys, f"output={tmp_path / 'two'}"]
    run_script("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", *arguments)
    run_of(tmp_path / "one", 18, *keys)
    one, two = (state_of(tmp_path / name) for name in ("one", "two"))
    assert_equal(one["rays"], two["rays"])
    assert_equal(one["sampler"], two["sampler"])
    assert one["rays"] == {"rays": 128, "taken": 16 * 4 + 2 * 128, "counted": [2048.0, 256.0]}
