"""Runs that choose their pixels: resumed bit for bit, on two ranks too, and the errors reach the map."""

from pathlib import Path

import pytest
import torch

from engine import experiment, resume
from tests.engine.test_training import ROOT, SMALL, SPHERE, assert_equal, log_of, run_script, state_of, trained
from utils import distributed

PATCHES = ("losses.structure={type: structure, weight: 0.1}", "train.micro_batch=64", "train.rays=128")
SELECTIONS = {
    "gradient": ("train.pixels={type: gradient, unbiased: true}",),
    "loss": ("train.pixels={type: loss, cell: 4, every: 3}",),
    "patches": ("train.pixels={type: patches, side: 8}", *PATCHES),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_resumed_run_is_the_run_that_was_never_stopped(name: str, tmp_path: Path) -> None:
    overrides = (SPHERE, "train.checkpoint_every=5", "train.validations=0", *SELECTIONS[name])
    trained(tmp_path / "whole", 11, *overrides)
    read = experiment.read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, "train.steps=11", *overrides])
    first = resume.open_trainer(read, tmp_path / "parts", distributed.setup("cpu"), allow_config_change=False)
    assert first is not None
    while first.step < 7:
        first.step_once()
    first.close()
    first.writer.close()
    second = trained(tmp_path / "parts", 11, *overrides)
    assert second.begun_at == 5
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")


def test_two_ranks_share_the_map(tmp_path: Path) -> None:
    choice = "train.pixels={type: loss, cell: 4, every: 3}"
    arguments = ["train.py", "configs/neus_hash.yaml", *SMALL, SPHERE, choice, f"output={tmp_path}", "train.steps=4"]
    run_script("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", *arguments)
    learned = state_of(tmp_path)["sampler"]["selection"]  # type: ignore[index]
    assert learned["steps"] == 1 and int(learned["sums"][1].sum()) == 64
    seen = learned["errors"] >= 0
    assert seen.any() and torch.isfinite(learned["errors"]).all() and learned["errors"].max() <= 1
