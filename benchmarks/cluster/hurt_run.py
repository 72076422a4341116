"""A tiny run under torchrun that suffers faults on purpose: for counts of restarts, and for tests."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.machine import ROOT
from utils.siblings import PROCESSES

DATA = "data={type: procedural, views: 4, test_views: 1, size: 24}"
KEYS = ("train.rays=64", "train.minutes=null", "train.validations=0", "train.log_every=1", "device=cpu",
        "model.foreground.field.init=sphere")  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
HARMLESS = ("nan_gradient", "disk_full")  # after these no rank is started again
POLL_SECONDS = 0.02


def train_command(folder: Path, *keys: str, config: str = "neus_hash", data: str = DATA) -> list[str]:
    """The words after the interpreter that train a tiny run into `folder`."""
    return ["train.py", f"configs/{config}.yaml", data, *KEYS, f"output={folder}", *keys]


def torchrun(*options: str, ranks: int = 2) -> list[str]:
    """The words that start so many ranks on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options]


def started(command: list[str]) -> subprocess.Popen[str]:
    """A process in a group of its own, with all that it says in one pipe."""
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finished(command: list[str], *, code: int | None = 0, seconds: float = 300) -> tuple[str, float]:
    """What a command says, and the seconds that it takes; code: that it must end with (None: any)."""
    begun, process = time.monotonic(), started(command)
    said, _ = process.communicate(timeout=seconds)
    assert code is None or process.returncode == code, said[-3000:]
    return said, time.monotonic() - begun


@dataclass(frozen=True)
class Recovery:
    """A fault, and the seconds from it until new ranks were started, and until their first step was logged."""

    fault: str
    started: float
    stepped: float


@dataclass
class Watch:
    """Looks at a run folder and its agent's ranks: when faults happen, and when the next step comes after them.

    agent: the process that starts the ranks. The times of faults and steps are those of the files that tell of them.
    """

    folder: Path
    agent: int
    recoveries: list[Recovery] = field(default_factory=list)
    open_faults: dict[str, float] = field(default_factory=dict)  # that no step has followed, and their times
    _known: set[str] = field(default_factory=set)
    _ranks: set[int] = field(default_factory=set)
    _begun: float | None = None  # when the ranks of now were started, until their first step
    _size: int = 0

    def look(self) -> None:
        """Compare with what was there at the last look."""
        self._note_faults()
        ranks = children_of(self.agent)
        if ranks and not ranks & self._ranks:
            self._begun = time.time()
        self._ranks = ranks or self._ranks
        size, changed = _size_and_time(self.folder / "metrics.jsonl")
        if self._begun is not None and size > self._size and changed > self._begun:
            self._note_step(changed, self._begun)
        self._size = size

    def _note_faults(self) -> None:
        """A rank writes down each fault just before it happens."""
        for file in self.folder.glob("faults*.txt"):
            _, changed = _size_and_time(file)
            for name in file.read_text("utf-8").splitlines():
                if (key := f"{file.name}: {name}") not in self._known:
                    self._known.add(key)
                    if not name.startswith(HARMLESS):
                        self.open_faults.setdefault(name, changed)

    def _note_step(self, stepped: float, begun: float) -> None:
        for name, happened in self.open_faults.items():
            self.recoveries.append(Recovery(name, begun - happened, stepped - happened))
        self.open_faults.clear()
        self._begun = None

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look all the time, in a thread."""
        over = Event()

        def go_on() -> None:
            while not over.wait(POLL_SECONDS):
                self.look()

        thread = Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def children_of(process: int) -> set[int]:
    """The processes that it has started and not yet taken leave of; none where it has ended."""
    try:
        return {int(text) for text in (PROCESSES / f"{process}/task/{process}/children").read_text("ascii").split()}
    except OSError:
        return set()


def _size_and_time(file: Path) -> tuple[int, float]:
    """Bytes, and seconds since the epoch of the last change; zeros for a file that is not there."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0.0
    return found.st_size, found.st_mtime


@dataclass(frozen=True)
class Outcome:
    """What a run came to. code: None for one that did not end in time; digest: empty where no checkpoint was left."""

    code: int | None
    digest: str
    said: str
    recoveries: list[Recovery]
    missing: list[str]  # faults that no step has followed
    seconds: float
    cpu_seconds: float


def hurt(folder: Path, words: list[str], *, faults: str = "", restarts: int = 3, limit: float = 600) -> Outcome:
    """Train under torchrun by these words of `train_command`, with `debug.faults`; at most `limit` seconds."""
    begun, cpu = time.monotonic(), _cpu_of_children()
    extra = [f"debug.faults={faults}"] if faults else []
    process = started([*torchrun(f"--max-restarts={restarts}"), *words, *extra])
    watch = Watch(folder, process.pid)
    with watch.looking():
        code, said = _ended(process, limit)
    digest = hash_of(folder) if code == 0 else ""
    spent = _cpu_of_children() - cpu
    return Outcome(code, digest, said, watch.recoveries, list(watch.open_faults), time.monotonic() - begun, spent)


def _ended(process: subprocess.Popen[str], limit: float) -> tuple[int | None, str]:
    """The exit code and what was said; a process that takes too long is killed with all of its group."""
    try:
        said, _ = process.communicate(timeout=limit)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        ranks = children_of(process.pid)
        for number in (*ranks, process.pid):
            os.kill(number, signal.SIGKILL)
        return None, process.communicate()[0]


def _cpu_of_children() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def hash_of(folder: Path) -> str:
    """The SHA-256 of all that the newest checkpoint holds but the clocks; empty where there is none."""
    from utils.checkpoint import load_checkpoint, newest_checkpoint

    checkpoint = newest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        return ""
    state, _ = load_checkpoint(checkpoint)
    del state["clocks"]
    digest = sha256()
    _feed(digest, state)
    return digest.hexdigest()


def _feed(digest: Any, value: object) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
