"""NeRF++'s layout: train/, test/ and validation/, each with rgb/, pose/ and intrinsics/.

Poses are 4x4 camera-to-world with OpenCV axes and intrinsics 4x4, as text; NeRF++ looks through the pixels at
+0.5, so the principal point is ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from dataio.checks.usable import pinhole
from dataio.files import MAX_FRAMES, Float64, files_ending, inside, need_folder, read_numbers, shown
from dataio.pictures import images
from dataio.scene import DataConfig
from dataio.views import Views
from utils.errors import InputError

SPLITS = {"train": ("train",), "test": ("test",), "val": ("validation", "val")}


class NerfPlusPlusData(DataConfig):
    """A folder with train/rgb, train/pose and train/intrinsics, and perhaps test/ and validation/."""

    type: Literal["nerfpp"] = "nerfpp"
    mask_place: ClassVar[str] = "mask/ beside rgb/"
    priority: ClassVar[int] = -2

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with the three of train/."""
        return all((path / "train" / part).is_dir() for part in ("rgb", "pose", "intrinsics"))

    def parse(self) -> Views:
        """Read poses, intrinsics and file names. Raises InputError."""
        root = need_folder(self.path)
        if not self.recognizes(root):
            raise InputError(f"{shown(root)} - no train/rgb, train/pose and train/intrinsics in it")
        rows = [
            (split, files)
            for split, names in SPLITS.items()
            for name in names
            for files in _views_of(root, name, self.allow_outside)
        ]
        if not rows:
            raise InputError(f"{shown(root / 'train/pose')} - got no poses - expected one .txt for each picture")
        paths = [picture for _, (_, _, picture, _) in rows]
        masks = [mask for _, (_, _, _, mask) in rows if mask is not None]
        if masks and len(masks) < len(rows):
            raise InputError(f"{shown(root)}: mask - {len(masks)} of {len(rows)} views have it - expected all or none")
        calibrations = [_calibration(file) for _, (_, file, _, _) in rows]
        sizes = [images.image_size(path) if path.is_file() else (1, 1) for path in paths]
        return Views(
            source=root,
            names=[path.relative_to(root).as_posix() for path in paths],
            images=paths,
            camera_to_world=np.array([read_numbers(file, 16).reshape(4, 4) for _, (file, _, _, _) in rows]),
            intrinsics=np.array(calibrations),
            size=np.array(sizes, dtype=np.int64),
            split=[split for split, _ in rows],
            masks=masks or None,
            pose_key="pose",
        )


def _views_of(root: Path, split: str, allow_outside: bool) -> list[tuple[Path, Path, Path, Path | None]]:
    """Pose file, intrinsics file, picture and mask of each view of a split."""

    def find(name: str) -> Path:
        return inside(root, name, where=shown(root / split), allow_outside=allow_outside)

    def named(part: str, stem: str) -> Path | None:
        where = shown(root / split)
        path = images.named(root, f"{split}/{part}/{stem}.png", where=where, allow_outside=allow_outside)
        return path if path.is_file() else None

    if not (root / split / "pose").is_dir():
        return []
    poses = files_ending(root / split / "pose", ".txt")
    if len(poses) > MAX_FRAMES:
        raise InputError(f"{shown(root / split)} - got {len(poses)} poses - expected at most {MAX_FRAMES}")
    return [
        (
            find(f"{split}/pose/{pose.name}"),
            find(f"{split}/intrinsics/{pose.name}"),
            named("rgb", pose.stem) or find(f"{split}/rgb/{pose.stem}.png"),
            named("mask", pose.stem),
        )
        for pose in poses
    ]


def _calibration(file: Path) -> Float64:
    return pinhole(read_numbers(file, 16).reshape(4, 4), shown(file))
