"""Scenes written in the formats of others, for the round trips."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataio.export import quaternion
from dataio.formats.colmap_model import BY_NAME
from tests.support.made_data import FOCAL, HEIGHT, WIDTH, picture, ring_poses


@dataclass
class Shot:
    """Photographs and their cameras, world units, OpenCV axes, pixel centers at +0.5."""

    poses: np.ndarray  # [C,4,4] camera-to-world
    intrinsics: np.ndarray  # [C,4]
    images: list[np.ndarray]
    names: list[str]
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    model: str = "PINHOLE"
    bend: tuple[float, ...] = ()

    @property
    def size(self) -> list[tuple[int, int]]:
        """Width and height of each picture."""
        return [(image.shape[1], image.shape[0]) for image in self.images]

    def save(self, folder: Path, name: str, view: int) -> None:
        """Write one picture."""
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.images[view]).save(folder / name)

    def observations(self) -> list[np.ndarray]:
        """Per view the pinhole pixels [P,2] of all points."""
        seen = []
        for pose, (fx, fy, cx, cy) in zip(self.poses, self.intrinsics, strict=True):
            local = (self.points - pose[:3, 3]) @ pose[:3, :3]
            seen.append(local[:, :2] / local[:, 2:] * (fx, fy) + (cx, cy))
        return seen


def ring(count: int = 8, points: int = 150) -> Shot:
    """Cameras on a ring around a cloud of points."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(count)]
    calibration = np.tile([FOCAL, FOCAL * 1.01, WIDTH / 2 + 0.3, HEIGHT / 2 - 0.2], (count, 1))
    names = [f"cam{view % 2}/{view:03d}.png" for view in range(count)]
    return Shot(ring_poses(count), calibration, images, names, random.normal(scale=0.2, size=(points, 3)))


def world_to_camera(pose: np.ndarray) -> tuple[list[float], list[float]]:
    """Quaternion and translation as COLMAP has them."""
    rotation = pose[:3, :3].T
    return quaternion(rotation).tolist(), (-rotation @ pose[:3, 3]).tolist()


def parameters(shot: Shot, view: int) -> list[float]:
    """A COLMAP camera's parameters; models with one focal length take fx."""
    if shot.model == "EQUIRECTANGULAR":
        return [float(n) for n in shot.size[view]]
    fx, fy, cx, cy = shot.intrinsics[view].tolist()
    single = BY_NAME[shot.model].parameters - len(shot.bend) == 3
    return [*([fx] if single else [fx, fy]), cx, cy, *shot.bend]


def colmap_text(shot: Shot, folder: Path, model: str = "sparse/0") -> None:
    """images/ and a text model, one camera per image, all points seen by all, the i-th with the color (i, 2, 3)."""
    place = folder / model
    place.mkdir(parents=True, exist_ok=True)
    cameras, photos, points = ["# comment"], ["# comment", ""], ["# comment"]
    for view, (name, seen) in enumerate(zip(shot.names, shot.observations(), strict=True)):
        shot.save(folder / "images", name, view)
        width, height = shot.size[view]
        words = " ".join(map(repr, parameters(shot, view)))
        cameras.append(f"{10 + view} {shot.model} {width} {height} {words}")
        turn, shift = world_to_camera(shot.poses[view])
        photos.append(f"{view + 1} {' '.join(map(repr, turn + shift))} {10 + view} {name}")
        pairs = [f"{x!r} {y!r} {index + 5}" for index, (x, y) in enumerate(seen.tolist())]
        photos.append(" ".join(["1.5 2.5 -1", *pairs]))
    track = " ".join(f"{view + 1} 0" for view in range(len(shot.names)))
    numbered = enumerate(shot.points.tolist())
    points += [f"{i + 5} {x!r} {y!r} {z!r} {i % 256} 2 3 0.1 {track}" for i, (x, y, z) in numbered]
    for part, lines in {"cameras": cameras, "images": photos, "points3D": points}.items():
        (place / f"{part}.txt").write_text("\n".join(lines) + "\n")


