"""A circle through three photographs."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from utils.errors import InputError
from utils.paths.base import Floats, MadePath, Photographs, Point
from utils.paths.camera_paths import STEEPEST, look_at
from utils.paths.timing import shares_through

Three = Annotated[tuple[int | str, ...], Field(min_length=3, max_length=3)]


class SmallCirclePath(MadePath):
    """The whole circle through the places of three views, in their order, seen from which the center is looked at.

    Without views: the level circle at the training photographs' median elevation and distance.
    """

    type: Literal["small_circle"] = "small_circle"
    views: Three | None = Field(None, description="three, by name or number")
    center: Point | None = Field(None, description="what is looked at; null: what the photographs look at")

    def poses(self, shot: Photographs, frames: int) -> Floats:
        around = shot.around(self.center)
        if self.views is None:
            azimuth, elevation, distance = around.angles(shot.training[:, :, 3])
            level = np.clip(np.median(elevation), -STEEPEST, STEEPEST)
            return around.looking(azimuth[0] + 2.0 * np.pi * np.arange(frames) / frames, level, np.median(distance))
        places = circle_through(shot.camera_to_world[shot.chosen(self.views), :, 3], frames)
        return look_at(places, around.center, around.up)


def circle_through(places: Floats, frames: int) -> Floats:
    """[F, 3] on the circle through places [3, 3], from the first by the second to the third and on, closed.

    Each of the three is one of the frames. Raises InputError where they lie on a line.
    """
    a, b, c = places
    across = np.cross(b - a, c - a)
    squared = across @ across
    if squared < 1e-12 * ((b - a) @ (b - a)) * ((c - a) @ (c - a)) or squared == 0:
        raise InputError("--path: small_circle: the three views lie on a line - expected others")
    # The circumcenter, from the first corner.
    ab, ac = b - a, c - a
    middle = a + (np.cross(across, ab) * (ac @ ac) + np.cross(ac, across) * (ab @ ab)) / (2.0 * squared)
    first = a - middle
    second = np.cross(across / np.sqrt(squared), first)
    turn = np.arctan2((places - middle) @ second, (places - middle) @ first) % (2.0 * np.pi) / (2.0 * np.pi)
    share = shares_through(np.array([0.0, turn[1], turn[2], 1.0]), frames, closed=True)
    angle = 2.0 * np.pi * share[:, None]
    return middle + np.cos(angle) * first + np.sin(angle) * second
