"""Structure that changes during a run: a NeRF on a dense grid that doubles twice, stopped before and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import utils.config.parts
from engine import resume
from engine.experiment import read_config
from engine.recording import settings
from engine.run import Run
from engine.trainer import Trainer
from models.encodings.dense_grid import DenseGrid, DenseGridConfig
from models.feedback import Feedback
from models.kernels.encodings.hash_encode import HashLevels
from models.kernels.runtime.launch import set_threads
from models.model import Model
from tests.engine.test_training import SMALL, SPHERE, assert_equal, run_script, state_of, trained
from tests.support.sources import ROOT
from utils import distributed

GRID = "{type: dense_grid, resolutions: [16, 32], grow: [0.2, 0.5]}"
GROWS = (f"model.foreground.field.encoding={GRID}", "model.foreground.sampler.every=3")
GROWING = {"type": "dense_grid", "resolutions": [16, 32], "grow": [0.2, 0.5]}
SLOW = pytest.mark.slow
HALVED = {"type": "octree", "voxels": 8, "components": 1, "grow": [0.2, 0.5], "budget": 4000}
TABLE = "foreground.field.encoding.table"


def stopped(folder: Path, steps: int, at: int, *overrides: str, config: str = "nerf_hash") -> Trainer:
    """A run to `steps` that ends, by a checkpoint, after step `at`."""
    read = read_config(ROOT / f"configs/{config}.yaml", [*SMALL, f"train.steps={steps}", *overrides])
    run = resume.open_trainer(read, folder, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    while run.step < at:
        run.step_once()
    run.save()
    run.close()
    run.writer.close()
    return run


@pytest.mark.parametrize("at", [3, 4, 7])  # before the first growth, right at it, between the two
def test_a_run_goes_on_before_and_after_a_growth(at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = trained(tmp_path / "whole", 20, *GROWS, config="nerf_hash")
    said = "".join(capsys.readouterr())
    assert "step 4: foreground.field.encoding grew to 8, 16" in said
    assert "step 10: foreground.field.encoding grew to 16, 32" in said and said.count("grew") == 2
    assert whole.optimizer.state[whole.objective.model.get_parameter(TABLE)]["step"] == 10  # since the last growth
    other = whole.objective.model.get_parameter("foreground.appearance.network.layers.0.bias")
    assert whole.optimizer.state[other]["step"] == 20
    stopped(tmp_path / "parts", 20, at, *GROWS)
    encoding: Any = Run.open(tmp_path / "parts").model.foreground.field
    assert encoding.encoding.resolution.tolist() == ([4, 8] if at <= 4 else [8, 16])
    assert trained(tmp_path / "parts", 20, *GROWS, config="nerf_hash").begun_at == at
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


def test_a_run_on_planes_goes_on_between_two_growths(tmp_path: Path) -> None:
    keys = {"type": "tensor_vm", "cells": 16, "components": 4, "grow": [0.2, 0.5], "growth": 1.5}
    grows = [f"model.foreground.field.{part}={json.dumps(keys)}" for part in ("density", "colors")]
    steps = 10
    whole = trained(tmp_path / "whole", steps, *grows, config="tensorf_vm")
    density: Any = whole.objective.model.foreground.field
    assert whole.optimizer.state[density.density.table]["step"] == 5  # since the last growth
    stopped(tmp_path / "parts", steps, 4, *grows, config="tensorf_vm")
    assert trained(tmp_path / "parts", steps, *grows, config="tensorf_vm").begun_at == 4
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


BLOCKS = {"type": "octree_blocks", "blocks": 80, "first": 2, "deepest": 3, "corners": 3, "features": 4}
PLANNED = {**BLOCKS, "network": {"layers": 1, "width": 16}, "plan": [0.2, 0.5, 0.7]}


@pytest.mark.parametrize("at", [3, 5])  # before the second plan, with what was seen until then, and after it
def test_a_run_on_blocks_goes_on_across_a_plan(at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = [f"model.foreground.field.encoding={json.dumps(PLANNED)}"]
    whole = trained(tmp_path / "whole", 10, *plans, config="nerf_hash")
    said = "".join(capsys.readouterr())
    assert "step 5: foreground.field.encoding has" in said and said.count("split, ") == 3
    encoding: Any = whole.objective.model.foreground.field
    assert len({*encoding.encoding.tree.levels.tolist()}) > 1 and len(encoding.encoding.tree) <= 80
    stopped(tmp_path / "parts", 10, at, *plans)
    assert trained(tmp_path / "parts", 10, *plans, config="nerf_hash").begun_at == at
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


@pytest.mark.parametrize("config", ["neus_hash", "volsdf_hash", "unisurf_hash", "nerf_hash"])
def test_blocks_go_with_every_opacity(config: str, tmp_path: Path) -> None:
    """Two plans on the way; the network of the blocks learns."""
    keys = [f"model.foreground.field.encoding={json.dumps(PLANNED)}", *([] if config == "nerf_hash" else [SPHERE])]
    run = trained(tmp_path, 6, *keys, config=config)
    field: Any = run.objective.model.foreground.field
    moments = [run.optimizer.state[parameter]["exp_avg"] for parameter in field.encoding.network.parameters()]
    assert all(torch.isfinite(moment).all() and moment.any() for moment in moments)
    assert field.encoding.generation == 3 and run.step == 6


@pytest.mark.parametrize("kind, at", [("nsvf", 3), ("octree", 4), ("octree", 6)])  # before, right at, after a halving
def test_a_run_on_sparse_voxels_goes_on_around_a_halving(kind: str, at: int, tmp_path: Path) -> None:
    keys = {"type": kind, "voxels": 8, "components": 4, "grow": [0.4, 0.8], "prune": [0.6], "budget": 4000}
    halves = f"model.foreground.field.encoding={json.dumps(keys)}"
    whole = trained(tmp_path / "whole", 10, halves, config="nerf_hash")
    field: Any = whole.objective.model.foreground.field
    assert field.encoding.generation == 3 and 8**3 + 64 < field.encoding.used[0] <= 4000
    assert whole.optimizer.state[field.encoding.table]["step"] == 10  # nothing is forgotten
    stopped(tmp_path / "parts", 10, at, halves)
    opened: Any = Run.open(tmp_path / "parts").model.foreground.field
    assert opened.encoding.generation == (0 if at <= 4 else 1)
    assert trained(tmp_path / "parts", 10, halves, config="nerf_hash").begun_at == at
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


def pruned_runs() -> list[str]:
    """Voxels that are pruned and grow at 0.4, and are pruned again at 0.7, each after two steps of ten."""
    keys = {"cells": 16, "grow": [0.4], "rows": 3000}
    field = [f"model.foreground.field.{part}={json.dumps(keys)}" for part in ("density", "colors")]
    return [*field, 'model.foreground.field.prune={"at": [0.4, 0.7], "window": 0.2, "dilate": 0}', "train.rays=16"]


@pytest.mark.parametrize("at", [3, 4, 6])  # within the first window, right at its end, within the second
def test_a_run_goes_on_across_pruning_and_growth(at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = trained(tmp_path / "whole", 10, *pruned_runs(), config="plenoxels")
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "pruned" in line]
    assert [line.split(":")[0] for line in said] == 2 * ["step 4"] + 2 * ["step 7"]
    field: Any = whole.objective.model.foreground.field
    assert torch.equal(field.density.bits, field.colors.bits) and field.pruning.events == 4
    assert 0 < field.density.present().float().mean() < 0.6
    assert whole.optimizer.state[field.colors.table]["square_avg"].any()
    stopped(tmp_path / "parts", 10, at, *pruned_runs(), config="plenoxels")
    trained(tmp_path / "parts", 10, *pruned_runs(), config="plenoxels")
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


def test_a_run_is_opened_as_it_was_saved(tmp_path: Path) -> None:
    run = stopped(tmp_path, 20, 6, *GROWS)
    x = torch.rand(100, 3) * 2 - 1
    opened = Run.open(tmp_path)
    with torch.no_grad():
        assert torch.equal(opened.model.foreground.field.value(x), run.objective.model.foreground.field.value(x))
        assert torch.isfinite(opened.surface_value(x)).all()


def test_a_run_that_goes_back_has_the_layout_of_its_checkpoint(tmp_path: Path) -> None:
    run = stopped(tmp_path, 20, 3, *GROWS)
    checkpoint = next((tmp_path / "checkpoints").glob("step_*"))
    model: Any = run.objective.model
    model.refresh(10, 0.6)
    assert model.foreground.field.encoding.generation == 2
    run.load(checkpoint)
    assert model.foreground.field.encoding.generation == 0
    assert model.foreground.field.encoding.resolution.tolist() == [4, 8]


def test_a_recorded_step_is_recorded_anew() -> None:
    model = Model(read_config(ROOT / "configs/nerf_hash.yaml", GROWS).model)
    model.update(0.3)
    before = settings(model.modules())
    assert not model.refresh(1, 0.1) and settings(model.modules()) == before
    assert model.refresh(1, 0.3) and settings(model.modules()) != before


@pytest.mark.parametrize("density, what", [(GROWING, "grew to"), pytest.param(HALVED, "halved", marks=SLOW)])
def test_two_ranks_change_alike_and_go_on(density: dict[str, Any], what: str, tmp_path: Path) -> None:
    """Ten steps with checkpoints; the same from the one that was written before the second growth."""
    own = ["train.steps=10", "train.checkpoint_every=4", "train.keep_checkpoints=9", "train.validations=0"]
    both = {"type": "voxels", "density": density, "colors": PLANNED, "initial_value": 0}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "train.py"]
    arguments = ["configs/nerf_hash.yaml", *SMALL, f"model.foreground.field={json.dumps(both)}", *own]
    arguments += ["optimizer.parts=null"]
    done = run_script(*launch, *arguments, f"output={tmp_path / 'whole'}")
    assert done.stderr.count(what) == 2 and f"step 5: foreground.field.density {what}" in done.stderr
    assert done.stderr.count("split, ") == 3 and "step 5: foreground.field.colors has" in done.stderr
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for name in ("step_00000008", "step_00000010"):
        shutil.rmtree(tmp_path / "parts/checkpoints" / name)
    (tmp_path / "parts/checkpoints/latest").write_text("step_00000004\n")
    again = run_script(*launch, *arguments, f"output={tmp_path / 'parts'}")
    assert "resumed at step 4" in again.stderr and again.stderr.count(what) == 1
    assert again.stderr.count("split, ") == 2
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


@pytest.fixture
def own_threads() -> Iterator[None]:
    """The number of threads is the process's: give it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    set_threads(before)


