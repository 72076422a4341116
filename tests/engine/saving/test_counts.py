"""Resuming, determinism, numbers that are not finite and long runs, as often as it takes to believe in them.

`make nightly ARGS=tests/engine/saving/test_counts.py`; a small share of each is among the tests of every change.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cluster.hurt_run import ENVIRONMENT, torchrun
from engine import experiment, resume
from engine.trainer import Trainer
from models.kernels.runtime.launch import set_threads
from tests.engine.test_training import ROOT, SMALL, SPHERE, assert_equal, log_of, state_of, trained
from tests.scripts.test_cluster import newest_step
from utils import distributed
from utils.memory import sizes

pytestmark = pytest.mark.slow
METHODS = ("reduced/nerf", "neus_hash", "reduced/volsdf", "reduced/unisurf", "reduced/neus_nerfpp", "nerf_hash")
STEPS, STOPS, RUNS, TRIALS = 60, 10, 5, 20
SOAK_MINUTES, EVERY = 30, 200


def opened(folder: Path, config: str, *overrides: str) -> Trainer:
    read = experiment.read_config(ROOT / "configs" / f"{config}.yaml", [*SMALL, *overrides])
    run = resume.open_trainer(read, folder, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    return run


def keys_of(config: str) -> list[str]:
    return [SPHERE] if config == "neus_hash" else []


@pytest.mark.parametrize("config", METHODS)
def test_B1_a_run_stopped_anywhere_is_the_one_that_was_not(config: str, tmp_path: Path) -> None:
    """State and logs, bit for bit."""
    trained(tmp_path / "whole", STEPS, *keys_of(config), config=config)
    whole, log = state_of(tmp_path / "whole"), log_of(tmp_path / "whole")
    for stop in random.Random(config).sample(range(1, STEPS), STOPS):
        folder = tmp_path / str(stop)
        first = opened(folder, config, f"train.steps={STEPS}", *keys_of(config))
        while first.step < stop:
            first.step_once()
        first.save()
        first.close()
        first.writer.close()
        assert trained(folder, STEPS, *keys_of(config), config=config).begun_at == stop
        assert_equal(whole, state_of(folder))
        assert log == log_of(folder)


@pytest.mark.parametrize("config", METHODS)
def test_G1_a_seed_has_one_result(config: str, tmp_path: Path) -> None:
    for number in range(RUNS):
        trained(tmp_path / str(number), STEPS // 2, *keys_of(config), config=config)
        assert_equal(state_of(tmp_path / "0"), state_of(tmp_path / str(number)))


WITHOUT_EFFECT = (
    "train.log_every=100", "train.log_every=7", "train.validations=0", "train.validations=1", "train.validations=6",
    "train.checkpoint_every=5", "train.checkpoint_every=1", "train.checkpoint_minutes=0.001",
    "train.keep_checkpoints=1", "train.keep_best=true", "train.threads=1", "train.threads=2",
)  # fmt: skip


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_G2_what_is_looked_at_changes_nothing(key: str, tmp_path: Path) -> None:
    """And neither do threads."""
    usual = trained(tmp_path / "usual", STEPS // 2, SPHERE).objective.model.state_dict()
    try:
        found = trained(tmp_path / "found", STEPS // 2, SPHERE, key).objective.model.state_dict()
    finally:
        torch.set_num_threads(1)
        set_threads(1)
    assert_equal(usual, found)


RANKS_DATA = ["data={type: procedural, views: 12, test_views: 3, size: 48}", "train.rays=256", "train.validations=1"]
RANKS_STEPS = 200


def quality(folder: Path, seed: int, worlds: tuple[int, int]) -> float:
    """PSNR of held-out views, dB, of a run whose halves are on so many ranks."""
    keys = [*SMALL, *RANKS_DATA, SPHERE, f"train.steps={RANKS_STEPS}", f"seed={seed}", f"output={folder}"]
    half = f"debug.faults=term@{RANKS_STEPS // 2}"
    for world, more in zip(worlds, ([half], []), strict=True):
        launch = torchrun("--signals-to-handle=SIGTERM") if world == 2 else [sys.executable]
        subprocess.run([*launch, "train.py", "configs/neus_hash.yaml", *keys, *more], cwd=ROOT, env=ENVIRONMENT)
    assert newest_step(folder) == RANKS_STEPS
    return [row["val/psnr"] for row in log_of(folder) if "val/psnr" in row][-1]


def test_B3_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    """Held-out views are as good as without the change, in the mean over five seeds."""
    ways = {"1 1": (1, 1), "1 2": (1, 2), "2 1": (2, 1)}
    found = {
        name: [quality(tmp_path / f"{name} {seed}", seed, worlds) for seed in range(5)] for name, worlds in ways.items()
    }
    print({name: [f"{value:.2f}" for value in values] for name, values in found.items()})
    assert all(abs(np.mean(values) - np.mean(found["1 1"])) <= 0.1 for values in found.values())


def _loss(value: float) -> Callable[[Trainer, random.Random, pytest.MonkeyPatch], None]:
    def spoil(run: Trainer, drawn: random.Random, patch: pytest.MonkeyPatch) -> None:
        usual = run.gradients._of
        patch.setattr(run.gradients, "_of", lambda batch: replace(usual(batch), loss=torch.tensor(value)))

    return spoil


def _gradient(value: float) -> Callable[[Trainer, random.Random, pytest.MonkeyPatch], None]:
    def spoil(run: Trainer, drawn: random.Random, patch: pytest.MonkeyPatch) -> None:
        usual = run.gradients._of

        def spoiled(batch: Any) -> Any:
            report = usual(batch)
            gradient = drawn.choice([p.grad for p in run.objective.parameters() if p.grad is not None])
            gradient.view(-1)[drawn.randrange(gradient.numel())] = value
            return report

        patch.setattr(run.gradients, "_of", spoiled)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [_loss(float("nan")), _loss(float("inf")), _gradient(float("nan")), _gradient(-float("inf"))],
    ids=["loss nan", "loss inf", "gradient nan", "gradient -inf"],
)
def test_D1_a_step_that_is_not_finite_is_not_taken(
    spoil: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened(tmp_path, "neus_hash", SPHERE, "train.steps=1000000")
    for seed in range(TRIALS):
        drawn = random.Random(seed)
        for _ in range(drawn.randrange(1, 4)):
            run.step_once()
        before = [parameter.clone() for parameter in run.objective.parameters()]
        with monkeypatch.context() as patch:
            spoil(run, drawn, patch)
            run.step_once()
        assert all(torch.equal(a, b) for a, b in zip(before, run.objective.parameters(), strict=True))
        assert "loss or gradient not finite; steps skipped: 1" in capsys.readouterr().err
        run.step_once()
        assert not all(torch.equal(a, b) for a, b in zip(before, run.objective.parameters(), strict=True))
    run.close()
    run.writer.close()


def test_D1_a_parameter_that_is_not_finite_sends_the_run_back(tmp_path: Path) -> None:
    for seed in range(TRIALS):
        drawn, folder = random.Random(seed), tmp_path / str(seed)
        run = opened(folder, "neus_hash", SPHERE, "train.steps=40", "train.checkpoint_every=4")
        bad = drawn.randrange(5, 12)
        while run.step < bad:
            run.step_once()
        name, parameter = drawn.choice(list(run.objective.model.named_parameters()))
        with torch.no_grad():
            parameter.fill_(torch.nan)
        while run.progress < 1:
            run.step_once()
        run.close()
        run.finish()
        assert run.rate_scale == 0.5, name
        assert all(bool(torch.isfinite(parameter).all()) for parameter in run.objective.parameters()), name


def held() -> tuple[float, int, int]:
    """MiB of memory, open files, threads of this process."""
    files = len(list(Path("/proc/self/fd").iterdir()))
    return sizes("/proc/self/status")["VmRSS"] / 2**20, files, len(list(Path("/proc/self/task").iterdir()))


def test_H1_half_an_hour_holds_on_to_nothing(tmp_path: Path) -> None:
    """After the first quarter memory grows by 1 MiB in 10,000 steps at most; files and threads do not.

    But for the moments in which a checkpoint is written and pixels are chosen anew.
    """
    keys = ("train.rays=16", f"train.minutes={SOAK_MINUTES}", "train.validations=16", "train.log_every=100")
    run = opened(tmp_path, "neus_hash", SPHERE, *keys, "train.checkpoint_minutes=1")
    rows, took = [], []
    while run.progress < 1:
        begun = time.perf_counter()
        run.step_once()
        took.append(time.perf_counter() - begun)
        if run.step % EVERY == 0:
            rows.append((run.step, *held()))
    run.close()
    run.finish()
    step, memory, *others = np.array(rows[len(rows) // 4 :]).T
    slope = 10_000 * np.polyfit(step, memory, 1)[0]
    tail = quantiles(took, n=100)[98] / median(took)
    print(f"{run.step} steps, {slope:.2f} MiB in 10,000, step p99 / p50 {tail:.1f}")
    assert slope <= 1.0
    for counts in others:
        earlier, later = np.array_split(counts, 2)
        assert np.median(earlier) == np.median(later)


def test_H2_two_hundred_runs_in_one_process(tmp_path: Path) -> None:
    """They leave 20 MiB at most."""
    for number in range(220):
        trained(tmp_path / str(number), 5, SPHERE, "train.validations=0")
        if number == 20:
            before = held()[0]
    grown = held()[0] - before
    print(f"{grown:.1f} MiB")
    assert grown <= 20
