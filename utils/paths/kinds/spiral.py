"""A tour that suits how the cameras stand."""

from __future__ import annotations

from typing import Literal

from utils.paths.base import Floats, MadePath, Photographs
from utils.paths.camera_paths import spiral_path


class SpiralPath(MadePath):
    """Around an object, before it on an arc, or through a place, closed: see `spiral_path`."""

    type: Literal["spiral"] = "spiral"

    def poses(self, shot: Photographs, frames: int) -> Floats:
        return spiral_path(shot.training, frames, up=shot.up)
