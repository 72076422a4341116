"""A camera path from a file of nerfstudio's viewer: its cameras as they are, or its key frames anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from utils.errors import InputError
from utils.paths.base import FRAMES, CameraPath, PathConfig, Photographs
from utils.paths.path_file import MOST_FRAMES, read_file
from utils.paths.through import through
from utils.paths.timing import Easing


class FilePath(PathConfig):
    """Without a number of frames, the file's cameras; with one, a spline through its key frames, each at one frame.

    The matrices are in the frame of the data (world); where dataparser_transforms.json lies beside the file, in
    nerfstudio's, which is undone.
    """

    type: Literal["file"] = "file"
    path: Path = Field(description="a .json of nerfstudio's viewer, or of --save-path")
    easing: Easing = Field("linear", description="of the way through the key frames")

    def cameras(self, shot: Photographs, frames: int | None = None) -> CameraPath:
        found = read_file(self.path)
        if found.cameras is not None and frames in (None, len(found.cameras)):
            return replace(found.cameras, fps=found.fps)
        if found.keys is None or len(found.keys) < 2:
            said = f"--frames: {frames} - {self.path} has {len(found.cameras or found.keys or ())} cameras"
            raise InputError(f"{said} and no two key frames to go through - expected no --frames")
        if frames is None:
            frames = round(found.seconds * found.fps) if found.seconds and found.fps else FRAMES
        if frames > MOST_FRAMES:
            raise InputError(f"{self.path}: fps and seconds - {frames} frames - expected at most {MOST_FRAMES}")
        return self._through(found.keys, max(frames, 1), loop=found.loop)

    def _through(self, keys: CameraPath, frames: int, *, loop: bool) -> CameraPath:
        """So many cameras through those of the file, focal lengths between theirs in proportion."""
        way = through(keys.camera_to_world, frames, easing=self.easing, loop=loop)
        own = np.concatenate([keys.intrinsics, keys.intrinsics[:1]]) if loop else keys.intrinsics
        between = [np.exp(np.interp(way.share, way.keys, np.log(column))) for column in own.T]
        return replace(keys, camera_to_world=way.poses, intrinsics=np.stack(between, axis=1))
