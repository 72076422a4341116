"""What every protocol is given, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from dataio.cameras import Cameras
from dataio.pictures.images import UInt8
from utils.config.parts import Part
from utils.errors import InputError

Floats = NDArray[np.float64]
UNCOUNTED = (128, 128, 128)


@dataclass(frozen=True)
class Sight:
    """What looked at the place: cameras in the world frame, and which of their views were trained on.

    masks: reads [H, W] of each camera, 255 on the object; None where there are none. times_seen: of points [N, 3],
    world units, how many training views saw each [N].
    """

    cameras: Cameras
    train: NDArray[np.int64]
    masks: Callable[[], Sequence[UInt8] | None]
    times_seen: Callable[[Floats], NDArray[np.int64]]


@dataclass(frozen=True)
class Subject:
    """A mesh to be scored, in the world frame, and what it is compared with.

    reference: the file or folder with the truth. up: [3], world frame, of a .glb. sight: looks when it is asked; None
    where neither a run nor data were named.
    """

    mesh: trimesh.Trimesh
    reference: Path
    up: Floats | None = None
    sight: Callable[[], Sight] | None = None

    def seen(self, reason: str) -> Sight:
        """What looked at the place; raises InputError, with the reason why it is needed, where nothing is known."""
        if self.sight is None:
            raise InputError(f"--data: not given - {reason} - expected a run, or --data PATH with its cameras")
        return self.sight()


@dataclass(frozen=True)
class Scored:
    """Numbers by name, and for a picture of them the mesh as it was scored, in the frame of the truth.

    error: [V] distance of each vertex to the truth, NaN where it does not count. worst: the error of the reddest.
    """

    numbers: Mapping[str, Any]
    mesh: trimesh.Trimesh
    error: Floats
    worst: float


class ProtocolConfig(Part):
    """Scores a mesh against the truth."""

    def score(self, subject: Subject) -> Scored:
        """Raises InputError for a reference that is not laid out as the protocol has it."""
        raise TypeError("a protocol defines score")


def error_colors(scored: Scored) -> UInt8:
    """[V, 3] white where a vertex is right, red from the worst error on, gray where it does not count."""
    share = np.clip(np.nan_to_num(scored.error) / scored.worst, 0.0, 1.0)
    white_to_red = np.column_stack([np.ones_like(share), 1 - share, 1 - share])
    colors = np.rint(255 * white_to_red).astype(np.uint8)
    colors[~np.isfinite(scored.error)] = UNCOUNTED
    return colors


def need_points(points: Floats, what: str) -> Floats:
    """The points [N, 3]; raises InputError where there are none to compare."""
    if len(points) == 0:
        raise InputError(f"{what} - nothing is left of it to compare - are mesh and truth in the same frame and units?")
    return points
