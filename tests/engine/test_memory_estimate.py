"""The memory of a training, said before it: against what is allocated, and refused where there is less."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from engine import memory_estimate, resume
from engine.experiment import read_config
from engine.memory_estimate import Estimate, before_steps, check_memory, encodings
from engine.trainer import Trainer
from models.encodings.base import EncodingConfig
from models.model import Model
from models.optimizers.base import OptimizerConfig
from tests.engine.test_training import SMALL
from tests.support.live_bytes import LiveBytes
from tests.support.sources import ROOT
from utils import distributed, memory
from utils.config.parts import parts
from utils.errors import InputError

CPU = torch.device("cpu")
GRIDS = {
    "dvgo": {"cells": 56, "grow": [0.3, 0.6]},
    "plenoxels": {"cells": 56, "grow": [0.6], "rows": 150_000},
    "tensorf_vm": {"cells": 400, "components": 8, "grow": [0.3, 0.6]},
    "octree": {"voxels": 16, "grow": [0.3, 0.6], "levels": 2, "budget": 60_000},
}


def opened(folder: Path, config: str, *overrides: str) -> tuple[Estimate, Trainer]:
    """A run before its first step, and what it is said to take."""
    read = read_config(ROOT / f"configs/{config}.yaml", [*SMALL, "train.validations=0", *overrides])
    found, _ = check_memory(read, CPU)
    run = resume.open_trainer(read, folder, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    return before_steps(found, run), run


def kept(run: Trainer) -> list[torch.Tensor]:
    """What a run has in memory between two steps."""
    model, state = run.objective.model, run.optimizer.state.values()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*model.parameters(), *model.buffers(), *gradients, *(x for of_one in state for x in of_one.values())]


def grid(config: str) -> list[str]:
    """Overrides that make the tables of a config small, but larger than all else."""
    prune = ["model.foreground.field.prune=null"] if config == "plenoxels" else []
    keys = json.dumps(GRIDS[config])
    return [f"model.foreground.field.{part}={keys}" for part in ("density", "colors")] + prune


@pytest.mark.parametrize("config", GRIDS)
def test_a_grid_that_grew_takes_what_was_said(config: str, tmp_path: Path) -> None:
    said, run = opened(tmp_path, config, "train.steps=5", *grid(config))
    while run.progress < 0.6:
        run.step_once()
    with LiveBytes(kept(run)) as growth:
        before = growth.live
        run.objective.update(run.progress, run.step)
    with LiveBytes(kept(run)) as steps:
        run.step_once()
    run.close()
    assert said.parameters > 3e6 and said.kept - said.pictures + said.samples == pytest.approx(steps.peak, rel=0.1)
    assert growth.peak - before < said.change


def test_a_checkpoint_takes_what_was_said(tmp_path: Path) -> None:
    said, run = opened(tmp_path, "dvgo", "train.steps=4", *grid("dvgo"))
    run.step_once()
    tracemalloc.start()
    try:
        run.save()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        run.close()
    assert said.checkpoint == pytest.approx(most, rel=0.1)


@pytest.mark.parametrize("config", ["neus_hash", "nerf_hash", "reduced/nsvf", "reduced/tensorf_vm"])
def test_samples_take_what_was_said(config: str, tmp_path: Path) -> None:
    alike = "model.foreground.sampler.step=[0.03, 0.03]"  # the first step is as all others
    said, run = opened(tmp_path, config, "train.rays=512", "train.steps=10", alike)
    with LiveBytes(kept(run)) as found:
        before = found.live
        run.gradients(run.sampler.plan())
    run.close()
    taken = found.peak - before  # whether a table's gradient is there beside the whole graph depends on the order
    assert 0.9 * taken - said.gradient < said.samples < 1.3 * taken


def test_tables_that_do_not_fit_are_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """13 x 321^3 numbers of 4 bytes: table, gradient and two moments, and what a checkpoint takes, 6 more."""
    tables = 4 * 13 * 321**3
    monkeypatch.setattr(memory, "free", lambda: 5 * tables)
    monkeypatch.setattr(Model, "__init__", lambda *_, **__: pytest.fail("built"))
    arguments = [*SMALL, *(f"model.foreground.field.{part}.cells=320" for part in ("density", "colors"))]
    monkeypatch.setattr(sys, "argv", ["train.py", str(ROOT / "configs/dvgo.yaml"), *arguments, "--check"])
    with pytest.raises(InputError) as refused:
        train.main()
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"this run needs {memory_estimate.size(10 * tables)} of memory (parameters 1.7 GB, gradient")
    assert f"{memory_estimate.size(5 * tables)} are free - expected about" in line
    assert line.endswith("model.foreground.field.colors.cells=246")  # 11/24 of its numbers


def test_the_values_that_are_named_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 5 * 4 * 13 * 321**3
    monkeypatch.setattr(memory, "free", lambda: free)
    cells = [f"model.foreground.field.{part}.cells={n}" for part, n in (("density", 320), ("colors", 246))]
    read = read_config(ROOT / "configs/dvgo.yaml", [*SMALL, *cells])
    memory_estimate.refuse(memory_estimate._of_tables(read, CPU), read, free)


def test_what_the_processes_of_a_machine_share_is_free_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda: 1000)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_estimate.free_memory(CPU) == 250


ENCODINGS: dict[str, dict[str, Any]] = {
    "dense_grid": {"resolutions": [8, 16], "features": 4, "grow": [0.5]},
    "hash_grid": {"levels": 4, "base": 4, "top": 32, "log2_rows": 9},
    "linked_voxels": {"cells": 16, "components": 20, "rows": 4000, "grow": [0.5]},
    "nsvf": {"voxels": 4, "components": 3, "grow": [0.5], "budget": 1000},
    "octree": {"voxels": 8, "components": 3},
    "permutohedral": {"levels": 4, "top": 64, "log2_rows": 10},
    "tensor_cp": {"cells": 40, "components": 3},
    "tensor_vm": {"cells": 20, "components": 3, "grow": [0.5]},
    "voxel_grid": {"cells": 12, "components": 3},
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_an_encoding_knows_its_table_before_it_is_built(kind: str) -> None:
    config: Any = parts(EncodingConfig)[kind](**ENCODINGS[kind])
    assert config.numbers == sum(parameter.numel() for parameter in config.build().parameters())


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_lowered_key_lowers_the_table(kind: str) -> None:
    config: Any = parts(EncodingConfig)[kind](**ENCODINGS[kind])
    key, _, value = config.lowered(0.6).partition("=")
    lower = type(config)(**{**ENCODINGS[kind], key: json.loads(value)})
    assert 0.2 * config.numbers < lower.numbers <= 0.7 * config.numbers


def test_every_encoding_with_a_table_is_among_these() -> None:
    """What has no table has no parameters either, but for the network that emits those of blocks."""
    others = parts(EncodingConfig).keys() - ENCODINGS.keys() - {"octree_blocks"}
    assert not any(list(parts(EncodingConfig)[kind]().build().parameters()) for kind in others)


def test_encodings_are_found_by_the_names_of_their_parameters() -> None:
    read = read_config(ROOT / "configs/dvgo.yaml")
    names = [name for name, encoding in encodings(read.model) if encoding.numbers]
    assert names == ["foreground.field.density", "foreground.field.colors"]


@pytest.mark.parametrize("rule", sorted(parts(OptimizerConfig)))
def test_a_rule_keeps_as_many_moments_as_it_says(rule: str) -> None:
    config = parts(OptimizerConfig)[rule]()
    parameter = torch.nn.Parameter(torch.ones(100))
    fresh: Any = config.build([{"params": [parameter], "lr": 1e-3}])
    kept = sum(value.numel() for value in fresh.fresh_state(parameter).values() if value.numel() > 1)
    assert kept == 100 * config.moments
