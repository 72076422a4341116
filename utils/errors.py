"""Errors that a user can act on, and the frame in which every script runs."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

BAD_INPUT, STORAGE, MEMORY, RANK_LOST, INTERRUPTED, BROKEN_PIPE = 2, 4, 5, 6, 130, 141
# What torch, CUDA's and the system's libraries say, as plain RuntimeErrors, when memory does not suffice, the host's or
# a GPU's; the latter of what torch does not allocate itself.
NO_MEMORY = (
    *("DefaultCPUAllocator", "not enough memory", "annot allocate memory", "can't start new thread", "bad_alloc"),
    *("CUDA error: out of memory", "STATUS_ALLOC_FAILED"),
)


class InputError(Exception):
    """Something the user gave cannot be used; each line of the text names place, what was got, what to do."""


class StorageError(OSError):
    """The disk did not take or did not give back what was written to it."""


def leave_at_once() -> None:
    """Let `run_script` end the process as soon as `main` has ended, without Python's own clearing up."""
    global _at_once
    _at_once = True


_at_once = False


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, a GPU's or the host's."""
    # torch's own class is a RuntimeError; to import it for its name would take a second.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def memory_line(error: BaseException, advice: str) -> str:
    """What is said of an error of memory, in one line. advice: what may help."""
    asked = re.search(r"allocate (\d+) bytes", str(error))
    first = next(iter(str(error).splitlines()), "") or "out of memory"
    return f"{f'out of memory: {int(asked[1]) / 2**20:,.0f} MiB were asked for' if asked else first} - {advice}"


def run_script(
    main: Callable[[], int | None], *, memory: str = "a machine with more of it, or less work, may help"
) -> NoReturn:
    """Run a script's `main` and leave the process with the documented exit code.

    memory: what may help where memory does not suffice, with the keys to lower.

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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit: give it a place that takes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except Exception as error:
        if not out_of_memory(error):
            raise
        code = _report(error, MEMORY, memory_line(error, memory))
    if _at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _report(error: Exception, code: int, text: str | None = None) -> int:
    if "--debug" in sys.argv[1:]:
        traceback.print_exception(error)
    for line in (text or str(error)).splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a file's name cannot drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
