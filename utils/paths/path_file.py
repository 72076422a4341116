"""Camera paths as nerfstudio's viewer and the Blender add-on write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError
from utils.files import write_json
from utils.paths.base import CameraPath, Projection
from utils.paths.json_file import MOST, load_json
from utils.paths.nerfstudio_frame import NerfstudioFrame

Floats = NDArray[np.float64]
MOST_FRAMES = 100_000
SMALLEST_FOV = 1e-3  # degrees
MOST_KEYS = 24  # that are written of a path, for viewers to show
FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
PROJECTIONS: tuple[Projection, ...] = ("perspective", "fisheye", "equirectangular")


@dataclass(frozen=True)
class PathFile:
    """What a file says: its cameras, its key frames, one of them at least; seconds: how long it takes, if it says so.

    loop: whether the first key frame follows the last one.
    """

    cameras: CameraPath | None
    keys: CameraPath | None
    seconds: float | None
    loop: bool

    @property
    def fps(self) -> float | None:
        """Frames per second; as nerfstudio has it, what `seconds` makes of the number of cameras."""
        if self.cameras is not None and self.seconds is not None:
            return len(self.cameras) / self.seconds
        known = self.cameras or self.keys
        return known.fps if known is not None else None


def read_path(path: Path) -> CameraPath:
    """The cameras of a file, world units. Raises InputError for everything that does not fit, and without cameras."""
    found = read_file(path).cameras
    if found is None:
        raise InputError(f"{path}: camera_path - expected a list of 1 to {MOST_FRAMES} cameras")
    return found


def read_file(path: Path) -> PathFile:
    """Read `camera_path`, `keyframes`, `render_width`, `render_height`, `fps`, `seconds`, `camera_type`, `is_cycle`.

    Each camera is a matrix and a vertical fov in degrees, its matrix camera-to-world with OpenGL axes, row by row. The
    frame is that of the data; where dataparser_transforms.json lies beside the file, it is nerfstudio's, and is undone.
    Raises InputError for everything that does not fit.
    """
    data = load_json(path, "a camera path")
    data = data if isinstance(data, dict) else {}
    size = _whole(path, data, "render_width"), _whole(path, data, "render_height")
    projection = _projection(path, data)
    frame = NerfstudioFrame.beside(path)
    found = {}
    for key, name in (("camera_path", "camera_to_world"), ("keyframes", "matrix")):
        entries = data.get(key) or []
        if not isinstance(entries, list) or len(entries) > MOST_FRAMES:
            raise InputError(f"{path}: {key} - expected a list of 1 to {MOST_FRAMES} cameras")
        read = [_camera(entry, f"{path}: {key}[{i}]", name) for i, entry in enumerate(entries)]
        fps = _positive(path, data, "fps")
        found[key] = _cameras(read, size, projection, frame, fps) if read else None
    if found["camera_path"] is None and found["keyframes"] is None:
        raise InputError(f"{path}: camera_path - expected a list of 1 to {MOST_FRAMES} cameras")
    seconds, loop = _positive(path, data, "seconds"), data.get("is_cycle") is True
    return PathFile(found["camera_path"], found["keyframes"], seconds, loop)


def write_path(path: Path, cameras: CameraPath, *, fps: float) -> None:
    """Write a camera path that `read_path`, nerfstudio's viewer and the Blender add-on read.

    The format holds a vertical field of view and nothing else of the intrinsics: square pixels, and the principal point
    in the middle. Evenly chosen frames are its key frames. Where dataparser_transforms.json lies beside the file,
    poses are written in nerfstudio's frame. Raises StorageError where the disk refuses.
    """
    frame = NerfstudioFrame.beside(path)
    poses = cameras.camera_to_world if frame is None else frame.from_world(cameras.camera_to_world)
    sizes = np.broadcast_to(np.asarray(cameras.size), (len(poses), 2))
    frames = [
        _entry(pose, focal, size.tolist(), cameras.projection)
        for pose, focal, size in zip(poses, cameras.intrinsics[:, 1], sizes, strict=True)
    ]
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(MOST_KEYS, len(frames))).round().astype(int))
    keys = [{"matrix": (given := dict(frames[i])).pop("camera_to_world"), **given} for i in chosen]
    seconds = len(frames) / fps
    width, height = sizes[0].tolist()
    content = {
        "camera_type": cameras.projection, "render_width": width, "render_height": height, "fps": fps,
        "seconds": seconds, "is_cycle": False, "smoothness_value": 0.0, "default_fov": frames[0]["fov"],
        "default_transition_sec": seconds / max(len(keys) - 1, 1), "keyframes": keys, "camera_path": frames,
    }  # fmt: skip
    write_json(path, content)


def _entry(pose: Floats, focal: float, size: tuple[int, int], projection: Projection) -> dict[str, Any]:
    """A camera [3, 4] as the format has it; the vertical field of view of a panorama means nothing."""
    width, height = size
    matrix = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]]) @ FROM_OPENGL
    fov = 90.0 if projection == "equirectangular" else float(np.degrees(2 * np.arctan(0.5 * height / focal)))
    return {"camera_to_world": matrix.ravel().tolist(), "fov": fov, "aspect": width / height}


def _cameras(
    read: list[tuple[Floats, float]],
    size: tuple[int, int],
    projection: Projection,
    frame: NerfstudioFrame | None,
    fps: float | None,
) -> CameraPath:
    poses = np.stack([(matrix @ FROM_OPENGL)[:3] for matrix, _ in read])
    focal = 0.5 * size[1] / np.tan(0.5 * np.radians([fov for _, fov in read]))
    focals = np.stack([focal, focal], axis=1)
    if projection == "equirectangular":
        focals = np.tile(np.array(size) / (2.0 * np.pi, np.pi), (len(read), 1))  # pixels per radian
    middle = np.tile(np.array(size) / 2.0, (len(read), 1))
    poses = poses if frame is None else frame.to_world(poses)
    return CameraPath(poses, np.column_stack([focals, middle]), size, fps, projection, anywhere=True)


def _camera(camera: Any, place: str, name: str) -> tuple[Floats, float]:
    try:
        matrix = np.array(camera[name], np.float64).reshape(4, 4)
        fov = float(camera["fov"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place} - expected {name} (16 numbers) and fov (degrees)") from error
    if not _is_rigid(matrix):
        raise InputError(f"{place}: {name} - not a rotation and a shift")
    if not SMALLEST_FOV <= fov <= 180.0 - SMALLEST_FOV:
        raise InputError(f"{place}: fov - got {fov} - expected degrees between 0 and 180")
    return matrix, fov


def _is_rigid(matrix: Floats) -> bool:
    """Whether [4, 4] is a rotation and a shift that a float32 can hold."""
    if not (np.abs(matrix[:3, :3]) < 2).all() or not (np.abs(matrix[:3, 3]) <= MOST).all():
        return False
    turn = matrix[:3, :3]
    rigid = np.abs(turn @ turn.T - np.eye(3)).max() < 1e-3 and np.linalg.det(turn) > 0.0
    return bool(rigid and np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]))


def _projection(path: Path, data: dict[str, Any]) -> Projection:
    said = data.get("camera_type", PROJECTIONS[0])
    for known in PROJECTIONS:
        if isinstance(said, str) and said.lower() == known:
            return known
    raise InputError(f"{path}: camera_type - got {repr(said)[:60]} - expected {', '.join(PROJECTIONS)}")


def _whole(path: Path, data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= 1 << 15:
        raise InputError(f"{path}: {key} - got {repr(value)[:60]} - expected pixels, 1 to {1 << 15}")
    return round(value)


def _positive(path: Path, data: dict[str, Any], key: str) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-3 <= value <= 1e6:
        raise InputError(f"{path}: {key} - got {repr(value)[:60]} - expected a number from 0.001 to 1000000")
    return float(value)
