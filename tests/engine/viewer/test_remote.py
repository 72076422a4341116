"""A training that a viewer pauses: it waits, goes on by itself, and its clock stands still."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.trainer import Trainer
from engine.viewer import remote
from engine.viewer.remote import EVERY, STALE, Remote
from tests.engine.viewer.test_beside import wait_for
from utils.run_lock import RunLock


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_pause_lasts_while_it_is_touched(tmp_path: Path) -> None:
    clock = Clock()
    asked = Remote(tmp_path, clock=clock)
    assert not asked.paused() and not asked.due()
    clock.now += EVERY
    assert asked.due() and not asked.due()
    remote.ask_to_pause(tmp_path)
    for second in range(60):
        clock.now += 1
        os.utime(tmp_path / remote.PAUSE, (second, second))  # by a machine whose clock is far behind
        assert asked.paused()
    remote.let_go_on(tmp_path)
    remote.let_go_on(tmp_path)
    assert not asked.paused()


def test_a_viewer_that_has_gone_pauses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    asked = Remote(tmp_path, clock=clock)
    remote.ask_to_pause(tmp_path)
    assert asked.paused()
    clock.now += STALE - 0.1
    assert asked.paused()
    clock.now += 0.2
    assert not asked.paused() and not (tmp_path / remote.PAUSE).exists()


def test_a_checkpoint_is_taken_once(tmp_path: Path) -> None:
    asked, saved = Remote(tmp_path), list[str]()
    remote.ask_to_save(tmp_path)
    for _ in range(2):
        assert asked.attend(lambda: saved.append("x"), saved.append, lambda: False) == 0.0
    assert saved == ["x"]


def test_a_signal_ends_a_pause(tmp_path: Path) -> None:
    said: list[str] = []
    remote.ask_to_pause(tmp_path)
    assert Remote(tmp_path).attend(lambda: None, said.append, lambda: True) < 1.0
    assert said == ["paused by a viewer", "going on after 0 s"]


def test_the_time_of_a_pause_does_not_count(tmp_path: Path) -> None:
    """Of a trainer its clocks and what asks; several ranks do not look."""
    asked: Any = SimpleNamespace(due=lambda: True, attend=lambda save, say, stopped: 1000.0)
    run: Any = SimpleNamespace(remote=asked, clock=5.0, _try_to_save=None, _say=None)
    run.saving = SimpleNamespace(begun_at=7.0)
    for world, expected in ((2, (5.0, 7.0)), (1, (1005.0, 1007.0))):
        run.ranks = SimpleNamespace(world=world)
        Trainer.attend(run, lambda: False)
        assert (run.clock, run.saving.begun_at) == expected


def test_who_trains_is_seen_without_taking_the_lock(tmp_path: Path) -> None:
    assert not remote.is_training(tmp_path)
    lock = RunLock(tmp_path)
    assert remote.is_training(tmp_path)
    lock.release()
    assert not remote.is_training(tmp_path)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / ".lock").write_text(f"process {ended.stdout.strip()} on {socket.gethostname()}\n")
    assert not remote.is_training(tmp_path), "killed: its words are still there"
    (tmp_path / ".lock").write_text("process 1 on elsewhere\n")
    assert not remote.is_training(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    assert remote.is_training(tmp_path), "another machine that has just logged"
    os.utime(tmp_path / "metrics.jsonl", (time.time() - 3600,) * 2)
    assert not remote.is_training(tmp_path)


def test_a_first_checkpoint_is_asked_for_and_waited_for(tmp_path: Path) -> None:
    """Of a training that has none; one that has one, or that does not run, is asked for nothing."""
    ended = threading.Event()
    remote.await_checkpoint(tmp_path, ended)
    assert not (tmp_path / remote.SAVE).exists(), "nobody trains"
    lock, asked = RunLock(tmp_path), Remote(tmp_path)
    waits = threading.Thread(target=remote.await_checkpoint, args=(tmp_path, ended))
    waits.start()
    wait_for(asked.take_save)
    assert waits.is_alive()
    (tmp_path / "checkpoints/step_00000001").mkdir(parents=True)
    (tmp_path / "checkpoints/step_00000001/manifest.json").touch()
    waits.join(20)
    assert not waits.is_alive()
    remote.await_checkpoint(tmp_path, ended)
    assert not asked.take_save(), "it is there"
    lock.release()


def test_who_waits_for_a_checkpoint_ends_with_the_training(tmp_path: Path) -> None:
    """Or with whoever started the viewer."""
    for end in ("training", "input"):
        lock, ended = RunLock(tmp_path), threading.Event()
        waits = threading.Thread(target=remote.await_checkpoint, args=(tmp_path, ended))
        waits.start()
        wait_for(Remote(tmp_path).take_save)
        if end == "training":
            lock.release()
        else:
            ended.set()
        waits.join(20)
        assert not waits.is_alive()
        lock.release()
