"""What a logger is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Logger(Protocol):
    """Takes what a run logs. It may raise anything: `utils.log.MetricsWriter` then goes on without it."""

    @property
    def name(self) -> str:
        """In words, for the warning."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, named as `train/psnr`; they need not be finite."""

    def image(self, step: int, tag: str, picture: NDArray[np.uint8]) -> None:
        """A picture [H, W, 3] of a step."""

    def config(self, text: str, values: Mapping[str, Any]) -> None:
        """The config: as YAML, and its values by key, each a bool, a number or a text."""

    def close(self) -> None:
        """Write out what is still in memory."""


class OpenLogger(Protocol):
    """A class of loggers, or what makes one."""

    @property
    def name(self) -> str:
        """As the logger's."""

    def __call__(self, folder: Path, after: int | None) -> Logger:
        """Open it for a run folder, which goes on after that step, or begins."""
