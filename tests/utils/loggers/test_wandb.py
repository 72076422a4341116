"""Weights & Biases, by a package of that name that writes down how it is used: no login, no question, no harm."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import resume
from engine.experiment import read_config
from tests.engine.test_training import SMALL, SPHERE, trained
from tests.support.sources import ROOT
from utils import distributed
from utils.errors import InputError
from utils.log import MetricsWriter
from utils.loggers import wandb
from utils.loggers.wandb import WandbRun, check_installed, mode

FAKE = """
import json, os, time
fails = {fails!r}
def note(what, value):
    with open({out!r}, "a") as file:
        print(json.dumps([what, value]), file=file)
    if what == fails:
        raise Exception("no such project\\nsecond line")
    if fails == "slow " + what:
        time.sleep(0.5)
def init(**options):
    note("init", options)
    return Run()
def login(*a, **k):
    note("login", "")
def Image(picture):
    return list(picture.shape)
class Config:
    def update(self, values):
        note("config", values)
class Run:
    config = Config()
    def log(self, values, step):
        note("log", [step, values])
    def finish(self):
        note("finish", "")
"""
Installed = Callable[[str], Callable[[], list[Any]]]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Puts the package on the path; `fails` at that call. Returns what reads its notes."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_BASE_URL", *wandb.SETTINGS):
        monkeypatch.setenv(name, "x")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    monkeypatch.setattr(wandb, "MOST_SECONDS", 0.05)

    def install(fails: str) -> Callable[[], list[Any]]:
        notes = tmp_path / "notes"
        (tmp_path / "packages/wandb").mkdir(parents=True)
        text = FAKE.format(out=str(notes), fails=fails)
        (tmp_path / "packages/wandb/__init__.py").write_text(text, "utf-8")
        monkeypatch.syspath_prepend(tmp_path / "packages")
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        return lambda: [json.loads(line) for line in notes.read_text("utf-8").splitlines()]

    return install


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),  # it would ask for a login
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_API_KEY": "k"}, "online"),
        ({"WANDB_API_KEY": ""}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"NETRC": "machine api.wandb.ai login user password k"}, "online"),
        ({"NETRC": "machine other.org login user password k"}, "offline"),
        ({"NETRC": "machine own.org login user password k", "WANDB_BASE_URL": "https://own.org:8080/"}, "online"),
        ({"NETRC": "no \xff file"}, "offline"),
    ],
)
def test_numbers_are_sent_only_where_there_is_a_login(
    environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "netrc"
    if "NETRC" in environment:
        file.write_text(environment["NETRC"] + "\n", "latin-1")
    file.touch()
    file.chmod(0o600)
    assert mode({**environment, "NETRC": str(file)}) == expected


def test_what_a_run_logs_arrives(tmp_path: Path, installed: Installed) -> None:
    notes = installed("")
    run = trained(tmp_path / "run", 2, SPHERE, "log.wandb=true", "train.validations=1")
    found = notes()
    place = {"dir": str(tmp_path / "run"), "name": "run", "group": "run"}
    assert found[0] == ["init", {"project": wandb.PROJECT, "mode": "offline", **place}]
    assert found[1][0] == "config" and found[1][1]["train.steps"] == 2 and found[1][1]["log.wandb"] is True
    logged = [entry for what, entry in found if what == "log"]
    assert [step for step, values in logged if "train/psnr" in values] == [1, 2]
    assert [len(values["val/rgb_error_depth_normal"]) for _, values in logged if "val/rgb_error_depth_normal" in values]
    assert found[-1] == ["finish", ""] and "login" not in [what for what, _ in found] and run.step == 2


@pytest.mark.parametrize("fails", ["init", "config", "log", "finish", "slow finish"])
def test_its_failures_stop_no_run(
    fails: str, tmp_path: Path, installed: Installed, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = installed(fails)
    writer = MetricsWriter(tmp_path / "run", more=[WandbRun])
    writer.config("a: 1\n", {"a": 1})
    for step in range(3):
        writer.scalars(step, {"a": 1.0})
        writer.image(step, "b", np.zeros((2, 2, 3), np.uint8))
    writer.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: Weights & Biases not written: "), said
    assert said[0].endswith("; the run goes on") and len(notes()) == {"init": 1, "config": 2, "log": 3}.get(fails, 9)


def test_a_missing_package_is_one_line_before_any_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "find_spec", lambda name: None)
    config = read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, "log.wandb=true"])
    monkeypatch.setattr(type(config.data), "load", lambda self: pytest.fail("data were read"))
    with pytest.raises(InputError, match="log.wandb: true - the package wandb is missing - expected it"):
        resume.open_trainer(config, tmp_path / "run", distributed.setup("cpu"), allow_config_change=False)
    assert not (tmp_path / "run").exists()


def test_it_is_off_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_config(ROOT / "configs/neus_hash.yaml").log.wandb
    monkeypatch.setattr(wandb, "find_spec", importlib.util.find_spec)
    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(InputError):
            check_installed()
