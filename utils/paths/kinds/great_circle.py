"""A great circle through two photographs."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from utils.errors import InputError
from utils.paths.base import Floats, MadePath, Photographs, Point
from utils.paths.camera_paths import Around, look_at
from utils.paths.timing import shares_through

Two = Annotated[tuple[int | str, ...], Field(min_length=2, max_length=2)]


class GreatCirclePath(MadePath):
    """The whole circle through the places of two views about the center, which is looked at.

    Views at different distances from the center make a circle about the point nearest to it that is as far from one as
    from the other. Without views: the first training photograph, and the one nearest to a quarter turn from it.
    """

    type: Literal["great_circle"] = "great_circle"
    views: Two | None = Field(None, description="two, by name or number")
    center: Point | None = Field(None, description="what is looked at; null: what the photographs look at")

    def poses(self, shot: Photographs, frames: int) -> Floats:
        around = shot.around(self.center)
        if self.views is None:
            pair = quarter_apart(shot.training[:, :, 3], around)
        else:
            pair = shot.camera_to_world[shot.chosen(self.views), :, 3]
        places = circle_about(pair, around, frames, both=self.views is not None)
        return look_at(places, around.center, around.up)


def quarter_apart(places: Floats, around: Around) -> Floats:
    """[2, 3] the first of places [C, 3], and the one whose direction from the center is nearest to a right angle."""
    away = places - around.center
    away = away / np.linalg.norm(away, axis=1, keepdims=True).clip(1e-12)
    return places[[0, 1 + int(np.abs(away[1:] @ away[0]).argmin())]]


def circle_about(pair: Floats, around: Around, frames: int, *, both: bool = True) -> Floats:
    """[F, 3] on the great circle through two places [2, 3], from the first the short way by the second, closed.

    both: whether the second is among the frames too. Opposite ones have the circle that goes highest. Raises InputError
    where they are one.
    """
    a, b = pair
    apart = np.linalg.norm(b - a)
    if apart == 0:
        raise InputError("--path: great_circle: both views are at one place - expected two")
    along = (b - a) / apart
    middle = around.center + (((a + b) / 2.0 - around.center) @ along) * along
    first = a - middle
    radius = np.linalg.norm(first)
    towards = [b - middle, around.up, np.eye(3)[np.abs(first).argmin()]]  # each where the one before is no way across
    second = next(x for x in (_across(x, first) for x in towards) if np.linalg.norm(x) > 1e-6 * radius)
    second = second / np.linalg.norm(second) * radius
    turn = np.arctan2((b - middle) @ second, (b - middle) @ first) % (2.0 * np.pi) / (2.0 * np.pi)
    keys = np.array([0.0, turn, 1.0] if both else [0.0, 1.0])
    angle = 2.0 * np.pi * shares_through(keys, frames, closed=True)[:, None]
    return middle + np.cos(angle) * first + np.sin(angle) * second


def _across(vector: Floats, axis: Floats) -> Floats:
    """The part of a vector [3] across an axis [3]."""
    return vector - (vector @ axis) / (axis @ axis) * axis
