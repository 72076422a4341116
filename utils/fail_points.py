"""Points in file operations at which something can be made to go wrong, once; at all other times they do nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

# In the order in which a checkpoint passes them.
NAMES = (
    "checkpoint.open",
    "checkpoint.write",
    "checkpoint.sync",
    "checkpoint.rename",
    "checkpoint.renamed",
    "checkpoint.latest",
    "checkpoint.prune",
    "file.write",
    "file.rename",
)
_armed: dict[str, list[Callable[[], None]]] = {}


def reach(name: str) -> None:
    """Pass a point: what it is armed with happens, and is then gone."""
    if _armed.get(name):
        _armed[name].pop(0)()


def arm(name: str, action: Callable[[], None]) -> None:
    """Let `action` happen when the point is next passed; further ones at the times after."""
    if name not in NAMES:
        raise ValueError(f"no fail-point {name!r}: expected one of {', '.join(NAMES)}")
    _armed.setdefault(name, []).append(action)


def killed() -> None:
    """As if the machine had gone: no clearing up."""
    os.kill(os.getpid(), signal.SIGKILL)


def raising(error: OSError) -> Callable[[], None]:
    """What raises `error`."""

    def fail() -> None:
        raise error

    return fail
