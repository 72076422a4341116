"""A viewer beside a training: a process of its own, which may end at any time, and ends with the training.

It knows of the training's end, even by a kill, as the end of its standard input.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from utils.commands import words_of

ROOT = Path(__file__).resolve().parents[2]
ENDING = 5.0  # seconds that a viewer has to end in order


class Beside:
    """A viewer that was started; whatever happens to it is said in a line, and raises nothing."""

    def __init__(self, command: Sequence[str], say: Callable[[str], None], *, again: str) -> None:
        """Start it. say: takes a line for the user. again: the command that opens a viewer once this one has ended."""
        self.say, self.again = say, again
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the viewer
        self._text = b""  # a line that has come in part
        self._child: subprocess.Popen[bytes] | None = None
        try:  # a group of its own: Ctrl-C is for the training, which then ends the viewer
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                                           process_group=0)  # fmt: skip
            os.set_blocking(self._output, False)
        except OSError as error:
            self._errors.close()
            self._say_ended(f"did not start: {error}")

    @property
    def _output(self) -> int:
        assert self._child is not None and self._child.stdout is not None
        return self._child.stdout.fileno()

    def attend(self) -> None:
        """Say what the viewer has printed, and once that it has ended; waits for nothing."""
        if self._child is None:
            return
        code = self._child.poll()
        for line in self._lines():
            self.say(f"viewer: {line}")
        if code is not None:
            self._say_ended(f"ended with code {code}{self._reason()}")
            self.close()

    def _lines(self) -> list[str]:
        with suppress(BlockingIOError):
            while part := os.read(self._output, 1 << 16):
                self._text += part
        *lines, self._text = self._text.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _reason(self) -> str:
        """The last line of what it complained of."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - 4000, 0))
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((f" ({line.strip()[:200]})" for line in reversed(lines) if line.strip()), "")

    def _say_ended(self, how: str) -> None:
        self.say(f"viewer: {how}; the training goes on, and {self.again} opens another one")

    def close(self) -> None:
        """End the viewer, in order if it can; safe to call twice."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        try:
            child.wait(ENDING)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
        self._errors.close()


def view_beside(folder: Path, port: int, device: str, say: Callable[[str], None]) -> Beside:
    """Start the viewer of a run folder that is being trained into, on a port or the next free one."""
    command = [sys.executable, str(ROOT / "view.py"), str(folder), "--port", str(port), "--device", device]
    return Beside([*command, "--until-eof"], say, again=shlex.join([*words_of("view.py"), str(folder)]))
