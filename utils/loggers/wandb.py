"""Weights & Biases (wandb, optional): nobody is asked for a login, and without one all stays on this disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError

PROJECT = "surfaces-from-photographs"  # unless WANDB_PROJECT says it
SERVER = "https://api.wandb.ai"
# Its own output stays off the screen, and a server that does not answer is given up soon.
SETTINGS = {
    "WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false", "WANDB_INIT_TIMEOUT": "30",
}  # fmt: skip
MOST_SECONDS = 30.0  # to send the rest when a run ends
LOCAL = ("offline", "disabled", "dryrun")


def check_installed() -> None:
    """Raise InputError where the package is missing."""
    if find_spec("wandb") is None:
        wanted = "expected it (pip install 'wandb>=0.29'), or log.wandb=false"
        raise InputError(f"log.wandb: true - the package wandb is missing - {wanted}")


def mode(environment: Mapping[str, str]) -> str:
    """What WANDB_MODE says, but never that numbers are sent where there is no login; with one, and no word, online."""
    asked = environment.get("WANDB_MODE", "")
    return (asked or "online") if asked in LOCAL or logged_in(environment) else "offline"


def logged_in(environment: Mapping[str, str]) -> bool:
    """Whether there is a key for the server, in the environment or in a login file."""
    if environment.get("WANDB_API_KEY"):
        return True
    server = urlsplit(environment.get("WANDB_BASE_URL", SERVER)).hostname or ""
    named = environment.get("NETRC")
    for file in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with suppress(OSError, NetrcParseError, UnicodeDecodeError):
            if netrc(str(file)).hosts.get(server):
                return True
    return False


class WandbRun:
    """A run there, for each time that a run is started here; those of one folder are a group."""

    name = "Weights & Biases"

    def __init__(self, folder: Path, after: int | None) -> None:
        """after: is not needed, since what is logged from there on is a run of its own."""
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        import wandb

        self._library: Any = wandb
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        place = {"dir": str(folder), "name": folder.name, "group": folder.name}
        self._run: Any = wandb.init(project=project, mode=mode(os.environ), **place)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As `Logger`."""
        self._run.log(dict(values), step=step)

    def image(self, step: int, tag: str, picture: NDArray[np.uint8]) -> None:
        """As `Logger`; [H, W, 3]."""
        self._run.log({tag: self._library.Image(picture)}, step=step)

    def config(self, text: str, values: Mapping[str, Any]) -> None:
        """As `Logger`; the text says nothing that the values do not."""
        self._run.config.update(dict(values))

    def close(self) -> None:
        """As `Logger`. Raises TimeoutError when the server does not take the rest in time: no run waits for it."""
        failed: list[Exception] = []

        def finish() -> None:
            try:
                self._run.finish()
            except Exception as error:  # raised again below
                failed.append(error)

        ending = Thread(target=finish, name="wandb", daemon=True)
        ending.start()
        ending.join(MOST_SECONDS)
        if ending.is_alive():
            raise TimeoutError(f"not all was sent within {MOST_SECONDS:.0f} s (wandb sync sends it later)")
        for error in failed:
            raise error
