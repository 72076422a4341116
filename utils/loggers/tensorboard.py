"""TensorBoard: event files in the run folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HPARAM_METRICS = ("val/psnr", "train/psnr", "train/loss")  # in the table of runs


class EventFiles:
    """Scalars, pictures, the config as text and in the table of runs."""

    name = "TensorBoard events"

    def __init__(self, folder: Path, after: int | None) -> None:
        """after: what was written of later steps is left out when the files are read."""
        with warnings.catch_warnings(action="ignore"):
            from torch.utils.tensorboard import SummaryWriter
        self._events: Any = SummaryWriter(str(folder), purge_step=None if after is None else after + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As `Logger`."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def image(self, step: int, tag: str, picture: NDArray[np.uint8]) -> None:
        """As `Logger`; [H, W, 3]."""
        self._events.add_image(tag, picture, step, dataformats="HWC")

    def config(self, text: str, values: Mapping[str, Any]) -> None:
        """As `Logger`."""
        from torch.utils.tensorboard.summary import hparams

        self._events.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        for part in hparams(dict(values), dict.fromkeys(HPARAM_METRICS)):
            self._events.file_writer.add_summary(part)

    def close(self) -> None:
        """As `Logger`."""
        self._events.close()
