"""Sweeps: which runs a file means, how they are called, which are done, skipped, gone on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sweep
from engine.comparison.sweep import Job, SweepConfig, jobs_of, read_sweep, run_jobs
from engine.experiment import read_config
from tests.support.sources import ROOT
from utils.errors import InputError

FILE = """
config: configs/neus_hash.yaml
output: {output}
overrides: {{data: {{type: procedural, views: 4}}, train.steps: 7}}
grid:
  optimizer.lr: [1e-3, 2e-3, 4e-3]
  model.foreground.opacity: [{{type: logistic, initial_s: 50}}, laplace]
then:
  - {{script: evaluate.py, options: [--split, train]}}
"""


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text.format(output=folder / "out"))
    return path


def made(**keys: Any) -> list[Job]:
    return jobs_of(SweepConfig(config="c.yaml", output="out", **keys))


class Shell:
    """Takes commands, and ends those of a run whose name holds a word with a code."""

    def __init__(self, **codes: int) -> None:
        self.codes = codes
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> int:
        self.commands.append(list(command))
        output = next((Path(word.removeprefix("output=")) for word in command if word.startswith("output=")), None)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
        return next((code for word, code in self.codes.items() if word in " ".join(command)), 0)


def test_a_grid_of_rates_and_opacities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six runs, the last key fastest; each command gives the config that is meant."""
    monkeypatch.chdir(ROOT)
    jobs = jobs_of(read_sweep(written(tmp_path)))
    rates = ("0.001", "0.002", "0.004")
    assert [job.name for job in jobs] == [f"lr-{lr}_opacity-{o}" for lr in rates for o in ("logistic", "laplace")]
    config = read_config(jobs[2].config, jobs[2].overrides)
    assert (config.optimizer.lr, config.train.steps) == (2e-3, 7)
    assert config.model.foreground.opacity.model_dump()["initial_s"] == 50
    assert config.output == str(tmp_path / "out" / jobs[2].name)
    assert read_config(jobs[5].config, jobs[5].overrides).model.foreground.opacity.model_dump()["type"] == "laplace"


def test_names_are_short_and_differ() -> None:
    named = [job.name for job in made(grid={"a.b.lr": [1], "c.b.lr": [2], "x.type": ["y/z w"], "seed": [0]})]
    assert named == ["a.b.lr-1_c.b.lr-2_x-y-z-w_seed-0"]
    same = [job.name for job in made(grid={"x": [{"type": "t", "a": 1}, {"type": "t", "a": 2}, [1, 2]]})]
    assert same == ["x-t", "x-t_1", "x-1-2"]
    assert [job.name for job in made()] == ["run"]


def test_lists_of_runs_with_a_grid() -> None:
    jobs = made(runs=[{"train.rays": 64}, {"train.rays": 32, "seed": 5}], grid={"seed": [1, 2]}, overrides={"k": "v"})
    assert [job.overrides[:-1] for job in jobs] == [
        ("k=v", "train.rays=64", "seed=1"),
        ("k=v", "train.rays=64", "seed=2"),
        ("k=v", "train.rays=32", "seed=1"),
        ("k=v", "train.rays=32", "seed=2"),
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"grid": {"seed": []}}, "grid.seed"),
        ({"grid": {"seed": [1, 1]}}, "twice"),
        ({"grid": {key: list(range(100)) for key in "abc"}}, "1000000 runs"),
    ],
)
def test_sweeps_that_are_none(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        made(**keys)


def test_finished_runs_are_skipped_broken_ones_go_on(tmp_path: Path) -> None:
    """The second run fails at first; the next time it alone is trained again, and what comes then follows."""
    config = read_sweep(written(tmp_path))
    jobs = jobs_of(config)[:3]
    first = Shell(laplace=3)
    assert run_jobs(jobs, config.then, first) == 3
    trained = ["train.py", "evaluate.py", "train.py", "train.py", "evaluate.py"]
    assert [command[0] for command in first.commands] == trained
    assert first.commands[1] == ["evaluate.py", str(jobs[0].folder), "--split", "train"]
    assert [job.finished for job in jobs] == [True, False, True]
    second = Shell()
    assert run_jobs(jobs, config.then, second) == 0
    assert [command[0] for command in second.commands] == ["train.py", "evaluate.py"]
    assert second.commands[0] == ["train.py", jobs[1].config, *jobs[1].overrides]
    third = Shell()
    assert run_jobs(jobs, config.then, third) == 0 and third.commands == []
    longer = jobs_of(config.model_copy(update={"overrides": {"train.steps": 9}}))[:1]
    assert not longer[0].finished, "other overrides are another run"


def test_a_signal_ends_the_sweep(tmp_path: Path) -> None:
    jobs = jobs_of(read_sweep(written(tmp_path)))
    shell = Shell(laplace=75)
    assert run_jobs(jobs, (), shell) == 75
    assert len(shell.commands) == 2


@pytest.mark.parametrize("damaged", ["", "[]", "{"])
def test_a_damaged_note_counts_as_none(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "finished.json").write_text(damaged)
    assert not Job("a", tmp_path, "c.yaml", ()).finished


def test_one_run_of_a_job_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(ROOT)
    path, shell = str(written(tmp_path)), Shell()
    monkeypatch.setattr("engine.comparison.sweep.run_script", shell)

    def run(*options: str) -> int:
        monkeypatch.setattr("sys.argv", ["sweep.py", path, *options])
        return sweep.main()

    assert run("--list") == 0 and not shell.commands
    assert "  5 -        lr-0.004_opacity-laplace" in capsys.readouterr().out
    assert run("--job", "3") == 0
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert run() == 0
    outputs = [word for command in shell.commands for word in command if word.startswith("output=")]
    assert [Path(word).name for word in outputs] == ["lr-0.002_opacity-laplace", "lr-0.004_opacity-logistic"]
    assert json.loads((tmp_path / "out/lr-0.002_opacity-laplace/finished.json").read_text())["overrides"]
    with pytest.raises(InputError, match="from 0 to 5"):
        run("--job", "6")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "x")
    with pytest.raises(InputError, match="whole number"):
        run()


def test_mistakes_in_any_run_are_said_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shell = Shell()
    monkeypatch.setattr("engine.comparison.sweep.run_script", shell)
    for old, new, words in (
        ("laplace]", "laplas]", "laplace"),
        ("train.steps", "train.stps", "steps"),
        ("grid:", "gird:", "grid"),
        ("evaluate.py", "/bin/sh", "evaluate.py"),
    ):
        monkeypatch.setattr("sys.argv", ["sweep.py", str(written(tmp_path, FILE.replace(old, new)))])
        with pytest.raises(InputError, match=words):
            sweep.main()
    assert not shell.commands
