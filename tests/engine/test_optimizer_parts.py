"""`optimizer.parts`: what an entry means, what it inherits, what is refused, and runs of several rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine import resume
from engine.build import build_optimizer
from engine.experiment import read_config
from engine.run import Run
from models.model import Model
from models.optimizers.adam import AdamConfig
from models.optimizers.adamw import AdamwConfig
from models.optimizers.rmsprop import Rmsprop, RmspropConfig
from tests.engine.test_training import SMALL, assert_equal, quick_hulls, state_of, trained
from tests.support.sources import ROOT
from utils import distributed
from utils.config.loading import to_yaml
from utils.errors import InputError

__all__ = ["quick_hulls"]
NERF = ROOT / "configs/nerf_hash.yaml"
SEVERAL = (
    "optimizer.parts={foreground.field.encoding: {type: rmsprop, lr: 1e-2, lazy: true},"
    " foreground.appearance: {lr: 1e-3, schedule: {type: linear, start: 1, end: 0}},"
    " foreground.field.density: 2e-3}"
)


def test_an_entry_inherits_what_it_does_not_say() -> None:
    config = read_config(NERF, [SEVERAL]).optimizer
    names = "foreground.field.encoding", "foreground.appearance"
    encoding, color = (config.of_part(config.parts[name]) for name in names)
    assert encoding == RmspropConfig(lr=1e-2, lazy=True, schedule=config.schedule)  # eps is no other rule's
    assert color.lr == 1e-3 and color.schedule(0.25) == 0.75 and config.schedule(0.25) != 0.75
    assert isinstance(color, AdamConfig) and (color.betas, color.eps) == ((0.9, 0.99), 1e-12)
    decayed = config.of_part({"type": "adamw", "weight_decay": 0.1})
    assert isinstance(decayed, AdamwConfig) and decayed.lr == config.lr
    assert (decayed.betas, decayed.eps) == ((0.9, 0.99), 1e-12)
    density = config.of_part(config.parts["foreground.field.density"])
    assert density == config.of_part(None).model_copy(update={"lr": 2e-3})


def test_one_group_per_rule_rate_and_schedule() -> None:
    config = read_config(NERF, [SEVERAL])
    optimizer = build_optimizer(config.optimizer, Model(config.model))
    found = [(group["rule"], group["base_lr"]) for group in optimizer.param_groups]
    assert found == [("Rmsprop", 1e-2), ("Adam", 2e-3), ("Adam", 1e-3)]
    optimizer.set_rates(0.25, 0.5)
    factor = config.optimizer.schedule(0.25)
    expected = [0.5 * 1e-2 * factor, 0.5 * 2e-3 * factor, 0.5 * 1e-3 * 0.75]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
    plain = read_config(NERF, ["optimizer.parts={foreground.field.encoding: 1e-2, foreground.appearance: {lr: 1e-2}}"])
    assert len(build_optimizer(plain.optimizer, Model(plain.model)).param_groups) == 2  # of one meaning


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    config = read_config(NERF, [SEVERAL])
    (tmp_path / "config.yaml").write_text(to_yaml(config), "utf-8")
    assert read_config(tmp_path / "config.yaml", saved=True) == config


def test_all_mistakes_in_entries_are_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "base: nerf_hash.yaml\noptimizer:\n  lr: 0\n  parts:\n    foreground.field:\n      lr: -1\n      btas: [0, 0]\n"
        "    foreground.opacity: {type: rmsprp}\n    foreground.appearance: x\n    b: {type: rmsprop, parts: {}}\n"
        "    c: {schedule: {type: linear}}\n",
        "utf-8",
    )
    with pytest.raises(InputError) as error:
        read_config(path)
    said = str(error.value).splitlines()
    for where, words in {
        "own.yaml:3:7: optimizer.lr: ": "greater than 0 (got 0)",
        "own.yaml:6:11: optimizer.parts.foreground.field.lr: ": "greater than 0 (got -1)",
        "own.yaml:7:13: optimizer.parts.foreground.field.btas: ": "of type adam; did you mean 'betas'?",
        "own.yaml:8:32: optimizer.parts.foreground.opacity.type: ": "did you mean 'rmsprop'?",
        "own.yaml:9:28: optimizer.parts.foreground.appearance: ": "should be a number or a mapping (got 'x')",
        "own.yaml:10:31: optimizer.parts.b.parts: ": "no key of an entry of type rmsprop; known here: beta, eps,",
        "optimizer.parts.c.schedule.start: ": "required but missing",
    }.items():
        assert [line for line in said if where in line and words in line], (where, said)
    assert len(said) == 8


def test_a_run_of_several_rules_resumes_bit_for_bit(tmp_path: Path) -> None:
    plateau = "optimizer.reduce_on_plateau={window: 5, patience: 1, threshold: 0.5}"
    overrides = (SEVERAL, plateau, "train.checkpoint_every=7")
    whole = trained(tmp_path / "whole", 12, *overrides, config="nerf_hash")
    assert isinstance(whole.optimizer.rules[0], Rmsprop) and whole.plateau is not None and whole.plateau.scale < 1
    read = read_config(NERF, [*SMALL, "train.steps=12", *overrides])
    first = resume.open_trainer(read, tmp_path / "parts", distributed.setup("cpu"), allow_config_change=False)
    assert first is not None
    while first.step < 7:
        first.step_once()
    first.close()
    first.writer.close()
    assert trained(tmp_path / "parts", 12, *overrides, config="nerf_hash").begun_at == 7
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert Run.open(tmp_path / "parts").step == 12


def test_the_moments_of_one_rule_are_not_read_by_another(tmp_path: Path) -> None:
    trained(tmp_path, 2, config="nerf_hash").close()
    changes = ["train.steps=4", "optimizer.type=rmsprop", "optimizer.betas=null", "optimizer.eps=null"]
    config = read_config(NERF, [*SMALL, *changes])
    with pytest.raises(InputError, match="has groups by Adam, Adam - expected Rmsprop, Rmsprop"):
        resume.open_trainer(config, tmp_path, distributed.setup("cpu"), allow_config_change=True)


@pytest.mark.cuda
@pytest.mark.parametrize("rule", [RmspropConfig(lazy=True), RmspropConfig(), AdamConfig(lazy=True)])
def test_on_a_gpu_as_on_a_cpu_without_waiting(rule: Any) -> None:
    from models.optimizers.together import Optimizers

    found = []
    for device in ("cpu", "cuda"):
        g = torch.Generator().manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(1000, 2, generator=g).to(device))
        optimizer = Optimizers([(rule, [parameter])])
        for step in range(6):
            grad = torch.randn(1000, 2, generator=g)
            parameter.grad = (grad * (grad > -0.3)).to(device)
            optimizer.found_inf = torch.tensor(float(step == 3), device=device)
            torch.cuda.set_sync_debug_mode("error" if step else "default")
            optimizer.step()
            torch.cuda.set_sync_debug_mode("default")
        found.append(parameter.detach().cpu())
    torch.testing.assert_close(*found, atol=2e-6, rtol=2e-6)
