"""What a run says as it goes: a line on the screen, metrics.jsonl, TensorBoard. None of it stops the run."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import printable

METRICS = "metrics.jsonl"
MESSAGES = "messages.jsonl"
MOST_LOG_BYTES = 1 << 28  # of a file that is read for a page
HPARAM_METRICS = ("val/psnr", "train/psnr", "train/loss")  # in TensorBoard's table of runs


class Progress:
    """One redrawn line on a terminal, a plain line every `every` seconds in a log file.

    `start` is the share of the budget that was used before this process, which a resumed run needs for its
    estimate of the time left. With `enabled=False` (ranks other than the main one) nothing is printed.
    """

    def __init__(
        self,
        stream: IO[str] | None = None,
        *,
        start: float = 0.0,
        every: float = 15.0,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = stream or sys.stderr
        self.enabled, self.clock = enabled, clock
        self.redraws = self.stream.isatty()
        self.every = 0.2 if self.redraws else every
        self.start, self.begun = start, clock()
        self.last, self.rays = self.begun, 0
        self.line = ""

    def update(self, step: int, share: float, values: Mapping[str, float], *, rays: int = 0) -> None:
        """Count `rays` more rays and, when it is time, show step, share, values, speed and time left.

        `values` are shown in their order, as `loss` and `psnr` of this step. Reading them from a GPU costs a
        wait: ask `due()` first.
        """
        self.rays += rays
        if not self.enabled or not (self.due() or share >= 1):
            return
        now = self.clock()
        speed = self.rays / max(now - self.last, 1e-9)
        words = [f"step {step}", f"{100 * share:.1f} %"]
        words += [f"{name} {value:.4g}" for name, value in values.items()]
        words += [f"{_thousands(speed)} rays/s"] if self.rays else []
        words += [f"{_duration(self._left(share, now))} left"] if share < 1 else []
        self._show("  ".join(words))
        self.last, self.rays = now, 0

    def due(self) -> bool:
        """Whether `update` would show something now."""
        return self.enabled and self.clock() - self.last >= self.every

    def message(self, text: str) -> None:
        """Print a line of its own, above the redrawn one."""
        if self.enabled:
            line = self.line
            self._write(("\r\x1b[K" if line else "") + printable(text) + "\n" + line)

    def close(self) -> None:
        """End the redrawn line."""
        if self.line:
            self._write("\n")
        self.line = ""

    def _left(self, share: float, now: float) -> float:
        done = share - self.start
        return (now - self.begun) / done * (1 - share) if done > 0 else math.inf

    def _show(self, text: str) -> None:
        if self.redraws:
            text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line cannot be redrawn
            self.line = text
            self._write(f"\r{text}\x1b[K")
        else:
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # the terminal has gone, or the file behind it is full or closed
            self.enabled = False


class MetricsWriter:
    """Appends scalars to `folder/metrics.jsonl` and both scalars and images to TensorBoard events; what the run says in
    words goes to `folder/messages.jsonl`.

    `after` is the step from which a run goes on: lines of later steps belong to a course that was abandoned
    and are dropped; None keeps all. A disk that does not take the logs costs one line of warning, never the
    run. With `enabled=False` (ranks other than the main one) nothing is written.
    """

    def __init__(self, folder: Path, *, after: int | None = None, enabled: bool = True) -> None:
        self.path, self.messages = folder / METRICS, folder / MESSAGES
        self.enabled = enabled
        self.torn: set[Path] = set()
        self.warned: set[str] = set()
        self.events: Any = None
        if not enabled:
            return
        for path in (self.path, self.messages):
            with self._harmless(str(path)):
                folder.mkdir(parents=True, exist_ok=True)
                if after is not None and path.exists():
                    _drop_after(path, after)
        with self._harmless("TensorBoard events"):
            self.events = _open_events(folder, None if after is None else after + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` of `step`, named as `train/psnr`: one line of JSON, null for NaN and infinity."""
        if not self.enabled:
            return
        finite = {name: float(v) if math.isfinite(v) else None for name, v in values.items()}
        with self._harmless(str(self.path)):
            self._append(self.path, json.dumps({"step": step, **finite}))
        with self._harmless("TensorBoard events"):
            for name, value in values.items() if self.events else ():
                self.events.add_scalar(name, float(value), step)

    def message(self, step: int, text: str) -> None:
        """Write what was said at a step, for who looks at the run later."""
        if self.enabled:
            with self._harmless(str(self.messages)):
                self._append(self.messages, json.dumps({"step": step, "text": text}))

    def image(self, step: int, tag: str, picture: NDArray[np.uint8]) -> None:
        """Write a picture [H, W, 3], uint8, to TensorBoard."""
        with self._harmless("TensorBoard events"):
            if self.events:
                self.events.add_image(tag, picture, step, dataformats="HWC")

    def config(self, text: str, values: Mapping[str, Any]) -> None:
        """Write the config of a run to TensorBoard: its text, and for the table of runs its values by key.

        Of the values those that are numbers, texts or bools stand in the table as they are, others as text; null is
        left out.
        """
        from torch.utils.tensorboard.summary import hparams

        plain = {key: value if isinstance(value, bool | int | float | str) else str(value)
                 for key, value in values.items() if value is not None}  # fmt: skip
        with self._harmless("TensorBoard events"):
            if self.events:
                self.events.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
                for part in hparams(plain, dict.fromkeys(HPARAM_METRICS)):
                    self.events.file_writer.add_summary(part)

    def close(self) -> None:
        """Write out what is still in memory."""
        with self._harmless("TensorBoard events"):
            if self.events:
                self.events.close()
        self.events = None

    def _append(self, path: Path, line: str) -> None:
        # After a failed write half a line may stand in the file: begin a new one.
        text = ("\n" if path in self.torn else "") + line + "\n"
        self.torn.add(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        self.torn.remove(path)

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ImportError) as error:
            if what not in self.warned:
                print(f"warning: {printable(what)} not written: {error}; the run goes on", file=sys.stderr)
            self.warned.add(what)
            if what not in (str(self.path), str(self.messages)):
                self.events = None  # its writer thread has ended with the error


def _open_events(folder: Path, purge_step: int | None) -> Any:
    with warnings.catch_warnings(action="ignore"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder), purge_step=purge_step)


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines of `path` up to `step`; lines that are torn go too."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    kept = [line for line in lines if 0 <= _step_of(line) <= step]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text("".join(line + "\n" for line in kept), "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _thousands(number: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of metrics.jsonl or messages.jsonl that are whole; each has its step."""
    for line in text_of(path).splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def text_of(path: Path) -> str:
    """A text file of a run; nothing where it cannot be read, or is too large."""
    try:
        return path.read_text("utf-8", errors="replace") if path.stat().st_size <= MOST_LOG_BYTES else ""
    except OSError:
        return ""
