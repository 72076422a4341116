"""Learning rates that fall when the loss stays put: by hand, resumed bit for bit, the same on every rank."""

import copy
from pathlib import Path

import pytest
import torch

from models.fields.sdf import Sdf
from tests.test_training import log_of, state_of, trained
from utils.plateau import Plateau, PlateauConfig


def observed(plateau: Plateau, losses: list[float]) -> list[float]:
    scales = []
    for loss in losses:
        plateau.observe(torch.tensor(loss))
        scales.append(plateau.scale)
    return scales


def test_two_windows_without_a_new_best_halve_the_rate() -> None:
    plateau = Plateau(PlateauConfig(window=2, patience=2, factor=0.5, threshold=0.1, least=0.2))
    # Means of the windows: 4, 3 (best), 2.9 (not by a tenth), 3.1 -> halved, 1 (best), 1, 1 -> halved, 1, 1 -> floor.
    means = [4, 3, 2.9, 3.1, 1, 1, 1, 1, 1]
    scales = observed(plateau, [loss for mean in means for loss in (mean - 0.5, mean + 0.5)])
    assert scales[1::2] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]
    assert scales[6] == 1  # in the middle of a window nothing happens


@pytest.mark.parametrize("at", [0, 1, 5, 11])
def test_a_state_is_all_that_the_next_step_depends_on(at: int) -> None:
    losses = [float(x) for x in torch.rand(40, generator=torch.Generator().manual_seed(0))]
    config = PlateauConfig(window=3, patience=1, factor=0.7)
    whole, first, second = Plateau(config), Plateau(config), Plateau(config)
    expected = observed(whole, losses)
    observed(first, losses[:at])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert observed(second, losses[at:]) == expected[at:]
    assert second.state_dict() == whole.state_dict() and expected[-1] < 1


def test_a_run_with_everything_switched(tmp_path: Path) -> None:
    """AdamW, mixed precision and the plateau in one run; that it resumes bit for bit is in test_training."""
    settings = ("optimizer.reduce_on_plateau={window: 4, patience: 1, threshold: 0.9}", "optimizer.type=adamw",
                "optimizer.weight_decay=0.01", "train.precision=mixed")  # fmt: skip
    run = trained(tmp_path, 14, *settings)
    assert run.plateau is not None and run.plateau.scale == 0.25  # after two windows behind the first
    assert isinstance(run.optimizer, torch.optim.AdamW)
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.01
    field = run.objective.model.foreground.field
    assert isinstance(field, Sdf) and field.color.mixed and not field.geometry.mixed
    assert state_of(tmp_path)["plateau"] == run.plateau.state_dict()
    # The last line was logged with the rate of the last step: base, schedule and plateau multiplied.
    rates = [row["opt/lr"] for row in log_of(tmp_path) if "opt/lr" in row]
    assert rates[-1] < 0.3 * max(rates)
