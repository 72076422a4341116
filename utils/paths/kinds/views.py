"""Photographs' own cameras, one after another."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from utils.errors import InputError
from utils.paths.base import CameraPath, Chosen, PathConfig, Photographs


class ViewsPath(PathConfig):
    """The cameras of given views, with their lenses and sizes, beside which the photographs can be shown."""

    type: Literal["views"] = "views"
    views: Chosen = Field("test", description="a split, or names and numbers in their order")

    def cameras(self, shot: Photographs, frames: int | None = None) -> CameraPath:
        index = shot.chosen(self.views)
        if len(index) == 0:
            raise InputError(f"--path: views: {self.views} - no views in it - expected a split with views, or names")
        if frames is not None and frames != len(index):
            raise InputError(f"--frames: {frames} - the path is {len(index)} views - expected no --frames")
        return CameraPath(
            shot.camera_to_world[index], shot.intrinsics[index], shot.size[index].astype("int64"), views=index
        )
