"""From photograph to photograph along splines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from utils.paths.base import Chosen, Floats, MadePath, Photographs
from utils.paths.camera_paths import interpolated_path
from utils.paths.through import through
from utils.paths.timing import Easing


class InterpolatePath(MadePath):
    """Through the poses of chosen views exactly, in their order, each at one frame; or there and back through all.

    Positions follow a cubic spline and orientations a rotation spline, at even speed but for the easing.
    """

    type: Literal["interpolate"] = "interpolate"
    views: Chosen | None = Field(
        None, description="names or numbers in their order, or a split; null: there and back through the training views"
    )
    easing: Easing = Field("linear", description="of the whole way: in: from standing, out: to standing, in_out: both")
    loop: bool = Field(False, description="on to the first view again, which follows the last frame")

    @model_validator(mode="after")
    def _views_are_named(self) -> InterpolatePath:
        if self.views is None and (self.loop or self.easing != "linear"):
            raise ValueError("easing and loop go with chosen views; expected views: [NAME, ...]")
        return self

    def poses(self, shot: Photographs, frames: int) -> Floats:
        if self.views is None:
            return interpolated_path(shot.training, frames)
        keys = shot.camera_to_world[shot.chosen(self.views)]
        return through(keys, frames, easing=self.easing, loop=self.loop).poses