class Asking(DenseGrid):
    """A grid that wants to know where the weights are."""

    def __init__(self, layout: HashLevels, **options: Any) -> None:
        super().__init__(layout, **options)
        self.feedback = Feedback(8)


@pytest.mark.usefixtures("own_threads")
def test_feedback_is_filled_where_a_part_asks_and_continues_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches by two threads, in whatever order they end."""
    registry = utils.config.parts._registry
    monkeypatch.setattr(utils.config.parts, "_registry", {kind: dict(of) for kind, of in registry.items()})

    class AskingConfig(DenseGridConfig):
        type: Literal["asking"] = "asking"  # type: ignore[assignment]

        def build(self, dimensions: int = 3) -> DenseGrid:
            with monkeypatch.context() as patch:
                patch.setattr("models.encodings.dense_grid.DenseGrid", Asking)
                return super().build(dimensions)

    asks = (GROWS[0].replace("dense_grid", "asking"), "train.micro_batch=32", "train.threads=2")
    whole = trained(tmp_path / "whole", 8, *asks, config="nerf_hash")
    assert len(whole.objective.feedback) == 1
    seen = whole.objective.feedback[0].read()
    assert seen.count.sum() > 1000 and 0 < seen.weight.max() <= 1 and seen.error.sum() > 0
    assert ((seen.count > 0) == (seen.weight > 0)).float().mean() > 0.9
    stopped(tmp_path / "parts", 8, 3, *asks)
    trained(tmp_path / "parts", 8, *asks, config="nerf_hash")
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


def test_nothing_is_accumulated_where_no_part_asks() -> None:
    model = Model(read_config(ROOT / "configs/nerf_hash.yaml").model)
    assert not any(isinstance(part, Feedback) for part in model.modules())
