"""Runs of earlier commits: their checkpoints load, and what they show has the numbers that were measured then.

`tests/support/old_runs` was written at 1b3923c, before the files moved, by its make.sh. Runs of a later layout go
beside them; those that are there stay as they are.
"""

import json
import math
from pathlib import Path

import pytest
import torch

from engine import trainer
from engine.evaluation.pictures import measure_images
from engine.experiment import read_config
from engine.run import Run
from tests.support.sources import ROOT
from utils import distributed

RUNS = sorted(path.parent for path in (ROOT / "tests/support/old_runs").glob("*/config.yaml"))


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_an_old_run_shows_what_it_showed(folder: Path) -> None:
    run = Run.open(folder, device="cpu")
    found = measure_images(run, run.load_scene(), "test")
    before = json.loads((folder / "metrics.json").read_text("utf-8"))["images"]
    assert found is not None and run.step == 6
    assert math.isclose(found["psnr"], before["psnr"], abs_tol=1e-3)
    assert math.isclose(found["psnr_masked"], before["psnr_masked"], abs_tol=1e-3)


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_an_old_run_goes_on(folder: Path, tmp_path: Path) -> None:
    config = read_config(folder / "config.yaml", ["train.steps=8", f"output={tmp_path}"], saved=True)
    scene = config.data.load()
    run = trainer.Trainer(config, tmp_path, distributed.setup("cpu"), scene, fresh=False)
    run.load(next((folder / "checkpoints").glob("step_*")))
    run.start()
    before = [parameter.clone() for parameter in run.objective.parameters()]
    while run.progress < 1:
        run.step_once()
    run.close()
    assert run.step == 8
    assert any(not torch.equal(a, b) for a, b in zip(before, run.objective.parameters(), strict=True))
