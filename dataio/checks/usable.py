"""Which cameras cannot be used, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dataio import lens as lenses
from dataio.files import MAX_BAD_SHARE, notice, shown
from dataio.lens import Lens
from utils.errors import InputError

Float64 = npt.NDArray[np.float64]

ORTHONORMAL_TOLERANCE = 1e-3
# Far beyond every map's coordinates and every lens; larger numbers overflow on the way.
MOST_COORDINATE, MOST_FOCAL = 1e12, 1e9
MOST_SKEW = 1e-2  # of the focal length; rays have none


def pinhole(matrix: Float64, where: str) -> Float64:
    """[4] fx fy cx cy of a calibration matrix [3, 3] or [4, 4], as it stands there. Raises InputError for a skew.

    where: the place to name in the error.
    """
    fx, skew = float(matrix[0, 0]), float(matrix[0, 1])
    if abs(skew) > MOST_SKEW * abs(fx):
        raise InputError(f"{where} - got a skew of {skew:.3g} pixels - expected square axes")
    return np.array([fx, matrix[1, 1], matrix[0, 2], matrix[1, 2]])


def check_cameras(
    camera_to_world: Float64,
    intrinsics: Float64,
    size: npt.NDArray[np.int64],
    names: Sequence[str],
    *,
    where: str,
    key: str = "transform_matrix",
    distortion: Float64 | None = None,
    lens: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.bool_]:
    """Which of C cameras are sound; says how many are not, and refuses the set when they are many.

    camera_to_world: [C, 4, 4]. intrinsics: [C, 4] fx fy cx cy. size: [C, 2] width, height. names: of the views.
    where: the file that they come from. key: what a pose is called there. distortion: [C, 8 or 12]. lens: [C].
    Returns [C] bool. Raises InputError when there is no camera, when all poses are equal, and when more than
    a fifth is not finite, not a rotation (orthonormal to 1e-3, determinant +1), without a positive focal
    length, with the principal point outside the image, or with a distortion that folds the image over.
    """
    if len(names) == 0:
        raise InputError(f"{where} - got no images - expected at least one")
    faults = [_pose_fault(pose) for pose in camera_to_world]
    faults = [fault and f"{key} {fault}" for fault in faults]
    for view, fault in enumerate(faults):
        bend = np.zeros(8) if distortion is None else distortion[view]
        kind = Lens.BROWN if lens is None else Lens(int(lens[view]))
        faults[view] = fault or _lens_fault(intrinsics[view], size[view], bend, kind)
    sound = drop_faulty(faults, names, where=where, limit=MAX_BAD_SHARE, what="views")
    poses = camera_to_world[sound]
    if len(poses) > 1 and np.ptp(poses[:, :3, :], axis=0).max() == 0:
        raise InputError(f"{where}: {key} - all {len(poses)} poses are equal - expected the camera to move")
    return sound


def drop_faulty(
    faults: Sequence[str], names: Sequence[str], *, where: str, limit: float, what: str
) -> npt.NDArray[np.bool_]:
    """Leave out the views with a fault: one line with their number, InputError above the share `limit`.

    faults: per view what is wrong, or "". Returns [C] bool, True where the view stays.
    """
    sound = np.array([not fault for fault in faults], dtype=bool)
    bad = np.flatnonzero(~sound)
    if len(bad):
        first = f"{shown(names[bad[0]])}: {faults[bad[0]]}"
        text = f"{where} - {len(bad)} of {len(faults)} {what} cannot be used, the first is {first}"
        if len(bad) > limit * len(faults):
            raise InputError(f"{text} - expected at most {limit:.0%} bad")
        notice(f"{text}; they are left out")
    return sound


def _pose_fault(pose: Float64) -> str:
    if not np.isfinite(pose).all():
        return "- got NaN or infinity - expected a finite camera-to-world matrix"
    if np.abs(pose).max() > MOST_COORDINATE:
        return f"- got {np.abs(pose).max():.2g} - expected coordinates below {MOST_COORDINATE:g}"
    rotation = pose[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if error > ORTHONORMAL_TOLERANCE:
        return f"- the rotation is not orthonormal - off by {error:.2g} - expected {ORTHONORMAL_TOLERANCE}"
    if np.linalg.det(rotation) < 0:
        return "- the rotation is mirrored (determinant -1) - expected a right-handed frame"
    return ""


def _lens_fault(intrinsics: Float64, size: npt.NDArray[np.int64], bend: Float64, kind: Lens) -> str:
    fx, fy, cx, cy = (float(x) for x in intrinsics)
    width, height = (int(x) for x in size)
    if not (np.isfinite(intrinsics).all() and 0 < fx < MOST_FOCAL and 0 < fy < MOST_FOCAL):
        return f"focal length - got {fx:g}, {fy:g} - expected positive pixels"
    if not (0 < cx < width and 0 < cy < height):
        return f"principal point - got {cx:g}, {cy:g} - expected inside the image of {width} x {height}"
    if not (np.abs(bend) < MOST_FOCAL).all():
        return "distortion - got NaN or infinity - expected finite coefficients"
    folds = _folds if kind == Lens.BROWN else _folds_inside
    if bend.any() and folds(intrinsics, width, height, bend, kind):
        return f"distortion - got {np.trim_zeros(bend, 'b').tolist()} - the lens folds the image over"
    return ""


def _border(intrinsics: Float64, width: int, height: int) -> torch.Tensor:
    """Normalized coordinates [36, 2] of points on the image's border."""
    along = np.linspace(0, 1, 9)
    border = np.concatenate([[[a, 0], [a, 1], [0, a], [1, a]] for a in along]) * (width, height)
    return torch.from_numpy((border - intrinsics[2:]) / intrinsics[:2])


def _folds(intrinsics: Float64, width: int, height: int, bend: Float64, kind: Lens) -> bool:
    """Whether some point of the image's border has no unique ideal point."""
    plane = _border(intrinsics, width, height)
    coefficients = torch.from_numpy(bend).expand(len(plane), len(bend))
    ideal = lenses.undistort(plane, coefficients)
    back = lenses.distort(ideal, coefficients)
    error_pixels = (back - plane).abs().max() * float(intrinsics[:2].max())
    # A root beyond the turning point of the radial curve is a wrong one: outwards must stay outwards.
    outwards = (lenses.distort(ideal * 1.001, coefficients) - back).mul(plane).sum(-1) >= 0
    return not (bool(torch.isfinite(error_pixels)) and float(error_pixels) < 0.1 and bool(outwards.all()))


def _folds_inside(intrinsics: Float64, width: int, height: int, bend: Float64, kind: Lens) -> bool:
    """Whether some point halfway to the border has no direction: a fisheye's corners may lie beyond its circle."""
    plane = _border(intrinsics, width, height) / 2
    coefficients = torch.from_numpy(bend).expand(len(plane), len(bend))
    model = lenses.PROJECTIONS[kind]
    error_pixels = (model.plane(model.directions(plane, coefficients), coefficients) - plane).abs().max()
    error_pixels = error_pixels * float(intrinsics[:2].max())
    return not (bool(torch.isfinite(error_pixels)) and float(error_pixels) < 0.1)


def orthonormal(camera_to_world: Float64) -> Float64:
    """The nearest rigid poses: [C, 4, 4] with rotations that are orthonormal to rounding."""
    left, _, right = np.linalg.svd(camera_to_world[:, :3, :3])
    rigid = camera_to_world.copy()
    rigid[:, :3, :3] = left @ right
    rigid[:, 3] = (0, 0, 0, 1)
    return rigid
