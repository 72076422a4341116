"""What the RGB-D formats share: poses and intrinsics as small text files, frames without a pose, thinning."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dataio.checks.usable import pinhole
from dataio.files import Float64, notice, shown, within
from dataio.pictures.registration import DepthCamera
from dataio.scene import DataConfig
from utils.errors import InputError

MAX_MATRIX_BYTES = 4096


class RgbdData(DataConfig):
    """A recording of a room with a hand-held RGB-D camera."""

    shows_all: ClassVar[bool] = False  # frames without a pose are the recorder's, and many may be passed over

    every: int = Field(default=1, ge=1, description="take every n-th frame of a recording")

    def within(self, root: Path, paths: Iterable[Path]) -> list[Path]:
        """The paths, of files in the folder `root`. Raises InputError when one is a link that leads out of it."""
        return [within(root, path, allow_outside=self.allow_outside) for path in paths]


def read_matrix(path: Path, shapes: tuple[tuple[int, int], ...] = ((4, 4),)) -> Float64:
    """A matrix [M, N] in a text file, a row per line; nan and inf are numbers, # begins a remark. Raises InputError.

    shapes: those that are allowed.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_MATRIX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{shown(path)} - cannot be read: {error.strerror}") from error
    if len(content) > MAX_MATRIX_BYTES:
        raise InputError(f"{shown(path)} - got more than {MAX_MATRIX_BYTES} bytes - expected {shapes[0]} numbers")
    try:
        lines = [line.partition("#")[0].split() for line in content.decode("ascii").splitlines()]
        rows = [[float(word) for word in line] for line in lines if line]
        matrix = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{shown(path)} - not a matrix of numbers - expected {shapes[0]}") from error
    if matrix.shape not in shapes:
        raise InputError(f"{shown(path)} - got numbers {matrix.shape} - expected {shapes[0]}")
    return matrix


def calibration(matrix: Float64, where: str) -> Float64:
    """[4] fx fy cx cy in pixels, centers at +0.5, of a matrix [3, 3] or [4, 4] that has them at whole numbers.

    where: the place to name in the error. Raises InputError for a skew.
    """
    return pinhole(matrix, where) + np.array([0.0, 0.0, 0.5, 0.5])


def depth_camera(intrinsics: Float64, size: tuple[int, int], color_from_depth: Float64, where: str) -> DepthCamera:
    """The camera of a recording's depth images. Raises InputError for a focal length that is not positive.

    intrinsics: [4] fx fy cx cy in pixels, centers at +0.5. size: width, height. color_from_depth: [4, 4] rigid, world
    units. where: the place to name in the error.
    """
    if not (np.isfinite(intrinsics).all() and intrinsics[:2].min() > 0):
        raise InputError(
            f"{where} - focal length - got {intrinsics[0]:g}, {intrinsics[1]:g} - expected positive pixels"
        )
    return DepthCamera(intrinsics, size, color_from_depth)


def say_without_pose(lacking: int, count: int, where: str) -> None:
    """A line where some of `count` frames, `lacking`, have no file with a pose."""
    if lacking:
        notice(f"{where} - {lacking} of {count} frames have no file with a pose; they are left out")


def tracked(poses: Float64, where: str) -> npt.NDArray[np.bool_]:
    """Which of the poses [C, 4, 4] the recorder knew; one line about the others, which it marks by -inf or NaN.

    Raises InputError when it knew none.
    """
    known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(poses).all(axis=(1, 2)) & poses.any(axis=(1, 2)))
    lost = int((~known).sum())
    if lost == len(poses):
        raise InputError(f"{where} - got no pose for any of {lost} frames - expected camera-to-world matrices")
    if lost:
        notice(f"{where} - {lost} of {len(poses)} frames have no pose (tracking was lost); they are left out")
    return known
