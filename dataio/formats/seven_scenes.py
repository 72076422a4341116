"""7-Scenes (Shotton et al. 2013): seq-XX/frame-XXXXXX.{color.png,depth.png,pose.txt}, TrainSplit.txt, TestSplit.txt.

Depth is in millimeters, 0 and 65535 mean none. The color images are not registered to the depth images: the
Kinect's color camera has a focal length near 525 pixels, its depth camera near 585. Some copies say their own
calibration: `camera.txt` (one line: width height fx fy cx cy, both cameras) or `depth-intrinsics.txt` (3x3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from dataio.files import MAX_FRAMES, Float64, need_folder, notice, say_twice, shown
from dataio.formats.rgbd import RgbdData, calibration, depth_camera, read_matrix, say_without_pose, tracked
from dataio.pictures import images
from dataio.views import Views
from utils.errors import InputError

SPLIT_FILES = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
COLOR_FOCAL, DEPTH_FOCAL, WIDTH = 525.0, 585.0, 640
MAX_SPLIT_BYTES = 64 * 1024
SEQUENCE = re.compile(r"\s*sequence\s*(\d{1,4})\s*", re.IGNORECASE)
Size = tuple[int, int]
POSE = re.compile(r"frame-(\d{1,9})\.pose\.txt")


class SevenScenesData(RgbdData):
    """A folder with seq-01, seq-02, ... and the official splits."""

    type: Literal["seven_scenes"] = "seven_scenes"
    priority: ClassVar[int] = 2

    official_split: bool = Field(
        default=True, description="tests as the split files say; false: every `holdout`-th of all views"
    )
    color_focal: float | None = Field(default=None, gt=0, description="pixels; default: 525 at a width of 640")
    depth_focal: float | None = Field(default=None, gt=0, description="pixels; default: 585 at a width of 640")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with a split file, or with seq-01."""
        return path.is_dir() and any((path / name).exists() for name in (*SPLIT_FILES.values(), "seq-01"))

    def parse(self) -> Views:
        """Read splits, poses and calibration. Raises InputError."""
        folder = need_folder(self.path)
        sequences = self._sequences(folder)
        found = [(split, stem) for split, seq in sequences for stem in _frames(seq)[:: self.every]]
        say_without_pose(*_without_pose([sequence for _, sequence in sequences]), shown(folder))
        if not 0 < len(found) <= MAX_FRAMES:
            raise InputError(f"{shown(folder)} - got {len(found)} frames with a pose - expected 1 to {MAX_FRAMES}")
        files = self.within(folder, (Path(f"{stem}.pose.txt") for _, stem in found))
        poses = np.array([read_matrix(file) for file in files])
        known = np.flatnonzero(tracked(poses, shown(folder)))
        split, stems = [found[i][0] for i in known], [found[i][1] for i in known]
        colors, depths = (
            self.within(folder, (_picture(Path(f"{stem}.{kind}.png")) for stem in stems)) for kind in ("color", "depth")
        )
        color_size, depth_size = _size(colors, folder), _size(depths, folder)
        color, depth = self._calibration(folder, color_size, depth_size)
        return Views(
            source=folder,
            names=[path.relative_to(folder).as_posix() for path in colors],
            images=colors,
            camera_to_world=poses[known],
            intrinsics=np.tile(color, (len(stems), 1)),
            size=np.tile(np.array(color_size, dtype=np.int64), (len(stems), 1)),
            split=split if any(split) and self.official_split else None,
            depths=depths,
            depth_unit=1e-3,
            depth_camera=depth_camera(depth, depth_size, np.eye(4), f"{shown(folder)}: depth camera"),
            room=True,
            pose_key="pose.txt",
        )

    def _calibration(self, folder: Path, color_size: Size, depth_size: Size) -> tuple[Float64, Float64]:
        """fx fy cx cy of the color and the depth camera: as the config says, as files say, or the Kinect's."""
        color, depth = _centered(COLOR_FOCAL, color_size), _centered(DEPTH_FOCAL, depth_size)
        own, depth_only = self.within(folder, [folder / "camera.txt", folder / "depth-intrinsics.txt"])
        if own.is_file():
            both = read_matrix(own, ((1, 6),))[0]
            color, depth = _resized(both, color_size), _resized(both, depth_size)
        if depth_only.is_file():
            depth = calibration(read_matrix(depth_only, ((3, 3),)), shown(depth_only))
        if self.color_focal is not None:
            color[:2] = self.color_focal
        if self.depth_focal is not None:
            depth[:2] = self.depth_focal
        return color, depth

    def _sequences(self, folder: Path) -> list[tuple[str, Path]]:
        """Split and folder of each recording: as the split files say; without them all, with split ""."""
        paths = self.within(folder, (folder / name for name in SPLIT_FILES.values()))
        files = {split: file for split, file in zip(SPLIT_FILES, paths, strict=True) if file.is_file()}
        there = [path for path in sorted(folder.glob("seq-*")) if path.is_dir()]
        if not files:
            zips = [path.name for path in sorted(folder.glob("seq-*.zip")) if path.with_suffix("") not in there]
            if zips:
                notice(f"{shown(folder)} - {len(zips)} sequences are still packed, as {zips[0]}: left out")
            return [("", path) for path in there]
        numbers = {split: _numbers(file) for split, file in files.items()}
        twice = sorted(set(numbers.get("train", ())) & set(numbers.get("test", ())))
        say_twice({f"sequence{number}": "test" for number in twice}, shown(folder))
        split_of = {number: split for split, named in numbers.items() for number in named}
        listed = [(split, folder / f"seq-{number:02d}") for number, split in split_of.items()]
        missing = [path for _, path in listed if not path.is_dir()]
        if missing:
            first = missing[0].name
            packed = [path.with_name(f"{path.name}.zip") for path in missing]
            if any(path.is_file() for path in packed):
                count = sum(path.is_file() for path in packed)
                raise InputError(f"{shown(folder)} - {count} sequences are still packed, as {first}.zip: unpack them")
            notice(f"{shown(folder)} - {len(missing)} of {len(listed)} sequences are not there, first {first}")
        known = [sequence for _, sequence in listed]
        others = [path.name for path in there if path not in known]
        if others:
            notice(f"{shown(folder)} - {len(others)} sequences are in no split file, as {others[0]}: left out")
        return [(split, path) for split, path in listed if path.is_dir()]


