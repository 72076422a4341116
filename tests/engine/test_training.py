"""Runs from the command's point of view: every config trains, resumes bit for bit, and on two ranks as on one."""

import copy
import gc
import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataio import scene as scene_module
from dataio.batches import RayBatch
from engine import build, experiment, resume, trainer
from engine.cluster.exchange import Exchange
from engine.run import Run
from engine.step_guard import NumbersError
from models.fields import shape_fit
from models.objective import Objective
from tests.support import made_data
from utils import distributed
from utils.checkpoint import load_checkpoint, newest_checkpoint
from utils.errors import InputError
from utils.log import Progress

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TINY_DATA = ["data={type: procedural, views: 4, test_views: 1, size: 24}"]
TINY = [*TINY_DATA, "train.rays=24", "train.minutes=null", "train.validations=1"]
TABLE = "foreground.field.encoding.table"
FIELD = "model.foreground.field"
GRIDS = {"plenoxels": "cells=32", "dvgo": "cells=32", "octree": "voxels=16"}  # what a test has memory and time for
SMALLER = {config: [f"{FIELD}.{part}.{size}" for part in ("density", "colors")] for config, size in GRIDS.items()}
SPHERE = "model.foreground.field.init=sphere"
PERF = ("perf/communication_share", "perf/scaling_efficiency_at_most")
SMALL = [*TINY, "train.rays=64", "train.log_every=1", "device=cpu"]


