"""ScanNet (Dai et al. 2017): the folder that SensReader exports, and the `.sens` file itself.

    color/0.jpg depth/0.png pose/0.txt intrinsic/{intrinsic,extrinsic}_{color,depth}.txt

Poses are camera-to-world in meters, all -inf where tracking was lost. Depth is in millimeters, 0 means none; it
has its own camera and size. Calibrations put pixel centers at whole numbers; extrinsics lead from a camera to the
frame of the pose.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from dataio.files import MAX_FRAMES, Float64, files_ending, need_folder, shown
from dataio.formats.rgbd import RgbdData, calibration, depth_camera, read_matrix, say_without_pose, tracked
from dataio.formats.sens import read_sens
from dataio.pictures import images
from dataio.pictures.images import Source
from dataio.pictures.packed import PackedNumbers
from dataio.views import Views
from utils.errors import InputError

FOLDERS = ("color", "depth", "pose", "intrinsic")
KINDS = ("intrinsic", "extrinsic")
RIGID = 1e-3


class ScannetData(RgbdData):
    """An exported folder, a .sens file, or a folder with one."""

    type: Literal["scannet"] = "scannet"
    priority: ClassVar[int] = 2

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A .sens file, a folder with one, or one with color/, depth/, pose/ and intrinsic/."""
        if path.is_file():
            return path.suffix.lower() == ".sens"
        return all((path / name).is_dir() for name in FOLDERS) or _sens_file(path) is not None

    def parse(self) -> Views:
        """Read poses and calibration, and where the pictures are. Raises InputError."""
        path = need_folder(self.path)
        if path.is_file():
            return self._sens(path)
        recording = None if (path / "pose").is_dir() else _sens_file(path)
        return self._folder(path) if recording is None else self._sens(*self.within(path, [recording]))

    def _folder(self, folder: Path) -> Views:
        poses = _numbered(folder / "pose", (".txt",))
        if not 0 < len(poses) <= MAX_FRAMES:
            raise InputError(f"{shown(folder / 'pose')} - got {len(poses)} poses - expected 1 to {MAX_FRAMES}")
        numbers = sorted(poses)[:: self.every]
        colors = _numbered(folder / "color", images.SUFFIXES)
        say_without_pose(len(colors.keys() - poses.keys()), len(colors), shown(folder))
        depths = _numbered(folder / "depth", images.SUFFIXES)
        files = [folder / "intrinsic" / f"{kind}_{camera}.txt" for kind in KINDS for camera in ("color", "depth")]
        files = self.within(folder, (file for file in files if file.is_file() or file.name.startswith(KINDS[0])))
        calibrations = {file.stem: read_matrix(file) for file in files}
        return _views(
            folder,
            np.array([read_matrix(path) for path in self.within(folder, (poses[number] for number in numbers))]),
            self.within(folder, (colors.get(number, folder / f"color/{number}.jpg") for number in numbers)),
            self.within(folder, (depths.get(number, folder / f"depth/{number}.png") for number in numbers)),
            names=[f"color/{number:06d}" for number in numbers],
            calibrations=calibrations,
        )

    def _sens(self, file: Path) -> Views:
        recording = read_sens(file)
        chosen = slice(None, None, self.every)
        return _views(
            file,
            recording.camera_to_world[chosen],
            recording.colors[chosen],
            recording.depths[chosen],
            names=[f"frame {number:06d}" for number in range(len(recording.colors))][chosen],
            calibrations=recording.calibrations,
            depth_unit=1 / recording.depth_shift,
        )


def _sens_file(folder: Path) -> Path | None:
    """The only .sens file of a folder."""
    found = files_ending(folder, ".sens") if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def _numbered(folder: Path, suffixes: tuple[str, ...]) -> dict[int, Path]:
    """The files of a folder whose names are numbers, by these. Raises InputError for two of one number."""
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} - no such folder - expected {', '.join(FOLDERS)}")
    files = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.stem.isdecimal())
    paths = sorted(path for path in files if len(path.stem) < 10)
    numbered = {int(path.stem): path for path in paths}
    if len(numbered) < len(paths):
        twice = next(path for path in paths if numbered[int(path.stem)] != path)
        raise InputError(f"{shown(twice)} - {numbered[int(twice.stem)].name} has the same number - keep one of them")
    return numbered


def _views(
    source: Path,
    poses: Float64,
    colors: Sequence[Source],
    depths: Sequence[Source],
    *,
    names: list[str],
    calibrations: dict[str, Float64],
    depth_unit: float = 1e-3,
) -> Views:
    where = shown(source)
    known = np.flatnonzero(tracked(poses, where)).tolist()
    colors, depths = [colors[i] for i in known], [depths[i] for i in known]
    to_pose = {camera: _rigid(calibrations, f"extrinsic_{camera}", where) for camera in ("color", "depth")}
    color_from_depth = np.linalg.inv(to_pose["color"]) @ to_pose["depth"]
    names_of = ("intrinsic_color", "intrinsic_depth")
    color, depth = (calibration(calibrations[name], f"{where}: {name}") for name in names_of)
    return Views(
        source=source,
        names=[names[i] for i in known],
        images=colors,
        camera_to_world=poses[known] @ to_pose["color"],
        intrinsics=np.tile(color, (len(known), 1)),
        size=np.tile(np.array(_size(colors, where), dtype=np.int64), (len(known), 1)),
        depths=depths,
        depth_unit=depth_unit,
        depth_camera=depth_camera(depth, _size(depths, where), color_from_depth, f"{where}: intrinsic_depth"),
        room=True,
        pose_key="pose",
    )


def _size(sources: Sequence[Source], where: str) -> tuple[int, int]:
    """Width and height of the first picture that is there; the others are compared with it."""
    first = next((source for source in sources if source.is_file()), None)
    if first is None:
        raise InputError(f"{where} - got no images for its poses - expected color and depth of each frame")
    return first.size if isinstance(first, PackedNumbers) else images.image_size(first)


def _rigid(calibrations: dict[str, Float64], name: str, where: str) -> Float64:
    """An extrinsic matrix; the identity where there is none."""
    matrix = calibrations.get(name, np.eye(4))
    if not (
        np.isfinite(matrix).all()
        and np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max() < RIGID
        and np.linalg.det(matrix[:3, :3]) > 0
    ):
        raise InputError(f"{where}: {name} - not a rigid motion - expected a rotation and a shift in meters")
    return matrix
