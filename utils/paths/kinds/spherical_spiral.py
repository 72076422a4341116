"""Archimedes' spiral on a sphere: round and round while it rises."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from utils.paths.base import Floats, MadePath, Photographs, Point
from utils.paths.camera_paths import STEEPEST

Two = Annotated[tuple[int | str, ...], Field(min_length=2, max_length=2)]
ENDS = (5, 95)  # percentiles of the photographs' elevations


class SphericalSpiralPath(MadePath):
    """Whole turns about the up axis, the elevation in proportion to the azimuth; the center is looked at.

    From the place of one view to that of another, first and last frame, the distance going evenly (in its logarithm)
    from one's to the other's. Without views: from the lowest training photographs to the highest, at their median
    distance.
    """

    type: Literal["spherical_spiral"] = "spherical_spiral"
    turns: int = Field(3, ge=0, le=100, description="whole turns, beside what is between the two azimuths")
    views: Two | None = Field(None, description="the first and the last, by name or number")
    center: Point | None = Field(None, description="what is looked at; null: what the photographs look at")

    def poses(self, shot: Photographs, frames: int) -> Floats:
        around = shot.around(self.center)
        chosen = shot.training if self.views is None else shot.camera_to_world[shot.chosen(self.views)]
        azimuth, elevation, distance = around.angles(chosen[:, :, 3])
        if self.views is None:
            elevation = np.percentile(elevation, ENDS).clip(-STEEPEST, STEEPEST)
            azimuth, distance = azimuth[[0, 0]], np.median(distance).repeat(2)
        share = np.linspace(0.0, 1.0, frames)
        between = (azimuth[1] - azimuth[0]) % (2.0 * np.pi)
        turned = azimuth[0] + share * (between + 2.0 * np.pi * self.turns)
        far = np.exp(np.interp(share, (0.0, 1.0), np.log(distance.clip(1e-12))))
        return around.looking(turned, np.interp(share, (0.0, 1.0), elevation), far)