def run_script(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.fixture(autouse=True)
def quick_hulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts need not be good here."""
    monkeypatch.setattr(shape_fit, "STEPS", 10)
    monkeypatch.setattr(shape_fit, "HULL_STEPS", 10)
    monkeypatch.setattr(shape_fit, "HULL_GRID", 16)


def trained(folder: Path, steps: int, *overrides: str, config: str = "neus_hash") -> trainer.Trainer:
    settings = [*SMALL, f"train.steps={steps}", *overrides]
    read = experiment.read_config(ROOT / "configs" / f"{config}.yaml", settings)
    run = resume.open_trainer(read, folder, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    while run.progress < 1:
        run.step_once()
    run.close()
    run.finish()
    return run


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_two_steps(config: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, 2, "train.rays=16", "data.size=12", *SMALLER.get(config.stem, []), config=config.stem)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert run.step == 2 and len(losses) == 2 and all(torch.isfinite(torch.tensor(losses)))
    assert list((tmp_path / "images").glob("*.png"))
    opened = Run.open(tmp_path)
    assert opened.step == 2 and len(opened.cameras) == 5


@pytest.mark.parametrize(("pixels", "word"), [("loss", "loss of chosen pixels"), ("uniform", "loss")])
def test_the_psnr_that_is_said_is_of_pixels_drawn_alike(
    pixels: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the loss of others says so. A stand-in for the mean gives 20 dB, where it is asked."""
    monkeypatch.setattr(trainer.PixelSampler, "unbiased_mean", lambda self, error: 1e-2 if self.chooses else None)
    monkeypatch.setattr(Progress, "due", lambda self: True)
    trained(tmp_path, 2, "train.rays=16", f"train.pixels={{type: {pixels}}}")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    said = [row["train/psnr"] for row in rows if "train/psnr" in row]
    assert (said == [20.0, 20.0]) == (pixels == "loss") and all("train/loss" in row for row in rows if "opt/lr" in row)
    assert f" %  {word} " in capsys.readouterr().err


def test_a_run_that_is_done_goes_at_once(tmp_path: Path) -> None:
    """Without Python's search for circles of references, which may be long in coming: a run has large tables."""
    gc.collect()
    gc.disable()
    try:
        run = weakref.ref(trained(tmp_path, 2, SPHERE))
        assert run() is None
    finally:
        gc.enable()


def state_of(folder: Path) -> dict[str, object]:
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    state, _ = load_checkpoint(checkpoint)
    del state["clocks"]
    return state


def assert_equal(a: object, b: object, where: str = "state") -> None:
    """Bit for bit."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor) and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple) and len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def log_of(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the speed."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "perf/rays_per_s"} for row in rows]


def test_rates_of_a_background_that_was_left_out_are_no_mistake(tmp_path: Path) -> None:
    assert trained(tmp_path, 1, "model.background=null", config="neus_hash_open").step == 1
    with pytest.raises(InputError, match="command line: optimizer.parts: 'foregruond': this model has no parameter"):
        trained(tmp_path / "other", 1, "optimizer.parts={foregruond: 1e-2}")


@pytest.mark.parametrize("config", ["neus_hash", "neus_hash_open", "nerf_hash"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(config: str, tmp_path: Path) -> None:
    """40 steps at once, and 40 steps stopped at 23 by a checkpoint: weights, optimizer and logs are equal."""
    plateau = "optimizer.reduce_on_plateau={window: 5, patience: 1, threshold: 0.5}"
    overrides = ("model.foreground.sampler.every=3", "train.checkpoint_every=23", plateau)
    trained(tmp_path / "whole", 40, *overrides, config=config)
    settings = [*SMALL, "train.steps=40", *overrides]
    read = experiment.read_config(ROOT / "configs" / f"{config}.yaml", settings)
    first = resume.open_trainer(read, tmp_path / "parts", distributed.setup("cpu"), allow_config_change=False)
    assert first is not None
    while first.step < 23:
        first.step_once()
    first.close()
    first.writer.close()
    second = trained(tmp_path / "parts", 40, *overrides, config=config)
    assert second.begun_at == 23
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")


def test_one_seed_one_result(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trained(tmp_path / name, 10)
    trained(tmp_path / "c", 10, "seed=1")
    assert_equal(state_of(tmp_path / "a"), state_of(tmp_path / "b"))
    with pytest.raises(AssertionError):
        assert_equal(state_of(tmp_path / "a"), state_of(tmp_path / "c"))


WORKER = """
import sys, torch
sys.path.insert(0, {root!r})
torch.set_num_threads(1)
from tests.engine.test_training import gradients_of_a_share
from utils.errors import run_script
run_script(lambda: gradients_of_a_share({out!r}, {config!r}))
"""


def gradients_of_a_share(out: str, config: str) -> None:
    """One rank: its half of one batch; rank 0 writes the averaged gradients."""
    ranks = distributed.setup("cpu")
    objective, whole = objective_and_batch(config)
    exchange = Exchange(objective) if ranks.world > 1 else None
    share = len(whole.rays) // ranks.world
    mine = slice(ranks.rank * share, (ranks.rank + 1) * share)
    assert whole.mask is not None
    batch = RayBatch(whole.rays[mine], whole.color[mine], whole.mask[mine], None, None)
    loss = objective(batch).loss
    objective.share_counts()
    loss.backward()
    if exchange:
        exchange()
    if ranks.is_main:
        grads = {name: p.grad for name, p in objective.named_parameters()}
        torch.save(grads, out)
    distributed.barrier()
    distributed.cleanup()


def objective_and_batch(config: str) -> tuple[Objective, RayBatch]:
    """A model after its first grid refresh, without jitter, and a batch of rays; the same in every process."""
    settings = [*SMALL, SPHERE, "losses.eikonal.random_points=0", "model.foreground.field.feature_scale=1"]
    settings += ["model.background.field.feature_scale=1"] if config == "neus_hash_open" else []
    read = experiment.read_config(ROOT / "configs" / f"{config}.yaml", settings)
    scene = read.data.load()
    objective = build.build_objective(read, scene, torch.device("cpu"))
    objective.update(0.0, 0)
    objective.eval()
    sampler = trainer.PixelSampler(scene, rays=128, seed=0, device=torch.device("cpu"))
    batch = next(sampler)
    sampler.close()
    return objective, batch


@pytest.mark.parametrize("config", ["neus_hash", "neus_hash_open"])
def test_two_ranks_have_the_gradients_of_one(config: str, tmp_path: Path) -> None:
    """The eikonal term included: ranks hold different numbers of samples, and the mean is over all of them."""
    for world in (1, 2):
        script = tmp_path / f"world_{world}.py"
        script.write_text(WORKER.format(root=str(ROOT), out=str(tmp_path / f"{world}.pt"), config=config))
        if world == 1:
            run_script(str(script))
        else:
            run_script("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script))
    one, two = (torch.load(tmp_path / f"{world}.pt", weights_only=True) for world in (1, 2))
    assert one.keys() == two.keys()
    for name, grad in one.items():
        scale = grad.abs().max()
        torch.testing.assert_close(two[name] / scale, grad / scale, atol=2e-5, rtol=1e-3, msg=name)


def test_torchrun_trains_starts_killed_ranks_again_and_resumes(tmp_path: Path) -> None:
    arguments = ["train.py", "configs/neus_hash.yaml", *SMALL, SPHERE, f"output={tmp_path}"]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "--max-restarts=1"]
    faults = ("train.checkpoint_every=2", "debug.faults=disk_full@2, kill@5:rank=1")
    first = run_script(*launch, *arguments, "train.steps=6", *faults)
    assert first.stderr.count("going on, 2 more tries") == 1
    assert first.stderr.count("rank 0 of 2: another rank was lost") == 1
    shares = [row[name] for row in log_of(tmp_path) for name in PERF if name in row]
    assert len(shares) == 12 and all(0 < share < 1 for share in shares) and sum(shares) == pytest.approx(6)
    again = run_script(*launch, *arguments, "train.steps=9")
    assert "resumed at step 6" in again.stderr
    candidates = 4  # per ray, of which the loss chooses
    assert state_of(tmp_path)["sampler"]["position"] == 9 * 64 * candidates  # type: ignore[index]


def test_a_signal_ends_in_a_checkpoint_and_the_same_command_goes_on(tmp_path: Path) -> None:
    arguments = ["train.py", "configs/neus_hash.yaml", *SMALL, SPHERE, "train.steps=100000", f"output={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    log = tmp_path / "metrics.jsonl"
    while not (log.is_file() and log.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()[1]
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75
    step = int((tmp_path / "checkpoints" / "latest").read_text().split("_")[1])
    done = run_script(*arguments[:-2], f"train.steps={step + 2}", f"output={tmp_path}")
    assert f"resumed at step {step}" in done.stderr


def test_a_single_step_that_is_not_finite_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, 3)
    before = copy.deepcopy([run.objective.model.state_dict(), run.optimizer.state_dict()["state"]])
    nan, usual = torch.tensor(float("nan")), run.gradients._of
    overflow = {"overflowed": torch.tensor(True)}
    for change, said in ({"loss": nan}, "not finite"), (overflow, "more samples than capacity"):
        with monkeypatch.context() as patch:
            patch.setattr(run.gradients, "_of", lambda batch, change=change: replace(usual(batch), **change))
            run.step_once()
        assert f"{said}; steps skipped: 1" in capsys.readouterr().err.replace("loss or gradient ", "")
        assert_equal([run.objective.model.state_dict(), run.optimizer.state_dict()["state"]], before)
    run.step_once()
    assert not torch.equal(run.objective.model.get_parameter(TABLE), before[0][TABLE])
    run.sampler.close()
    run.writer.close()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path, 3)
    before = (tmp_path / "checkpoints" / "latest").read_text()
    read = experiment.read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, "train.steps=50"])
    run = resume.open_trainer(read, tmp_path, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    run.rate_scale = trainer.ROLLED_BACK  # it went back to a checkpoint before: tests/scripts/test_faults
    with torch.no_grad():
        weights = [p.clone() for p in run.objective.model.parameters()]
        run.objective.model.get_parameter("foreground.appearance.network.layers.0.bias").fill_(float("nan"))
    with pytest.raises(NumbersError, match="not finite"):
        for _ in range(40):
            run.step_once()
    run.close()
    run.writer.close()
    assert run.step <= 3 + trainer.MAX_BAD_STEPS + 1
    assert (tmp_path / "checkpoints" / "latest").read_text() == before
    assert len(weights) == len(list(run.objective.model.parameters()))


def test_what_was_held_out_stays_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began when views were split otherwise goes on, and is scored, on its own splits."""
    made_data.transforms(tmp_path / "data", 10)
    monkeypatch.setattr(scene_module, "held_out", lambda names, centers, every: np.array([0, 8]))
    data = [f"data={{type: transforms, path: {tmp_path / 'data'}, center: [0, 0, 0], radius: 2}}"]
    trained(tmp_path / "run", 2, *data, SPHERE)
    monkeypatch.setattr(scene_module, "held_out", lambda names, centers, every: np.array([1, 9]))
    settings = [*SMALL, *data, SPHERE, "train.steps=4", f"output={tmp_path / 'run'}"]
    read = experiment.read_config(ROOT / "configs/neus_hash.yaml", settings)
    run = resume.open_trainer(read, tmp_path / "run", distributed.setup("cpu"), allow_config_change=False)
    assert run is not None and run.scene.splits["test"].tolist() == [0, 8]
    batch = next(run.sampler)
    assert not set(batch.rays.camera.tolist()) & {0, 8}
    run.close()
    assert Run.open(tmp_path / "run").load_scene().splits["test"].tolist() == [0, 8]


def test_a_run_whose_data_are_elsewhere_says_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path counts from where training ran, which the reader of the line may not be."""
    made_data.transforms(tmp_path / "data", 10)
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "run", 2, "data={type: transforms, path: data, center: [0, 0, 0], radius: 2}", SPHERE)
    run = Run.open(tmp_path / "run")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(InputError, match=r"data\.path: data - no .*run/config\.yaml names it, as seen from where"):
        run.load_scene()
    assert len(run.load_scene("../data").names) == 10
