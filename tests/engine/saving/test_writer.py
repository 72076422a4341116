"""Checkpoints that a thread writes: what they hold, how one waits for them, what becomes of errors."""

from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from engine.saving.writer import CheckpointWriter, host_copy
from utils import fail_points
from utils.checkpoint import Keep, StorageError, load_checkpoint, newest_checkpoint


def begin(writer: CheckpointWriter, step: int, state: dict[str, Any]) -> None:
    writer.begin(step, state, info={}, keep=Keep())


def held_up() -> Event:
    """The next checkpoint is written when this is set."""
    event = Event()
    fail_points.arm("checkpoint.write", lambda: None if event.wait(20) else pytest.fail("nobody let it go on"))
    return event


def test_a_checkpoint_is_of_the_moment_when_it_was_begun(tmp_path: Path) -> None:
    writer, go_on = CheckpointWriter(tmp_path), held_up()
    weight, numbers = torch.ones(3), [1.0]
    begin(writer, 1, {"a": {"weight": weight, "view": weight[1:]}, "b": numbers})
    weight.fill_(7.0)
    numbers[0] = 7.0
    assert not writer.wait(0.0) and newest_name(tmp_path) is None
    go_on.set()
    assert writer.wait() and writer.wait(0.0)
    state, _ = load_checkpoint(tmp_path / "step_00000001")
    assert state["a"]["weight"].tolist() == [1.0] * 3 and state["a"]["view"].tolist() == [1.0] * 2
    assert state["b"] == [1.0]


def newest_name(folder: Path) -> str | None:
    """Read from the outside, since to look would take what is half written away."""
    return next((path.name for path in sorted(folder.glob("step_*"), reverse=True)), None)


def test_one_is_written_at_a_time(tmp_path: Path) -> None:
    writer, go_on = CheckpointWriter(tmp_path), held_up()
    order: list[str | None] = []
    for _ in range(2):  # who comes to it sees what stands then
        fail_points.arm("checkpoint.open", lambda: order.append(newest_name(tmp_path)))
    begin(writer, 1, {"a": 1})
    go_on.set()
    begin(writer, 2, {"a": 2})
    writer.wait()
    assert order == [None, "step_00000001"] and newest_checkpoint(tmp_path) == tmp_path / "step_00000002"


@pytest.mark.parametrize("how", ["wait", "begin"])
def test_an_error_is_raised_once_and_the_next_one_is_written(tmp_path: Path, how: str) -> None:
    writer = CheckpointWriter(tmp_path)
    fail_points.arm("checkpoint.sync", fail_points.raising(OSError(28, "No space left on device")))
    begin(writer, 1, {"a": torch.ones(2)})
    with pytest.raises(StorageError, match="disk full at .*, 1 MB needed"):
        writer.wait() if how == "wait" else begin(writer, 2, {})
    assert writer.wait() and not list(tmp_path.iterdir())
    begin(writer, 3, {"a": 3})
    assert writer.wait() and newest_checkpoint(tmp_path) == tmp_path / "step_00000003"


def test_errors_that_are_none_of_the_disk_are_raised_too(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path)
    begin(writer, 1, {"a": {1, 2}})
    with pytest.raises(TypeError, match=r"state\.a: a checkpoint holds tensors"):
        writer.wait()
    assert writer.wait() and not list(tmp_path.iterdir())


def test_copies_share_no_memory_and_keep_bits() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    tensors = [torch.tensor([float("nan"), -0.0, 1e-45]), torch.arange(6).view(2, 3).T, parameter]
    copied = host_copy({"x": tensors, "y": (1, "z", None)})
    assert copied["y"] == (1, "z", None) and isinstance(copied["x"], list)
    for one, other in zip(tensors, copied["x"], strict=True):
        assert one.data_ptr() != other.data_ptr() and not other.requires_grad
        assert one.detach().numpy().tobytes() == other.numpy().tobytes() and one.dtype == other.dtype


def test_without_a_thread_it_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("engine.saving.writer.Thread.start", refuse)
    writer = CheckpointWriter(tmp_path)
    writer.begin(3, {"model": torch.arange(4)}, info={}, keep=Keep(2))
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.name == "step_00000003" and writer.wait()
