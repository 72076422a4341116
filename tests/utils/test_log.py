"""Logs: what they say, what they keep on resuming, and that no disk can stop a run through them."""

import io
import json
import math
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.utils.test_checkpoint import exit_code, start_child
from utils.log import MetricsWriter, Progress


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if line]


def test_scalars_and_images_reach_both_logs(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "run")
    writer.scalars(1, {"train/loss": 0.5, "train/psnr": math.inf})
    writer.scalars(2, {"train/loss": float(np.float32(0.25))})
    writer.image(2, "val/0", np.zeros((4, 6, 3), np.uint8))
    writer.close()
    assert lines(tmp_path / "run") == [
        {"step": 1, "train/loss": 0.5, "train/psnr": None},
        {"step": 2, "train/loss": 0.25},
    ]
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert events.Images("val/0")[0].width == 6


def test_resuming_drops_what_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Files of one second and process differ by a counter, and are read by name: the tenth before the ninth.
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid._value", 0)
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3, 4):
        writer.scalars(step, {"a": step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "tor')
    writer = MetricsWriter(tmp_path, after=2)
    writer.scalars(3, {"a": 30})
    writer.close()
    assert [(line["step"], line["a"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 30)]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("a")] == [1, 2, 30]
    MetricsWriter(tmp_path).close()
    assert len(lines(tmp_path)) == 3
    assert not list(tmp_path.glob(".*"))


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "run", enabled=False)
    writer.scalars(1, {"a": 1})
    writer.image(1, "b", np.zeros((2, 2, 3), np.uint8))
    writer.close()
    assert not (tmp_path / "run").exists()


def test_without_tensorboard_there_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writer = MetricsWriter(tmp_path)
    writer.config("a: 1\n", {"a": 1})
    for step in range(5):
        writer.scalars(step, {"a": 1})
        writer.image(step, "b", np.zeros((2, 2, 3), np.uint8))
    writer.close()
    assert len(lines(tmp_path)) == 5
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: TensorBoard events not written")


@pytest.mark.parametrize("where", ["__init__", "scalars", "image", "config", "close"])
@pytest.mark.parametrize("error", [ValueError("odd\nvalue"), RuntimeError(), KeyError("x"), MemoryError("no")])
def test_a_logger_that_raises_is_switched_off_with_one_line(
    where: str, error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it raises, and wherever; the others and our own files go on."""
    used: list[str] = []

    def method(name: str) -> Callable[..., None]:
        def use(*arguments: object) -> None:
            used.append(name)
            if name == where:
                raise error

        return use

    names = ("__init__", "scalars", "image", "config", "close")
    broken: Any = type("Broken", (), {"name": "broken log", **{name: method(name) for name in names}})
    writer = MetricsWriter(tmp_path, more=[broken])
    writer.config("a: 1\n", {"a": 1})
    for step in range(3):
        writer.scalars(step, {"a": 1})
        writer.image(step, "b", np.zeros((2, 2, 3), np.uint8))
    writer.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: broken log not written: ")
    assert used.count(where) == 1 and len(lines(tmp_path)) == 3
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("a")) == 3


def test_our_own_files_stop_no_run_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = MetricsWriter(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()
    for step in range(3):
        writer.scalars(step, {"a": 1})
        writer.message(step, "\ud800")  # cannot be encoded
    writer.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "metrics.jsonl not written" in said[0]


def in_child(action: Callable[[], None], messages: Path) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of `action` in a process of its own."""

    def run() -> None:
        sys.stderr = messages.open("w")  # buffered: written when there is room again
        action()
        sys.stderr.flush()

    return exit_code(start_child(run)), messages.read_text().splitlines()


@pytest.mark.parametrize("limit", [0, 150, 2_000])
def test_a_full_disk_stops_no_run(tmp_path: Path, limit: int) -> None:
    def run() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        writer = MetricsWriter(tmp_path / "run")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for step in range(200):
            writer.scalars(step, {"a": 1.0})
            writer.image(step, "b", np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        writer.scalars(200, {"a": 2.0})
        writer.close()

    code, said = in_child(run, tmp_path / "messages")
    assert code == 0
    assert len(said) == 2 and all(line.endswith("the run goes on") for line in said)
    whole = [
        line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if line.endswith("}")
    ]
    assert json.loads(whole[-1]) == {"step": 200, "a": 2.0}


# --- the line on the screen ---------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_every_few_seconds() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(file, every=10, clock=clock)
    for step in range(1, 101):
        clock.now += 1
        notes = ["communication 20 %"] if step < 20 else []
        progress.update(step, step / 100, {"loss": 0.5, "psnr": 20 + step / 10}, rays=4096, notes=notes)
    progress.close()
    said = file.getvalue().splitlines()
    assert len(said) == 10
    assert said[0] == "step 10  10.0 %  loss 0.5  psnr 21  4.1k rays/s  communication 20 %  1:30 left"
    assert said[-1] == "step 100  100.0 %  loss 0.5  psnr 30  4.1k rays/s"


def test_a_terminal_has_one_line_that_messages_do_not_break() -> None:
    clock, screen = Clock(), Terminal()
    progress = Progress(screen, start=0.5, clock=clock)
    clock.now = 3600.0
    progress.update(7, 0.75, {"loss": 1e-3})
    assert screen.getvalue() == "\rstep 7  75.0 %  loss 0.001  1:00:00 left\x1b[K"
    progress.message("saved \x1b[31m")
    assert screen.getvalue().endswith("\r\x1b[Ksaved \\x1b[31m\nstep 7  75.0 %  loss 0.001  1:00:00 left")
    assert not progress.due()
    progress.update(8, 0.8, {"loss": 1.0})
    clock.now += 1
    progress.update(9, 0.9, {"name " * 40: 1.0})
    assert len(screen.getvalue().rsplit("\r", 1)[1]) < 200
    progress.close()
    assert "step 8" not in screen.getvalue() and screen.getvalue().endswith("\n")


def test_a_closed_screen_stops_no_run() -> None:
    screen = Terminal()
    progress = Progress(screen, clock=(clock := Clock()))
    screen.close()
    clock.now = 10
    progress.update(1, 0.5, {"loss": 1.0})
    progress.message("x")
    progress.close()
    assert not progress.enabled


def test_other_ranks_say_nothing() -> None:
    file = io.StringIO()
    progress = Progress(file, enabled=False, every=0)
    progress.update(1, 1.0, {"loss": 1.0})
    progress.message("x")
    progress.close()
    assert file.getvalue() == ""


def test_the_config_is_in_tensorboard(tmp_path: Path) -> None:
    """As text, and as values for its table of runs."""
    writer = MetricsWriter(tmp_path)
    writer.config("train:\n  steps: 5\n", {"train.steps": 5, "lr": 0.1, "device": "cpu", "a": None, "b": [1, 2]})
    writer.close()
    MetricsWriter(tmp_path / "other", enabled=False).config("a: 1\n", {"a": 1})
    events = EventAccumulator(str(tmp_path)).Reload()
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    train:\n      steps: 5\n" in text
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"train.steps" in content and b"cpu" in content and b"[1, 2]" in content