def colmap_binary(shot: Shot, folder: Path, model: str = "sparse/0", *, errors: float = 0.1) -> None:
    """The same as a binary model, with the empty rigs and frames files of newer versions beside it."""
    place = folder / model
    place.mkdir(parents=True, exist_ok=True)
    count = len(shot.names)
    cameras = photos = points = b""
    for view, (name, seen) in enumerate(zip(shot.names, shot.observations(), strict=True)):
        shot.save(folder / "images", name, view)
        values = parameters(shot, view)
        cameras += struct.pack(f"<IiQQ{len(values)}d", 10 + view, BY_NAME[shot.model].number, *shot.size[view], *values)
        turn, shift = world_to_camera(shot.poses[view])
        photos += struct.pack("<I7dI", view + 1, *turn, *shift, 10 + view) + name.encode() + b"\0"
        photos += struct.pack("<Q", len(seen) + 1) + struct.pack("<2dq", 1.5, 2.5, -1)
        photos += b"".join(struct.pack("<2dq", x, y, index + 5) for index, (x, y) in enumerate(seen))
    for index, point in enumerate(shot.points):
        points += struct.pack("<Q3d3BdQ", index + 5, *point, index % 256, 2, 3, errors, count)
        points += b"".join(struct.pack("<II", view + 1, 0) for view in range(count))
    for part, number, content in (
        ("cameras", count, cameras), ("images", count, photos), ("points3D", len(shot.points), points),
        ("rigs", 0, b""), ("frames", 0, b""),
    ):  # fmt: skip
        (place / f"{part}.bin").write_bytes(struct.pack("<Q", number) + content)


def llff(shot: Shot, folder: Path, bounds: tuple[float, float] = (1.0, 9.0)) -> None:
    """images/ and poses_bounds.npy; the focal length is fx, the principal point the middle."""
    rows = []
    for view, name in enumerate(shot.names):
        shot.save(folder / "images", name.replace("/", "_"), view)
        right, down, forward, center = shot.poses[view, :3].T
        width, height = shot.size[view]
        matrix = np.stack([down, right, -forward, center, [height, width, shot.intrinsics[view, 0]]], axis=-1)
        rows.append([*matrix.ravel(), *bounds])
    order = np.argsort([name.replace("/", "_") for name in shot.names])
    np.save(folder / "poses_bounds.npy", np.array(rows)[order])


def nerfpp(shot: Shot, folder: Path, test: int = 2) -> None:
    """train/ and test/, the last `test` views in the latter."""
    for view in range(len(shot.names)):
        split = "test" if view >= len(shot.names) - test else "train"
        shot.save(folder / split / "rgb", f"{view:06d}.png", view)
        fx, fy, cx, cy = shot.intrinsics[view]
        calibration = np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        for part, matrix in {"pose": shot.poses[view], "intrinsics": calibration}.items():
            (folder / split / part).mkdir(parents=True, exist_ok=True)
            np.savetxt(folder / split / part / f"{view:06d}.txt", matrix, fmt="%.17g")


def blendedmvs(shot: Shot, folder: Path, depth: float | None = None) -> None:
    """cams/, blended_images/ and, of one depth everywhere, rendered_depth_maps/."""
    for part in ("cams", "rendered_depth_maps"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "cams/pair.txt").write_text("0\n")
    for view in range(len(shot.names)):
        shot.save(folder / "blended_images", f"{view:08d}.png", view)
        fx, fy, cx, cy = shot.intrinsics[view].tolist()
        extrinsic = np.linalg.inv(shot.poses[view])
        lines = ["extrinsic", *(" ".join(map(repr, row)) for row in extrinsic.tolist()), "", "intrinsic"]
        lines += [f"{fx!r} 0 {cx!r}", f"0 {fy!r} {cy!r}", "0 0 1", "", "0.5 0.01 128 5.0"]
        (folder / f"cams/{view:08d}_cam.txt").write_text("\n".join(lines) + "\n")
        if depth is not None:
            pfm(folder / f"rendered_depth_maps/{view:08d}.pfm", np.full(shot.size[view][::-1], depth, np.float32))


def pfm(path: Path, values: np.ndarray) -> None:
    """A little-endian portable float map."""
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + values[::-1].astype("<f4").tobytes())


def dtu(shot: Shot, folder: Path, world_from_scene: np.ndarray) -> None:
    """image/ and cameras_sphere.npz; whole numbers are pixel centers there."""
    arrays: dict[str, Any] = {}
    for view, pose in enumerate(shot.poses):
        shot.save(folder / "image", f"{view:06d}.png", view)
        fx, fy, cx, cy = shot.intrinsics[view]
        calibration = np.array([[fx, 0, cx - 0.5, 0], [0, fy, cy - 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        arrays[f"world_mat_{view}"] = calibration @ np.linalg.inv(pose)
        arrays[f"scale_mat_{view}"] = world_from_scene
    np.savez(folder / "cameras_sphere.npz", **arrays)


def masks(shot: Shot, folder: Path, ending: str = ".png") -> None:
    """masks/NAME + ending, white on the left half."""
    for name, (width, height) in zip(shot.names, shot.size, strict=True):
        path = folder / "masks" / (name + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat([np.arange(width) < width // 2], height, axis=0).astype(np.uint8) * 255).save(path)


def smaller(shot: Shot, folder: Path, factor: int) -> None:
    """images_N/ with pictures of a fraction of the size, as JPEG."""
    for view, (name, (width, height)) in enumerate(zip(shot.names, shot.size, strict=True)):
        picture(folder / f"images_{factor}" / name, view, size=(width // factor, height // factor))
