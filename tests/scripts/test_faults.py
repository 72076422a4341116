"""What a run survives: kills while files are written, NaN, disks that refuse, a second process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evaluate
from engine import resume, trainer
from engine.experiment import read_config
from engine.saving import writer
from engine.step_guard import NumbersError, check_finite
from engine.validation import handful
from tests.engine.test_training import SMALL, SPHERE, quick_hulls, trained
from tests.support.sources import ROOT
from utils import distributed, files
from utils.checkpoint import load_checkpoint, newest_checkpoint
from utils.errors import InputError, StorageError
from utils.evaluation.results import read_results, update_results
from utils.run_lock import RunLock

__all__ = ["quick_hulls"]


def opened(folder: Path, *overrides: str) -> trainer.Trainer:
    config = read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, SPHERE, *overrides])
    run = resume.open_trainer(config, folder, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    return run


def spoil(run: trainer.Trainer) -> None:
    opacity: Any = run.objective.model.foreground.opacity
    opacity.log_s.data.fill_(torch.nan)


def test_a_config_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path, 2, SPHERE).close()
    saved = tmp_path / "config.yaml"
    before, moment = saved.read_text("utf-8"), saved.stat().st_mtime_ns

    def killed(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        files.write_text_if_changed(saved, before + "# more\n")
    files.write_text_if_changed(saved, before)  # nothing to write
    assert saved.read_text("utf-8") == before and saved.stat().st_mtime_ns == moment


def test_damaged_numbers_are_kept_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"images": {"psnr": 30.0}, "me', "utf-8")
    update_results(path, train={"steps": 3})
    assert "metrics.json: cannot be read" in capsys.readouterr().err
    assert read_results(path) == {"images": None, "mesh": None, "train": {"steps": 3}}
    assert path.with_name("metrics.json.damaged").read_text("utf-8").startswith('{"images": {"psnr": 30.0}')


@pytest.mark.parametrize("where", ["parameter", "moment", "rate"])
def test_a_checkpoint_that_is_not_finite_is_not_written(tmp_path: Path, where: str) -> None:
    run = opened(tmp_path, "train.steps=100")
    for _ in range(3):
        run.step_once()
    run.save()
    opacity: Any = run.objective.model.foreground.opacity
    parameter = opacity.log_s
    if where == "parameter":
        parameter.data.fill_(torch.nan)
    elif where == "moment":
        run.optimizer.state[parameter]["exp_avg"].fill_(torch.inf)
    else:
        run.optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.raises(NumbersError, match="not finite at step 3: (model|optimizer)"):
        run.save()
    run.close()
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None and newest.name == "step_00000003"
    check_finite(load_checkpoint(newest)[0]["model"], 3)


def test_a_run_goes_back_once_at_half_the_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = opened(tmp_path, "train.steps=40", "train.checkpoint_every=4", "train.log_every=1")
    for _ in range(6):
        run.step_once()
    rate = run.optimizer.param_groups[0]["base_lr"]
    spoil(run)
    while run.rate_scale == 1.0:
        run.step_once()
    assert run.step == 4 and "back to the checkpoint of step 4" in "".join(capsys.readouterr())
    run.step_once()
    schedule = run.config.optimizer.schedule(4 / 40)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * rate * schedule)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert steps == [1, 2, 3, 4, 5]
    while run.step < 8:
        run.step_once()
    spoil(run)
    with pytest.raises(NumbersError):
        for _ in range(20):
            run.step_once()
    run.close()
    again = opened(tmp_path, "train.steps=40", "train.checkpoint_every=4", "train.log_every=1")
    assert again.rate_scale == 0.5  # so is a resumed run's
    again.close()


def test_a_run_that_ends_on_nan_says_so(tmp_path: Path) -> None:
    run = opened(tmp_path, "train.steps=3")
    for _ in range(3):
        run.step_once()
    spoil(run)
    with pytest.raises(NumbersError, match="not finite at step 3"):
        run.finish()
    run.close()


def refusing(times: int, then: Any) -> Any:
    left = [times]

    def save(*arguments: object, **options: object) -> object:
        if left[0] > 0:
            left[0] -= 1
            raise StorageError("the disk is full")
        return then(*arguments, **options)

    return save


@pytest.mark.parametrize(("refusals", "ends"), [(2, False), (3, True)])
def test_a_disk_that_refuses_is_a_warning_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refusals: int, ends: bool
) -> None:
    monkeypatch.setattr(writer, "write_checkpoint", refusing(refusals, writer.write_checkpoint))
    run = opened(tmp_path, "train.steps=10", "train.checkpoint_every=1")
    run.step_once()
    run.step_once()
    assert "going on, 2 more tries" in "".join(capsys.readouterr())
    run.step_once()
    if ends:
        with pytest.raises(StorageError, match="full"):
            run.step_once()
    else:
        run.step_once()
        assert run.saving.failed == 0 and newest_checkpoint(tmp_path / "checkpoints") is not None
    run.close()


def test_a_picture_that_cannot_be_written_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer, "write_png", refusing(9, None))
    run = opened(tmp_path, "train.steps=2", "train.validations=2")
    run.step_once()
    run.step_once()
    run.close()
    assert run.step == 2 and "warning: the disk is full" in "".join(capsys.readouterr())


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(InputError, match=f"process {os.getpid()} on .* is training into this folder"):
        RunLock(tmp_path)
    overrides = [*SMALL, SPHERE, "train.steps=1", f"output={tmp_path}"]
    command = [sys.executable, "train.py", "configs/neus_hash.yaml", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "is training into this folder" in done.stderr and not (tmp_path / "config.yaml").exists()
    lock.release()
    lock.release()
    RunLock(tmp_path).release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = "import sys, os, time; from pathlib import Path; from utils.run_lock import RunLock\n"
    code += "lock = RunLock(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdout.readline()
    with pytest.raises(InputError):
        RunLock(tmp_path)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    RunLock(tmp_path).release()


def test_numbers_of_other_splits_and_references_stay(tmp_path: Path) -> None:
    path, first, second = tmp_path / "metrics.json", {"psnr": 20.0}, {"psnr": 30.0}
    mesh, other = {"chamfer": 1.0}, {"chamfer": 2.0}
    update_results(path, **evaluate.blocks_of("test", first, "truth.ply", mesh))
    update_results(path, **evaluate.blocks_of("train", second, "", None))
    update_results(path, **evaluate.blocks_of("test", None, "points.npz", other))
    found = read_results(path)
    assert found["images"] == first and found["splits"] == {"train": second}
    assert found["mesh"] == other and found["references"] == {"truth.ply": mesh, "points.npz": other}


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_validations_show_the_same_few_views(count: int) -> None:
    views = np.arange(100, 100 + count)
    shown = handful(views)
    assert shown == handful(views) and set(shown) <= set(views.tolist())
    assert len(shown) == len(set(shown)) == min(count, 3)


def test_a_resumed_run_takes_the_rates_of_its_config(tmp_path: Path) -> None:
    trained(tmp_path, 2, SPHERE).close()
    changes = ["train.steps=4", "optimizer.lr=1e-5", "optimizer.betas=[0.5, 0.6]"]
    config = read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, SPHERE, *changes])
    run = resume.open_trainer(config, tmp_path, distributed.setup("cpu"), allow_config_change=True)
    assert run is not None
    groups = run.optimizer.param_groups
    assert 1e-5 in [group["base_lr"] for group in groups] and all(group["betas"] == (0.5, 0.6) for group in groups)
    assert run.optimizer.state  # the moments are those of the run
    run.close()


def test_another_number_of_rates_is_one_line(tmp_path: Path) -> None:
    trained(tmp_path, 2, SPHERE).close()
    changes = ["train.steps=4", "optimizer.parts={foreground.appearance: 7e-4}"]
    config = read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, SPHERE, *changes])
    with pytest.raises(InputError, match="its optimizer has groups of"):
        resume.open_trainer(config, tmp_path, distributed.setup("cpu"), allow_config_change=True)


def test_other_data_are_not_read_in_the_frame_of_a_run(tmp_path: Path) -> None:
    trained(tmp_path, 2, SPHERE).close()
    config = read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, SPHERE, "train.steps=4", "data.radius=55"])
    with pytest.raises(InputError, match="the run's unit sphere is at .* that of these data at"):
        resume.open_trainer(config, tmp_path, distributed.setup("cpu"), allow_config_change=True)


@pytest.mark.parametrize("error", ["MemoryError('little')", "__import__('torch').OutOfMemoryError('no more')"])
def test_too_little_memory_is_one_line_in_every_script(error: str) -> None:
    code = f"from utils.errors import run_script\ndef main():\n    raise {error}\nrun_script(main)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 5 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
