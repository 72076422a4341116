"""Checkpoints under every fault that can be made here: kills, full disks, flipped bits, foreign files."""

import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.saving.writer import CheckpointWriter
from utils import checkpoint, fail_points
from utils.checkpoint import (
    Keep,
    StorageError,
    best_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from utils.errors import InputError

FILE_EVENTS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
}


def state_of(step: int, size: int = 8) -> dict[str, Any]:
    return {
        "step": step,
        "model": OrderedDict(weight=torch.full((size,), float(step))),
        "rng": [1, (2, "x", None)],
    }


def save(folder: Path, step: int, *, size: int = 8, keep: int = 3) -> Path:
    """By the thread that a training saves with."""
    writer = CheckpointWriter(folder)
    writer.begin(step, state_of(step, size), info={"config": "abc"}, keep=Keep(keep))
    assert writer.wait()
    return folder / f"step_{step:08d}"


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start_child(action: Callable[[], None]) -> int:
    """Run `action` in a forked process and return its number; it exits 0, or 1 with a traceback."""
    with warnings.catch_warnings(action="ignore"):  # newer Pythons warn of forks beside threads
        pid = os.fork()
    if pid:
        return pid
    try:
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 1000)
    assert path == tmp_path / "checkpoints" / "step_00001000"
    state, manifest = load_checkpoint(path)
    assert torch.equal(state["model"].pop("weight"), torch.full((8,), 1000.0))
    assert state == {"step": 1000, "model": {}, "rng": [1, (2, "x", None)]}
    assert manifest["step"] == 1000 and manifest["format"] == 1 and manifest["info"] == {"config": "abc"}
    assert (path.parent / "latest").read_text() == "step_00001000\n"
    assert steps(path) == ["manifest.json", "state.pt"]


def test_no_checkpoints_is_no_fault(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "missing") is None


def test_old_ones_are_pruned_and_abandoned_ones_too(tmp_path: Path) -> None:
    for step in (9, 10, 100, 99_999_999, 100_000_000):
        save(tmp_path, step)
    assert steps(tmp_path) == ["latest", "step_00000100", "step_100000000", "step_99999999"]
    assert newest_checkpoint(tmp_path) == tmp_path / "step_100000000"
    save(tmp_path, 150, keep=2)
    assert steps(tmp_path) == ["latest", "step_00000100", "step_00000150"]
    save_checkpoint(tmp_path, 150, {"again": True}, info={})
    assert load_checkpoint(tmp_path / "step_00000150")[0] == {"again": True}
    assert steps(tmp_path) == ["latest", "step_00000100", "step_00000150"]


def test_what_is_to_be_kept_is_kept(tmp_path: Path) -> None:
    for step in range(1, 11):
        save_checkpoint(tmp_path, step, state_of(step), info={}, keep=Keep(last=1, every=4, best=step == 3))
    assert steps(tmp_path) == ["best", "latest", "step_00000003", "step_00000004", "step_00000008", "step_00000010"]
    assert best_checkpoint(tmp_path) == tmp_path / "step_00000003"
    (tmp_path / "step_00000003" / "state.pt").write_bytes(b"")
    assert best_checkpoint(tmp_path) is None
    (tmp_path / "best").write_text("../../etc", "utf-8")
    assert best_checkpoint(tmp_path) is None


@pytest.mark.parametrize("value", [{1, 2}, object(), torch.float32, lambda: 0, torch.Size([1]), b"x"])
def test_only_plain_values_are_taken(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"state\.a\.1: a checkpoint holds tensors and plain values"):
        save_checkpoint(tmp_path, 1, {"a": [0, value]}, info={})
    assert steps(tmp_path) == []


