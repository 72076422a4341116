"""Mistakes on the command line are answered in one line, with what to write, and without waiting for torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import mistakes
from tests.support.sources import ROOT, scripts

CLOSE = 30.0  # seconds; on a quiet machine an answer takes half of one: `python -m benchmarks.mistakes`


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it lies after a checkout, without the dates at which its files were edited."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.glob("*.py"):
        shutil.copyfile(path, folder / path.name)
    for name in ("configs", "dataio", "engine", "models", "utils"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, copy_function=shutil.copyfile)
    return folder


def test_every_mistake_has_one_line(checkout: Path, tmp_path: Path) -> None:
    found = list(mistakes.answers(tmp_path, root=checkout))
    assert len(found) >= 30
    assert [(answer.command, answer.code, answer.lines, answer.torch) for answer in found if not answer.good] == []
    assert max(answer.seconds for answer in found) < CLOSE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file", "file.yaml", "run"]


def test_no_script_is_left_out() -> None:
    assert {words[0] for words, _ in mistakes.MISTAKES} == {path.name for path in scripts()}
