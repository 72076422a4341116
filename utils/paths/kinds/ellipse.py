"""An ellipse as wide as the photographs stand."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from utils.paths.base import Floats, MadePath, Photographs, Point
from utils.paths.camera_paths import look_at

FINE = 4000  # places on an ellipse at which its length is measured
WIDE = 90  # percentile of the photographs' distances from the center, along each axis


class EllipsePath(MadePath):
    """In a level plane about the center, its axes along those of the cameras' spread, at even speed.

    As in mip-NeRF 360 (Barron et al., 2022), an axis is as long as the 90th percentile of the cameras' distances along
    it.
    """

    type: Literal["ellipse"] = "ellipse"
    stretch: float = Field(1.0, gt=0, le=100, description="of both axes")
    height: float | None = Field(None, description="above the center, world units; null: the photographs' median")
    center: Point | None = Field(None, description="what is looked at; null: what the photographs look at")

    def poses(self, shot: Photographs, frames: int) -> Floats:
        around = shot.around(self.center)
        away = shot.training[:, :, 3] - around.center
        rise = away @ around.up
        flat = away - rise[:, None] * around.up
        _, _, axes = np.linalg.svd(flat, full_matrices=False)  # the third is up, along which there is nothing
        first = axes[0] - (axes[0] @ around.up) * around.up
        first /= np.linalg.norm(first)
        second = np.cross(around.up, first)
        long, short = (self.stretch * np.percentile(np.abs(flat @ axis), WIDE) for axis in (first, second))
        turn = even_turns(max(long, 1e-9), max(short, 1e-9), frames)
        height = float(np.median(rise)) if self.height is None else self.height
        places = long * np.cos(turn)[:, None] * first + short * np.sin(turn)[:, None] * second
        return look_at(around.center + places + height * around.up, around.center, around.up)


def even_turns(long: float, short: float, frames: int) -> Floats:
    """[F] parameters of an ellipse with these half axes, at even steps along it, closed."""
    turn = np.linspace(0.0, 2.0 * np.pi, FINE + 1)
    speed = np.hypot(long * np.sin(turn), short * np.cos(turn))
    way = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2.0)])
    return np.interp(np.arange(frames) / frames * way[-1], way, turn)
