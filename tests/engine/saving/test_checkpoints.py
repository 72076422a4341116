"""When a run saves, and how it goes on beside slow, hung and full storage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import resume
from engine.experiment import TrainConfig, read_config
from engine.saving import checkpoints, writer
from engine.saving.checkpoints import Saving
from engine.trainer import Trainer
from tests.engine.saving.test_writer import held_up, newest_name
from tests.engine.test_training import SMALL, SPHERE, assert_equal, state_of
from tests.support.sources import ROOT
from utils import distributed, fail_points
from utils.checkpoint import load_checkpoint
from utils.errors import StorageError

EVERY_4 = "train.checkpoint_every=4"


def opened(folder: Path, *overrides: str) -> Trainer:
    config = read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, SPHERE, *overrides])
    run = resume.open_trainer(config, folder, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    return run


def finished(run: Trainer) -> None:
    try:
        while run.progress < 1:
            run.step_once()
        run.finish()
    finally:
        run.close()


def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the checkpoints that are written from now on."""
    steps: list[int] = []

    def write(folder: Path, step: int, *arguments: Any, **options: Any) -> Path:
        steps.append(step)
        return usual(folder, step, *arguments, **options)

    usual: Callable[..., Path] = writer.write_checkpoint
    monkeypatch.setattr(writer, "write_checkpoint", write)
    return steps


def test_training_goes_on_beside_slow_storage_and_the_checkpoint_is_of_its_step(tmp_path: Path) -> None:
    keys = (EVERY_4, "train.steps=20", "train.validations=0")
    run, go_on = opened(tmp_path / "slow", *keys), held_up()
    while run.step < 7:
        run.step_once()
    assert newest_name(tmp_path / "slow/checkpoints") is None and run.saving.under_way == 4
    go_on.set()
    run.close()
    other = opened(tmp_path / "quick", *keys)
    while other.step < 4:
        other.step_once()
    other.close()
    assert_equal(state_of(tmp_path / "slow"), state_of(tmp_path / "quick"))


def test_no_step_is_saved_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are due, the best so far, and the last one of the run, at once or not."""
    steps, qualities = written(monkeypatch), iter([10.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(Trainer, "_validate", lambda self: next(qualities))
    finished(opened(tmp_path, "train.steps=12", "train.validations=4", EVERY_4, "train.keep_best=true"))
    assert steps == [3, 4, 6, 8, 9, 12]
    assert (tmp_path / "checkpoints/best").read_text("utf-8") == "step_00000012\n"
    assert load_checkpoint(tmp_path / "checkpoints/step_00000012")[0]["best"] == 13.0


def test_a_last_step_that_the_disk_refused_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = written(monkeypatch)
    finished(opened(tmp_path, "train.steps=4", EVERY_4, "debug.faults=disk_full@4"))
    assert steps == [4, 4] and newest_name(tmp_path / "checkpoints") == "step_00000004"


def test_a_disk_that_refuses_the_last_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk full"):
        finished(opened(tmp_path, "train.steps=2", "debug.faults=disk_full@2"))


@pytest.mark.parametrize("refuses", [False, True])
def test_an_exception_waits_for_the_checkpoint_under_way(
    refuses: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, go_on = opened(tmp_path, EVERY_4), held_up()
    with pytest.raises(ZeroDivisionError):
        try:
            while True:
                if run.step == 5:
                    raise ZeroDivisionError
                run.step_once()
        finally:
            if refuses:
                fail_points.arm("checkpoint.sync", fail_points.raising(OSError(5, "Input/output error")))
            go_on.set()
            run.close()
    assert newest_name(tmp_path / "checkpoints") == (None if refuses else "step_00000004")
    assert ("warning: " in capsys.readouterr().err) == refuses
    opened(tmp_path).close()  # the folder is free


@pytest.mark.parametrize(("wait", "word"), [(False, "going on"), (True, "waiting for it")])
def test_storage_that_hangs_is_spoken_of_once(
    wait: bool, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SLOW_SECONDS", 0.02)
    said: list[str] = []
    go_on = held_up()

    def say(line: str) -> None:
        said.append(line)
        if wait:
            go_on.set()

    own = Saving(TrainConfig(), tmp_path, distributed.setup("cpu"), say)
    own.begin(7, {"a": 1}, best=False)
    own.begun_at -= 1  # it has taken a second
    own.settle(wait=wait)
    own.settle(wait=wait)
    go_on.set()
    own.settle(wait=True)
    folder = tmp_path / "checkpoints"
    line = f"{folder}: the checkpoint of step 7 is not written after 0 s: the storage is slow or hangs - {word}"
    assert said == [f"warning: {line}"] and own.newest == 7


def test_a_run_goes_back_to_the_checkpoint_that_is_still_being_written(tmp_path: Path) -> None:
    run, go_on = opened(tmp_path, EVERY_4, "train.steps=40"), held_up()
    while run.step < 5:
        run.step_once()
    fail_points.arm("checkpoint.sync", lambda: None)
    go_on.set()
    run._roll_back(ArithmeticError("as if"))  # type: ignore[arg-type]
    assert run.step == 4 and run.rate_scale == 0.5
    run.close()
