"""A circle around the object, at any height and distance."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from utils.paths.base import Floats, MadePath, Photographs, Point


class OrbitPath(MadePath):
    """Around the up axis through the center, from the azimuth of the first training photograph.

    Lengths are in world units. A climb makes a helix of it, which does not close.
    """

    type: Literal["orbit"] = "orbit"
    radius: float | None = Field(None, gt=0, description="from the up axis; null: the photographs' median")
    height: float | None = Field(None, description="above the center, of the first frame; null: their median")
    turns: float = Field(1.0, ge=-100, le=100, description="below 0: the other way round")
    climb: float = Field(0.0, description="how much higher the last frame is than the first")
    center: Point | None = Field(None, description="what is looked at; null: what the photographs look at")

    def poses(self, shot: Photographs, frames: int) -> Floats:
        around = shot.around(self.center)
        azimuth, elevation, distance = around.angles(shot.training[:, :, 3])
        radius = self.radius or max(float(np.median(distance * np.cos(elevation))), 1e-9)
        height = float(np.median(distance * np.sin(elevation))) if self.height is None else self.height
        share = np.arange(frames) / frames
        heights = height + self.climb * np.arange(frames) / max(frames - 1, 1)
        turn = 2.0 * np.pi * self.turns * share
        return around.looking(azimuth[0] + turn, np.arctan2(heights, radius), np.hypot(heights, radius))