def _centered(focal: float, size: Size) -> Float64:
    """fx fy cx cy at a size: the focal length is for a width of 640, the middle is a pixel's center."""
    width, height = size
    return np.array([focal * width / WIDTH, focal * width / WIDTH, width / 2 + 0.5, height / 2 + 0.5])


def _resized(row: Float64, size: Size) -> Float64:
    """width height fx fy cx cy, pixel centers at whole numbers, as fx fy cx cy of another size."""
    if not (np.isfinite(row).all() and row[:2].min() > 0):
        raise InputError("camera.txt - got a size that is not positive - expected width height fx fy cx cy")
    ratio = np.array(size) / row[:2]
    return np.concatenate([row[2:4] * ratio, (row[4:] + 0.5) * ratio])


def _numbers(file: Path) -> list[int]:
    if file.stat().st_size > MAX_SPLIT_BYTES:
        raise InputError(f"{shown(file)} - got {file.stat().st_size} bytes - expected a few lines")
    numbers = []
    for number, line in enumerate(file.read_bytes().decode("ascii", "replace").splitlines(), 1):
        match = SEQUENCE.fullmatch(line)
        if match is None and line.strip():
            raise InputError(f"{shown(file)}:{number} - got {shown(repr(line[:40]))} - expected sequenceN")
        if match:
            numbers.append(int(match[1]))
    return numbers


def _frames(sequence: Path) -> list[Path]:
    """The frames that have a pose file, in order, as paths without `.pose.txt`."""
    names = sorted(path.name for path in sequence.iterdir() if POSE.fullmatch(path.name))
    return [sequence / name.removesuffix(".pose.txt") for name in names]


def _without_pose(sequences: Sequence[Path]) -> tuple[int, int]:
    """How many color pictures have no pose file, and how many there are."""
    colors = [path for sequence in sequences for path in sequence.glob("frame-*.color.png")]
    poses = [path.with_name(path.name.replace(".color.png", ".pose.txt")) for path in colors]
    return sum(not pose.is_file() for pose in poses), len(colors)


def _picture(path: Path) -> Path:
    """The file, or one whose suffix is written otherwise."""
    return path if path.is_file() else images.beside(path) or path


def _size(paths: list[Path], where: Path) -> Size:
    """Width and height of the first picture that is there; the others are compared with it."""
    first = next((path for path in paths if path.is_file()), None)
    if first is None:
        kind = paths[0].name if paths else "frame-XXXXXX.color.png"
        raise InputError(f"{shown(where)} - got no images - expected files like {shown(kind)} in seq-01")
    return images.image_size(first)