# --- damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [250, pytest.param(5000, marks=pytest.mark.slow)])
def test_every_flipped_bit_and_cut_is_found(tmp_path: Path, flips: int) -> None:
    """So many of each of two files, and a fifth as many cuts."""
    path = save(tmp_path, 1, size=100)
    generator = random.Random(0)
    for name in ("manifest.json", "state.pt"):
        good = (path / name).read_bytes()
        drawn = [(generator.randrange(len(good)), 1 << generator.randrange(8)) for _ in range(flips)]
        damaged = [good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :] for i, bit in drawn]
        damaged += [good[: generator.randrange(len(good))] for _ in range(flips // 5)] + [b"", good + b"\n"]
        for content in damaged:
            (path / name).write_bytes(content)
            with pytest.raises(InputError):
                load_checkpoint(path)
        (path / name).write_bytes(good)
    load_checkpoint(path)


def test_damaged_ones_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step_00000003" / "state.pt").write_bytes(b"")
    (tmp_path / "step_00000002" / "manifest.json").unlink()
    assert newest_checkpoint(tmp_path) == tmp_path / "step_00000001"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("warning: ") for line in lines)
    assert "step_00000003/state.pt: damaged: 0 bytes" in lines[0] and "not a complete checkpoint" in lines[1]
    shutil.rmtree(tmp_path / "step_00000001")
    with pytest.raises(InputError, match="no checkpoint can be read"):
        newest_checkpoint(tmp_path)


def write_sealed(path: Path, state: bytes, **changes: Any) -> None:
    """A checkpoint whose digests hold, whatever it contains."""
    path.mkdir()
    (path / "state.pt").write_bytes(state)
    manifest = json.loads(checkpoint._manifest(1, state, {}))
    manifest.pop("blake2b")
    (path / "manifest.json").write_bytes(checkpoint._sealed({**manifest, **changes}))


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    for number, legacy in enumerate((True, False)):
        buffer = io.BytesIO()
        torch.save({"x": Evil(tmp_path / "canary")}, buffer, _use_new_zipfile_serialization=legacy)
        write_sealed(tmp_path / f"step_{number}", buffer.getvalue())
        with pytest.raises(InputError, match="not tensors and plain values"):
            load_checkpoint(tmp_path / f"step_{number}")
    assert not (tmp_path / "canary").exists()


def test_foreign_and_newer_ones_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save([1], buffer)
    write_sealed(tmp_path / "list", buffer.getvalue())
    write_sealed(tmp_path / "newer", buffer.getvalue(), format=2)
    write_sealed(tmp_path / "noise", b"no pickle at all")
    write_sealed(tmp_path / "other", b"", files={})
    (tmp_path / "file").write_text("x")
    said = {}
    for name in ("list", "newer", "noise", "other", "file", "missing"):
        with pytest.raises(InputError) as caught:
            load_checkpoint(tmp_path / name)
        said[name] = str(caught.value)
        assert "\n" not in said[name]
    assert "expected a mapping, got list" in said["list"]
    assert "format 2, this program reads up to 1" in said["newer"]
    assert "not tensors and plain values" in said["noise"]
    assert "not the manifest of a checkpoint" in said["other"]
    assert "not a complete checkpoint" in said["file"] and "not a complete checkpoint" in said["missing"]


# --- kills and full disks -----------------------------------------------------------------------------------


def check_recovery(folder: Path, least: int, most: int) -> None:
    newest = newest_checkpoint(folder)
    assert newest is not None
    state, _ = load_checkpoint(newest)
    assert least <= state["step"] <= most
    assert bool((state["model"]["weight"] == state["step"]).all())
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("last", [4, 3], ids=["new step", "same step"])
def test_a_kill_at_any_file_operation_loses_nothing(tmp_path: Path, last: int) -> None:
    for step in (1, 2, 3):
        save(tmp_path / "before", step)

    def killed_at(count: int) -> None:
        left = count

        def watch(event: str, _: object) -> None:
            nonlocal left
            left -= event in FILE_EVENTS
            if left == 0:
                os._exit(137)

        sys.addaudithook(watch)
        save(folder, last)

    for count in range(1, 100):
        folder = tmp_path / f"kill_{count}"
        shutil.copytree(tmp_path / "before", folder)
        code = exit_code(start_child(partial(killed_at, count)))
        # While a step is written again, the one before stands in for it for a moment.
        check_recovery(folder, 3 if last == 4 else 2, last)
        if code == 0:
            break
        assert code == 137
    assert count > 15 and steps(folder)[-1] == f"step_{last:08}"


@pytest.mark.parametrize("point", [name for name in fail_points.NAMES if name.startswith("checkpoint.")])
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_at_a_fail_point_loses_at_most_one(tmp_path: Path, point: str, times: int) -> None:
    for step in range(1, 4):
        save(tmp_path, step)
    for step in range(4, 4 + times):

        def killed(step: int = step) -> None:
            fail_points.arm(point, fail_points.killed)
            save(tmp_path, step)

        assert exit_code(start_child(killed)) == -signal.SIGKILL
        newest = newest_checkpoint(tmp_path)
        assert newest is not None and int(load_checkpoint(newest)[0]["step"]) >= step - 1
        assert not list(tmp_path.glob(".*"))
        save(tmp_path, step)


@pytest.mark.parametrize("kills", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_at_most_one(tmp_path: Path, kills: int) -> None:
    generator = random.Random(0)
    for trial in range(kills):
        folder = tmp_path / str(trial)
        save(folder, 0, size=100_000)
        reading, writing = os.pipe()

        def loop(folder: Path = folder, writing: int = writing) -> None:
            for step in range(1, 10_000):
                save(folder, step, size=100_000)
                os.write(writing, b".")

        pid = start_child(loop)
        os.close(writing)
        time.sleep(generator.uniform(0.01, 0.08))
        os.kill(pid, signal.SIGKILL)
        assert exit_code(pid) == -signal.SIGKILL
        with os.fdopen(reading, "rb") as pipe:
            done = len(pipe.read())
        check_recovery(folder, done, done + 1)
        shutil.rmtree(folder)


DRAWN = [pytest.param(random.Random(seed).randrange(3_900_000), marks=pytest.mark.slow) for seed in range(100)]


@pytest.mark.parametrize("limit", [0, 100, 5_000, 30_000, *DRAWN])
def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path, limit: int) -> None:
    folder = tmp_path / "checkpoints"
    save(folder, 1)

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            save(folder, 2, size=1_000_000)
        except StorageError as error:
            os._exit(0 if str(error) == f"disk full at {folder}, 5 MB needed" else 3)
        os._exit(4)

    assert exit_code(start_child(fill)) == 0
    check_recovery(folder, 1, 1)
    assert steps(folder) == ["latest", "step_00000001"]


def test_other_storage_faults_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="checkpoint not written"):
        save(tmp_path / "file", 1)


def test_what_reads_back_wrong_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda path, data: write(path, bytes(data[:-1]) + b"?"))
    with pytest.raises(StorageError, match="is the disk failing"):
        save(tmp_path, 2)
    assert steps(tmp_path) == ["latest", "step_00000001"]


def test_temporaries_of_the_living_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint.socket, "gethostname", lambda: "here")
    dead = start_child(lambda: None)
    exit_code(dead)
    names = [f".step_2.here.{pid}.tmp" for pid in (dead, os.getpid(), os.getppid())] + [".step_2.there.1.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / f".latest.here.{dead}.tmp").touch()
    newest_checkpoint(tmp_path)
    assert sorted(path.name for path in tmp_path.glob(".*")) == sorted(names[2:])
