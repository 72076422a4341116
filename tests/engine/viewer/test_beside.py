"""A viewer beside a training: what it says is passed on, its end is a line, and it never outlives the training."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import train
from engine import early, resume, signals
from engine.step_guard import NumbersError
from engine.viewer import beside
from engine.viewer.beside import Beside
from tests.engine.test_training import SMALL
from tests.support.sources import ROOT
from utils.errors import InputError

ON_EOF = "import pathlib, sys; print('here', flush=True); sys.stdin.read(); pathlib.Path(sys.argv[1]).touch()"
DEAF = "import time; print('here', flush=True); time.sleep(60)"
DYING = "import sys; print('here\\nthere', flush=True); sys.stderr.write('Traceback\\nBoom: no memory\\n'); sys.exit(3)"
STARTER = """
import sys, time
from engine.viewer.beside import Beside
viewer = Beside([sys.executable, "-S", "-c", *sys.argv[1:]], print, again="view.py RUN")
while True:
    viewer.attend()
    sys.stdout.flush()
    time.sleep(0.05)
"""
VIEW = """
import pathlib, sys
sys.stdout.write(" ".join(sys.argv[1:]) + "\\n")
sys.stdout.flush()
sys.stdin.read()
(pathlib.Path(sys.argv[1]) / "ended").touch()
"""


def started(code: str, *words: str) -> tuple[Beside, list[str]]:
    said: list[str] = []
    return Beside([sys.executable, "-S", "-c", code, *words], said.append, again="view.py RUN"), said


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def attended(viewer: Beside, said: list[str], lines: int) -> None:
    def enough() -> bool:
        viewer.attend()
        return len(said) >= lines

    wait_for(enough)


def test_a_viewer_that_dies_is_one_line_and_no_more() -> None:
    viewer, said = started(DYING)
    attended(viewer, said, 3)
    for _ in range(3):
        viewer.attend()
    viewer.close()
    ended = "viewer: ended with code 3 (Boom: no memory); the training goes on, and view.py RUN opens another one"
    assert said == ["viewer: here", "viewer: there", ended]


def test_a_viewer_that_is_killed_is_one_line() -> None:
    viewer, said = started(DEAF)
    attended(viewer, said, 1)
    assert viewer._child is not None
    viewer._child.kill()
    attended(viewer, said, 2)
    assert said[1:] == ["viewer: ended with code -9; the training goes on, and view.py RUN opens another one"]


def test_a_viewer_that_cannot_start_is_one_line() -> None:
    said: list[str] = []
    viewer = Beside(["/nowhere/python"], said.append, again="view.py RUN")
    viewer.attend()
    viewer.close()
    assert len(said) == 1 and said[0].startswith("viewer: did not start: ") and "goes on" in said[0]


def test_the_end_of_a_training_is_the_end_of_its_viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order where it listens, by force where it does not, and nothing is said of it."""
    viewer, said = started(ON_EOF, str(tmp_path / "in order"))
    attended(viewer, said, 1)
    viewer.close()
    assert (tmp_path / "in order").exists() and said == ["viewer: here"]
    monkeypatch.setattr(beside, "ENDING", 0.2)
    viewer, said = started(DEAF)
    child = viewer._child
    assert child is not None
    viewer.close()
    viewer.close()
    viewer.attend()
    assert child.returncode == -9 and said == []


def test_a_training_that_is_killed_takes_its_viewer_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, ON_EOF, str(tmp_path / "ended")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None and starter.stdout.readline() == b"viewer: here\n"
        starter.kill()
    wait_for(lambda: (tmp_path / "ended").exists())


class Training:
    """Of a trainer what train.py asks of it: one step, which waits until the viewer has printed something."""

    def __init__(self, said: list[str], viewer: list[Beside], error: Exception | None) -> None:
        self.line, self.said, self.viewer, self.error = SimpleNamespace(message=said.append), said, viewer, error
        self.progress = 0.0

    def leaves(self, asked: bool) -> bool:
        return asked

    def step_once(self) -> None:
        select.select([self.viewer[0]._output], [], [], 20)
        self.progress = 1.0

    def attend(self, stopped: Callable[[], bool]) -> None:
        """No viewer asks."""

    def finish(self) -> None:
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Nothing was opened."""


@pytest.mark.parametrize("error", [None, NumbersError("not finite"), KeyboardInterrupt()], ids=["end", "error", "bug"])
def test_a_training_starts_the_viewer_of_its_run_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """A stand-in for view.py says what it was called with."""
    (tmp_path / "view.py").write_text(VIEW)
    monkeypatch.setattr(beside, "ROOT", tmp_path)
    said: list[str] = []
    viewers: list[Beside] = []
    start = beside.view_beside

    def starting(*arguments: Any) -> Beside:
        viewers.append(start(*arguments))
        return viewers[0]

    monkeypatch.setattr(beside, "view_beside", starting)
    monkeypatch.setattr(resume, "open_trainer", lambda *a, **b: Training(said, viewers, error))
    monkeypatch.setattr(signals, "StopSignals", lambda: SimpleNamespace(received=False, exit_code=0))
    run = tmp_path / "run"
    run.mkdir()
    words = [str(ROOT / "configs/neus_hash.yaml"), *SMALL, f"output={run}", "--view", "--view-port", "7123"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(KeyboardInterrupt) if isinstance(error, KeyboardInterrupt) else nullcontext():
        assert train.main() == (0 if error is None else 3)
    assert said == [f"viewer: {run} --port 7123 --device cpu --until-eof"]
    assert (run / "ended").exists() and viewers[0]._child is None


@pytest.mark.parametrize("option", [["--view"], ["--view-port", "7123"]])
def test_what_a_viewer_needs_is_looked_for_before_all_else(option: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["train.py", "nowhere.yaml", *option])
    with pytest.raises(InputError, match=r"^viser is not installed - pip install -r requirements-view.txt"):
        train.main()
