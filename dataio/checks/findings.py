"""What a check of a data set may look at, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dataio.files import Float64, shown
from dataio.scene import DataConfig, Scene
from dataio.views import Views

Bool = npt.NDArray[np.bool_]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing about the data that a user may want to know or change."""

    severity: Severity  # error: training would fail; warning: it would suffer; note: good to know
    check: str  # a word or two, such as "blur"
    text: str  # what was found
    fix: str  # the key or command that mends it
    views: tuple[int, ...] = ()  # the views that it is about, if it is about some

    def line(self) -> str:
        """The finding as one line of text."""
        return shown(f"{self.severity}: {self.check}: {self.text} - {self.fix}")


@dataclass(frozen=True)
class Patient:
    """A data set under examination: its views as the files have them, its scene in small pictures."""

    config: DataConfig
    views: Views  # the sound ones; full size, world frame
    scene: Scene
    shrink: int  # pixels of the photographs per pixel of the scene's pictures

    def names(self, views: Sequence[int] | npt.NDArray[np.integer]) -> str:
        """The names of some views, given by their indices [N]; the first few."""
        listed = ", ".join(self.scene.names[v] for v in views[:NAMES_SHOWN])
        return listed + (", ..." if len(views) > NAMES_SHOWN else "")

    @property
    def centers(self) -> Float64:
        """[C, 3] camera positions, scene units."""
        return self.scene.cameras.centers.double().numpy()

    @property
    def forward(self) -> Float64:
        """[C, 3] unit optical axes, scene frame."""
        return self.scene.cameras.forward.double().numpy()


def unusual(values: Float64, *, floor: float) -> Float64:
    """How many robust standard deviations each value [N] is from the median; their deviation is >= `floor`."""
    middle = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - middle))
    return np.asarray((values - middle) / max(float(deviation), floor))


def of_neighbors(patient: Patient, values: Float64, *, count: int = 6) -> Float64:
    """Each value [C] less the median of those of the views that look from nearly the same place, same direction."""
    centers, forward = patient.centers, patient.forward
    spread = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).mean()) or 1.0
    result = np.empty(len(values))
    for view in range(len(values)):
        apart = np.linalg.norm(centers - centers[view], axis=1) / spread + 1 - forward @ forward[view]
        apart[view] = np.inf
        near = np.argsort(apart, kind="stable")[:count]
        result[view] = values[view] - (np.median(values[near]) if len(values) > 1 else values[view])
    return result
