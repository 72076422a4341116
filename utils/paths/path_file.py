"""Camera paths as nerfstudio's viewer and the Blender add-on write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError
from utils.files import write_json

Floats = NDArray[np.float64]
LARGEST_FILE = 64 << 20
MOST_FRAMES = 100_000
FARTHEST = 1e12  # world units
SMALLEST_FOV = 1e-3  # degrees
FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class CameraPath:
    """F cameras in world units, OpenCV axes."""

    camera_to_world: Floats  # [F, 3, 4]
    intrinsics: Floats  # [F, 4]: fx, fy, cx, cy in pixels
    size: tuple[int, int]  # width, height


def read_path(path: Path) -> CameraPath:
    """Read `camera_path`, `render_width` and `render_height`; each camera: a matrix and a vertical fov.

    The matrices are camera-to-world with OpenGL axes, row by row; the frame is taken to be that of the data.
    fov is in degrees. Raises InputError for everything that does not fit.
    """
    data = _load(path)
    cameras = data.get("camera_path") if isinstance(data, dict) else None
    if not isinstance(cameras, list) or not 0 < len(cameras) <= MOST_FRAMES:
        raise InputError(f"{path}: camera_path - expected a list of 1 to {MOST_FRAMES} cameras")
    size = _whole(path, data, "render_width"), _whole(path, data, "render_height")
    matrices, focals = [], []
    for i, camera in enumerate(cameras):
        matrix, fov = _camera(camera, f"{path}: camera_path[{i}]")
        matrices.append((matrix @ FROM_OPENGL)[:3])
        focals.append(0.5 * size[1] / np.tan(0.5 * np.radians(fov)))
    focal = np.array(focals)
    middle = np.tile(np.array(size) / 2.0, (len(focal), 1))
    return CameraPath(np.stack(matrices), np.column_stack([focal, focal, middle]), size)


def write_path(path: Path, cameras: CameraPath, *, fps: float) -> None:
    """Write a camera path that `read_path`, nerfstudio's viewer and the Blender add-on read.

    The format holds a vertical field of view and nothing else of the intrinsics: square pixels, and the
    principal point in the middle. Raises StorageError where the disk refuses.
    """
    width, height = cameras.size
    frames = []
    for pose, intrinsics in zip(cameras.camera_to_world, cameras.intrinsics, strict=True):
        matrix = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]]) @ FROM_OPENGL
        fov = float(np.degrees(2 * np.arctan(0.5 * height / intrinsics[1])))
        frames.append({"camera_to_world": matrix.ravel().tolist(), "fov": fov, "aspect": width / height})
    content = {
        "camera_type": "perspective", "render_width": width, "render_height": height, "fps": fps,
        "seconds": len(frames) / fps, "is_cycle": False, "smoothness_value": 0.0, "keyframes": [],
        "camera_path": frames,
    }  # fmt: skip
    write_json(path, content)


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: larger than {LARGEST_FILE >> 20} MB - expected a camera path")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror} - expected a camera path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON - {' '.join(str(error).split())}") from error


def _camera(camera: Any, place: str) -> tuple[Floats, float]:
    try:
        matrix = np.array(camera["camera_to_world"], np.float64).reshape(4, 4)
        fov = float(camera["fov"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place} - expected camera_to_world (16 numbers) and fov (degrees)") from error
    if not _is_rigid(matrix):
        raise InputError(f"{place}: camera_to_world - not a rotation and a shift")
    if not SMALLEST_FOV <= fov <= 180.0 - SMALLEST_FOV:
        raise InputError(f"{place}: fov - got {fov} - expected degrees between 0 and 180")
    return matrix, fov


def _is_rigid(matrix: Floats) -> bool:
    """Whether [4, 4] is a rotation and a shift that a float32 can hold."""
    if not (np.abs(matrix[:3, :3]) < 2).all() or not (np.abs(matrix[:3, 3]) <= FARTHEST).all():
        return False
    turn = matrix[:3, :3]
    rigid = np.abs(turn @ turn.T - np.eye(3)).max() < 1e-3 and np.linalg.det(turn) > 0.0
    return bool(rigid and np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]))


def _whole(path: Path, data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= 1 << 15:
        raise InputError(f"{path}: {key} - got {repr(value)[:60]} - expected pixels, 1 to {1 << 15}")
    return round(value)
