"""What a run says as it goes: a line on the screen, metrics.jsonl, TensorBoard. None of it stops the run."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray

from utils.errors import first_line, printable
from utils.loggers.base import Logger, OpenLogger
from utils.loggers.tensorboard import EventFiles

METRICS = "metrics.jsonl"
MESSAGES = "messages.jsonl"
MOST_LOG_BYTES = 1 << 28  # of a file that is read for a page


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

    def update(
        self, step: int, share: float, values: Mapping[str, float], *, rays: int = 0, notes: Sequence[str] = ()
    ) -> None:
        """Count `rays` more rays and, when it is time, show step, share, values, speed, notes and time left.

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
        words += notes
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
    """Appends scalars to `folder/metrics.jsonl`, and what the run says in words to `folder/messages.jsonl`; hands both
    scalars and images to loggers, TensorBoard first of all.

    `after` is the step from which a run goes on: lines of later steps belong to a course that was abandoned
    and are dropped; None keeps all. What is not written costs one line of warning, never the run: the two files are
    tried again, a logger that raises is switched off. With `enabled=False` (ranks other than the main one) nothing is
    written.
    """

    def __init__(
        self, folder: Path, *, after: int | None = None, enabled: bool = True, more: Sequence[OpenLogger] = ()
    ) -> None:
        """more: what opens loggers beside TensorBoard's."""
        self.path, self.messages = folder / METRICS, folder / MESSAGES
        self.enabled = enabled
        self.torn: set[Path] = set()
        self.warned: set[str] = set()
        self.loggers: list[Logger] = []
        if not enabled:
            return
        for path in (self.path, self.messages):
            with self._harmless(str(path)):
                folder.mkdir(parents=True, exist_ok=True)
                if after is not None and path.exists():
                    _drop_after(path, after)
        every: list[OpenLogger] = [EventFiles, *more]
        for opened in every:
            with self._harmless(opened.name):
                self.loggers.append(opened(folder, after))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` of `step`, named as `train/psnr`: one line of JSON, null for NaN and infinity."""
        if not self.enabled:
            return
        finite = {name: float(v) if math.isfinite(v) else None for name, v in values.items()}
        with self._harmless(str(self.path)):
            self._append(self.path, json.dumps({"step": step, **finite}))
        self._each(lambda logger: logger.scalars(step, {name: float(value) for name, value in values.items()}))

    def message(self, step: int, text: str) -> None:
        """Write what was said at a step, for who looks at the run later."""
        if self.enabled:
            with self._harmless(str(self.messages)):
                self._append(self.messages, json.dumps({"step": step, "text": text}))

    def image(self, step: int, tag: str, picture: NDArray[np.uint8]) -> None:
        """Hand a picture [H, W, 3], uint8, to the loggers."""
        self._each(lambda logger: logger.image(step, tag, picture))

    def config(self, text: str, values: Mapping[str, Any]) -> None:
        """Hand the config of a run to the loggers: its text, and its values by key.

        Of the values those that are numbers, texts or bools stand in a table as they are, others as text; null is
        left out.
        """
        plain = {key: value if isinstance(value, bool | int | float | str) else str(value)
                 for key, value in values.items() if value is not None}  # fmt: skip
        self._each(lambda logger: logger.config(text, plain))

    def close(self) -> None:
        """Write out what is still in memory."""
        self._each(lambda logger: logger.close())
        self.loggers = []

    def _each(self, use: Callable[[Logger], None]) -> None:
        """Use each logger; one that raises is used no more."""
        for logger in list(self.loggers):
            with self._harmless(logger.name):
                use(logger)
                continue
            self.loggers.remove(logger)

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
        except Exception as error:  # libraries raise what they like, and no log is worth a run
            if what not in self.warned:
                reason = printable(first_line(error))[:300]
                print(f"warning: {printable(what)} not written: {reason}; the run goes on", file=sys.stderr)
            self.warned.add(what)


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


def weakly(say: Callable[[str], None]) -> Callable[[str], None]:
    """The same method, which does not keep its object alive: that goes when it is done, not at the next collection."""
    method = WeakMethod(say)

    def told(message: str) -> None:
        alive = method()
        if alive is not None:
            alive(message)

    return told
