"""Small data sets written into a temporary folder, for the tests of the loaders."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataio.formats.transforms import TransformsData
from dataio.scene import Scene
from tests.conftest import shared_data

WIDTH, HEIGHT, FOCAL = 24, 16, 30.0


@cache
def real_scene(name: str, **options: Any) -> Scene:
    """A set of ../shared/data, loaded once for all tests; skips the test where it is not at hand."""
    return TransformsData(path=str(shared_data(name)), **options).load()


def ring_poses(count: int, distance: float = 3.0) -> np.ndarray:
    """[count, 4, 4] camera-to-world, OpenCV axes, on a ring at height 1 looking at the origin; z is up."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, angle in zip(poses, np.linspace(0, 2 * np.pi, count, endpoint=False), strict=True):
        center = np.array([distance * np.cos(angle), distance * np.sin(angle), 1.0])
        forward = -center / np.linalg.norm(center)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=-1)
        pose[:3, 3] = center
    return poses


def opengl(poses: np.ndarray) -> np.ndarray:
    """OpenCV poses as transforms.json writes them: y up, z backwards."""
    return poses * np.array([1.0, -1.0, -1.0, 1.0])


def picture(path: Path, view: int = 0, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """A picture whose pixels differ everywhere and between views."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(view).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


def mask(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """A mask with a white rectangle in the middle half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[size[1] // 4 : -(size[1] // 4), size[0] // 4 : -(size[0] // 4)] = 255
    Image.fromarray(pixels).save(path)


def transforms(folder: Path, count: int = 10, **changes: Any) -> dict[str, Any]:
    """Write pictures and transforms.json; returns its content. changes: keys at the top, None removes one."""
    content: dict[str, Any] = {
        "fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT,
        "frames": [
            {"file_path": f"images/{view:03d}.png", "transform_matrix": matrix.tolist()}
            for view, matrix in enumerate(opengl(ring_poses(count)))
        ],
    }  # fmt: skip
    content.update(changes)
    content = {key: value for key, value in content.items() if value is not None}
    for view in range(count):
        picture(folder / f"images/{view:03d}.png", view)
    write(folder / "transforms.json", content)
    return content


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def dtu(folder: Path, count: int = 10, **changes: Any) -> dict[str, Any]:
    """Write image/, mask/ and cameras_sphere.npz; returns its arrays. changes: arrays, None removes one."""
    calibration = np.eye(4)
    calibration[:2, :3] = [[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5]]
    arrays: dict[str, Any] = {}
    for view, pose in enumerate(ring_poses(count)):
        picture(folder / f"image/{view:06d}.png", view)
        mask(folder / f"mask/{view:03d}.png")
        arrays[f"world_mat_{view}"] = calibration @ np.linalg.inv(pose)
        arrays[f"scale_mat_{view}"] = np.diag([1.5, 1.5, 1.5, 1.0])
    arrays.update(changes)
    arrays = {key: value for key, value in arrays.items() if value is not None}
    np.savez(folder / "cameras_sphere.npz", **arrays)
    return arrays
