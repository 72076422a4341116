"""Small RGB-D recordings in the layouts of ScanNet and 7-Scenes: a made-up room with two differing cameras."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.made_data import ring_poses

COLOR_SIZE, COLOR = (32, 24), np.array([30.0, 31.0, 15.5, 11.5])  # fx fy cx cy, pixel centers at whole numbers
DEPTH_SIZE, DEPTH = (20, 16), np.array([21.0, 20.0, 9.0, 7.5])
WALL = 2.0  # half the side of the cubic room, meters; its middle is the origin
LOST = np.full((4, 4), -np.inf)


def room_poses(count: int) -> np.ndarray:
    """[count, 4, 4] cameras near the middle of the room, looking outwards all around."""
    poses = ring_poses(count, distance=0.5)
    poses[:, 2, 3] = 0.1
    poses[:, :3, 0] *= -1
    poses[:, :3, 2] *= -1
    return poses


def wall_depth(pose: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """z depth [H,W] of the room's walls, exactly. camera: fx fy cx cy, pixel centers at whole numbers."""
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    local = np.stack([(column - camera[2]) / camera[0], (row - camera[3]) / camera[1], np.ones(column.shape)], -1)
    direction = local @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        return np.asarray(((np.copysign(WALL, direction) - pose[:3, 3]) / direction).min(axis=-1))


def millimeters(depth: np.ndarray) -> np.ndarray:
    """Depth in meters as sensors store it."""
    return np.rint(depth * 1000).astype(np.uint16)


def text(matrix: np.ndarray) -> str:
    """A matrix as these data sets write it."""
    return "\n".join(" ".join(f"{x:.9f}" for x in row) for row in matrix) + "\n"


def calibration(camera: np.ndarray) -> np.ndarray:
    """fx fy cx cy as a 4x4 matrix."""
    matrix = np.eye(4)
    matrix[[0, 1, 0, 1], [0, 1, 2, 2]] = camera
    return matrix


def color_picture(view: int) -> Image.Image:
    pixels = np.random.default_rng(view).integers(0, 256, (*COLOR_SIZE[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def scannet(folder: Path, count: int = 10, *, lost: tuple[int, ...] = ()) -> np.ndarray:
    """Write color/, depth/, pose/, intrinsic/; returns the true poses."""
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    poses = room_poses(count)
    for view, pose in enumerate(poses):
        color_picture(view).save(folder / f"color/{view}.jpg")
        Image.fromarray(millimeters(wall_depth(pose, DEPTH, DEPTH_SIZE))).save(folder / f"depth/{view}.png")
        (folder / f"pose/{view}.txt").write_text(text(LOST if view in lost else pose))
    for name, camera in (("color", COLOR), ("depth", DEPTH)):
        (folder / f"intrinsic/intrinsic_{name}.txt").write_text(text(calibration(camera)))
        (folder / f"intrinsic/extrinsic_{name}.txt").write_text(text(np.eye(4)))
    return poses


def seven_scenes(folder: Path, counts: tuple[int, ...] = (8, 3)) -> np.ndarray:
    """Write seq-01 (training), seq-02 (tests), ... and the split files; returns the true poses.

    Its cameras are the Kinect's, scaled: 525 and 585 at a width of 640.
    """
    poses = room_poses(sum(counts))
    views = iter(range(sum(counts)))
    for number, count in enumerate(counts, 1):
        sequence = folder / f"seq-{number:02d}"
        sequence.mkdir(parents=True)
        for frame in range(count):
            view = next(views)
            stem = f"{sequence}/frame-{frame:06d}"
            color_picture(view).save(f"{stem}.color.png")
            depth = millimeters(wall_depth(poses[view], kinect(585.0, DEPTH_SIZE), DEPTH_SIZE))
            depth[0, 0], depth[0, 1] = 65535, 0
            Image.fromarray(depth).save(f"{stem}.depth.png")
            Path(f"{stem}.pose.txt").write_text(text(poses[view]))
    (folder / "TrainSplit.txt").write_text("sequence1\n")
    (folder / "TestSplit.txt").write_text("sequence2\n")
    return poses


def kinect(focal: float, size: tuple[int, int]) -> np.ndarray:
    """fx fy cx cy, centers at whole numbers, of a 7-Scenes camera at a size."""
    return np.array([focal * size[0] / 640, focal * size[0] / 640, size[0] / 2, size[1] / 2])


def sens_header(
    *, version: int = 4, name: bytes = b"made", color: int = 2, depth: int = 1, shift: float = 1000.0, count: int = 10
) -> bytes:
    """The head of a .sens file."""
    matrices = (calibration(COLOR), np.eye(4), calibration(DEPTH), np.eye(4))
    return b"".join([
        struct.pack("<IQ", version, len(name)), name,
        *(matrix.astype("<f4").tobytes() for matrix in matrices),
        struct.pack("<iiIIIIfQ", color, depth, *COLOR_SIZE, *DEPTH_SIZE, shift, count),
    ])  # fmt: skip


def sens_frame(pose: np.ndarray, color: bytes, depth: bytes) -> bytes:
    """One frame of a .sens file."""
    return pose.astype("<f4").tobytes() + struct.pack("<QQQQ", 1, 2, len(color), len(depth)) + color + depth


def sens(folder: Path, count: int = 10, *, lost: tuple[int, ...] = (), deflated: bool = True) -> Path:
    """Write scene.sens with the same frames as `scannet`; returns its path."""
    scannet(folder / "export", count, lost=lost)
    parts = [sens_header(count=count, depth=int(deflated))]
    for view, pose in enumerate(room_poses(count)):
        raw = millimeters(wall_depth(pose, DEPTH, DEPTH_SIZE)).astype("<u2").tobytes()
        color = (folder / f"export/color/{view}.jpg").read_bytes()
        parts.append(sens_frame(LOST if view in lost else pose, color, zlib.compress(raw) if deflated else raw))
    path = folder / "scene.sens"
    path.write_bytes(b"".join(parts) + struct.pack("<Q", 0))  # no frames of an inertial sensor
    return path
