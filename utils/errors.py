"""Errors that a user can act on, and the frame in which every script runs."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

BAD_INPUT, STORAGE, MEMORY, INTERRUPTED, BROKEN_PIPE = 2, 4, 5, 130, 141


class InputError(Exception):
    """Something the user gave cannot be used; each line of the text names place, what was got, what to do."""


class StorageError(OSError):
    """The disk did not take or did not give back what was written to it."""


def leave_at_once() -> None:
    """Let `run_script` end the process as soon as `main` has ended, without Python's own clearing up."""
    global _at_once
    _at_once = True


_at_once = False


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and leave the process with the documented exit code.

    0 (or what `main` returns) on success, 2 after an `InputError`, 4 after a `StorageError`, 5 when memory does
    not suffice, a GPU's or the host's, 130 after Ctrl-C, 141 when the reader of our output has gone. Known errors are
    printed as `error: <line>` on stderr; their traceback is shown only with `--debug` on the command line. Other
    exceptions are bugs and pass through.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except InputError as error:
        code = _report(error, BAD_INPUT)
    except StorageError as error:
        code = _report(error, STORAGE)
    except (MemoryError, RuntimeError) as error:
        # torch's own class is a RuntimeError; to import it for its name would take a second.
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        code = _report(error if str(error) else MemoryError("out of memory"), MEMORY)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit: give it a place that takes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    if _at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _report(error: Exception, code: int) -> int:
    if "--debug" in sys.argv[1:]:
        traceback.print_exception(error)
    for line in str(error).splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a file's name cannot drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
