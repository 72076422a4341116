"""transforms.json in its dialects: Blender (NeRF-synthetic), instant-ngp, nerfstudio.

Poses are camera-to-world with OpenGL axes (x right, y up, z backwards); principal points count from the
image's corner, so that pixel centers are at +0.5 as ours are. nerfstudio's `applied_transform` and
`applied_scale` are undone: our world is the one before them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dataio import normalize
from dataio.files import (
    MAX_FRAMES,
    MAX_MISSING_SHARE,
    Float64,
    inside,
    is_absolute,
    need_folder,
    notice,
    parse_json,
    shown,
    within,
)
from dataio.formats import picture_folders
from dataio.formats.named_splits import split_labels
from dataio.formats.transforms_dialects import lens_kind, look_over
from dataio.lens import Lens
from dataio.pictures import images
from dataio.pictures.images import UInt8
from dataio.quantities.sources import named_in_frames
from dataio.scene import DataConfig
from dataio.views import Views, without_twins
from utils.errors import InputError

SPLIT_FILES = {split: f"transforms_{split}.json" for split in ("train", "test", "val")}
Row = tuple[float, float, float, float]


class CameraKeys(BaseModel):
    """The camera keys, which stand at the top, in each frame, or both (the frame wins); others are looked over."""

    model_config = ConfigDict(extra="allow")

    fl_x: float | None = None
    fl_y: float | None = None
    cx: float | None = None
    cy: float | None = None
    w: int | None = Field(default=None, gt=0)
    h: int | None = Field(default=None, gt=0)
    camera_angle_x: float | None = Field(default=None, gt=0, lt=math.pi)
    camera_angle_y: float | None = Field(default=None, gt=0, lt=math.pi)
    k1: float | None = None
    k2: float | None = None
    k3: float | None = None
    k4: float | None = None
    p1: float | None = None
    p2: float | None = None
    distortion_params: list[float] | None = Field(default=None, min_length=6, max_length=6)
    camera_model: str | None = None
    is_fisheye: bool | None = None

    def under(self, top: CameraKeys) -> CameraKeys:
        """This lens with the gaps filled from the top of the file."""
        own = {key: getattr(self, key) for key in CameraKeys.model_fields}
        return CameraKeys.model_construct(**{k: getattr(top, k) if v is None else v for k, v in own.items()})


class Frame(CameraKeys):
    """One photograph; the files of its mask, depth and the like are named by further keys (`dataio.quantities`)."""

    file_path: str
    is_bad: bool = False  # ScanNet++: blurred or otherwise spoiled
    transform_matrix: tuple[Row, Row, Row] | tuple[Row, Row, Row, Row]


class TransformsFile(CameraKeys):
    """The keys that are understood; the many others of the dialects are left alone."""

    frames: list[Frame] = Field(max_length=MAX_FRAMES)
    test_frames: list[Frame] = Field(default=[], max_length=MAX_FRAMES)  # ScanNet++
    applied_transform: tuple[Row, Row, Row] | tuple[Row, Row, Row, Row] | None = None
    applied_scale: float = Field(default=1.0, gt=0)
    depth_unit_scale_factor: float = Field(default=1e-3, gt=0)
    ply_file_path: str | None = None
    train_filenames: list[str] | None = None
    val_filenames: list[str] | None = None
    test_filenames: list[str] | None = None


class TransformsData(DataConfig):
    """transforms.json: one file, or a folder with transforms.json or transforms_train.json and its like."""

    type: Literal["transforms"] = "transforms"
    mask_place: ClassVar[str] = "mask_path of each frame"
    priority: ClassVar[int] = 2

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A .json file, or a folder with one that has the usual name."""
        if path.is_file():
            return path.suffix.lower() == ".json"
        return any((path / name).is_file() for name in ("transforms.json", *SPLIT_FILES.values()))

    def parse(self) -> Views:
        """Read the file or the files of the splits. Raises InputError."""
        path = need_folder(self.path)
        if path.is_file():
            return self._parse_file(path, _split_of(path))
        files = {split: path / name for split, name in SPLIT_FILES.items() if (path / name).is_file()}
        both = (path / "transforms.json").is_file()
        if "train" in files or (files and not both):
            if both:
                notice(f"{shown(path)}: read from transforms_train.json and its like, not from transforms.json")
            return _joined([self._parse_file(file, split) for split, file in files.items()])
        if not (path / "transforms.json").is_file():
            raise InputError(f"{shown(path)} - no transforms.json and no {' or '.join(SPLIT_FILES.values())} in it")
        return self._parse_file(path / "transforms.json", None)

    def _parse_file(self, path: Path, split: str | None) -> Views:
        file = within(path.parent, path, allow_outside=self.allow_outside)
        return _parse_file(file, self.allow_outside, split)


def _split_of(path: Path) -> str | None:
    """A test or validation file that is named alone is all test views; a training file gets a holdout."""
    return "test" if path.name in (SPLIT_FILES["test"], SPLIT_FILES["val"]) else None


def _parse_file(path: Path, allow_outside: bool, split: str | None) -> Views:
    content = parse_json(path, TransformsFile)
    where = shown(path)
    if not content.frames:
        raise InputError(f"{where}: frames - got no images - expected at least one")
    frames = _usable(content, where)
    keys = [f"{where}: {name}" for name in frames]
    extras = [frame.model_extra or {} for frame in frames.values()]
    look_over({where: content.model_extra or {}, **dict(zip(keys, extras, strict=True))}, where)
    folder, lenses = _Folder(path, allow_outside), [frame.under(content) for frame in frames.values()]
    listed = [folder.image(frame.file_path, key) for frame, key in zip(frames.values(), keys, strict=True)]
    _say_suffixes(frames.values(), listed, where)
    _say_moved(frames.values(), listed, where)
    paths = _smaller(listed, path.parent, where)
    kinds = [lens_kind(lens.camera_model, lens.is_fisheye, key) for lens, key in zip(lenses, keys, strict=True)]
    sizes = [_size(lens, image) for lens, image in zip(lenses, paths, strict=True)]
    intrinsics, size = np.array(list(map(_intrinsics, lenses, sizes, keys))), np.array(sizes, dtype=np.int64)
    intrinsics, size = picture_folders.fitted(intrinsics, size, paths, where=where)
    world_from_saved = _world_from_saved(content, where)
    unit = float(np.cbrt(np.linalg.det(world_from_saved[:3, :3])))
    points, colors = folder.points(content.ply_file_path, f"{where}: ply_file_path", world_from_saved)
    return Views(
        source=path,
        names=[Path(os.path.relpath(image, path.parent)).as_posix() for image in paths],
        images=paths,
        camera_to_world=_opencv_world(list(frames.values()), world_from_saved),
        intrinsics=intrinsics,
        size=size,
        split=[split] * len(paths) if split else _split(content, frames, where),
        distortion=np.array(list(map(_distortion, lenses, keys, kinds))),
        lens=np.array(kinds, dtype=np.int64),
        depth_unit=content.depth_unit_scale_factor * unit,
        points=points,
        point_colors=colors,
        up=world_from_saved[:3, 2] / unit,
    ).with_files(named_in_frames(extras, folder.find, where))


def _usable(content: TransformsFile, where: str) -> dict[str, Frame]:
    """The frames by their places in the file, those for tests behind the others; not those that are marked as bad."""
    named = {f"frames[{i}]": frame for i, frame in enumerate(content.frames)}
    named |= {f"test_frames[{i}]": frame for i, frame in enumerate(content.test_frames)}
    sound = {name: frame for name, frame in named.items() if not frame.is_bad}
    if len(sound) < len(named):
        notice(f"{where}: is_bad - {len(named) - len(sound)} of {len(named)} frames are marked so: left out")
    if not sound:
        raise InputError(f"{where}: is_bad - all {len(named)} frames are marked so - expected at least one that is not")
    return sound


def _say_suffixes(frames: Iterable[Frame], paths: list[Path], where: str) -> None:
    """A line where pictures have another suffix than the file lists; Blender's lists have none."""
    listed = [Path(frame.file_path).suffix for frame in frames]
    other = [path for path, suffix in zip(paths, listed, strict=True) if suffix and path.suffix != suffix]
    other = [path for path in other if path.is_file()]
    if other:
        notice(f"{where} - {len(other)} pictures have another suffix than is listed, as {shown(other[0].name)}")


def _say_moved(frames: Iterable[Frame], paths: list[Path], where: str) -> None:
    """A line where the file lists places that are no more, and the pictures came along with the folder."""
    listed = {path: frame.file_path for frame, path in zip(frames, paths, strict=True) if path.is_file()}
    other = {path: name for path, name in listed.items() if is_absolute(name) and Path(name).parent != path.parent}
    if other:
        path, name = next(iter(other.items()))
        notice(f"{where} - {len(other)} pictures are listed elsewhere, as {name}: taken from {shown(path.parent)}")


def _smaller(paths: list[Path], folder: Path, where: str) -> list[Path]:
    """The pictures of images_N, where those of images are listed and only the smaller ones are there."""
    if any(path.is_file() for path in paths):
        return paths
    for factor in picture_folders.SMALLER:
        others = [_in_place_of(path, folder, f"images_{factor}", where) for path in paths]
        if any(other.is_file() for other in others):
            notice(f"{where} - none of its pictures is there - taking those of images_{factor}")
            return others
    return paths


def _in_place_of(path: Path, folder: Path, name: str, where: str) -> Path:
    """A picture below images/ as it would be called in the folder `name`, perhaps with another suffix."""
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    if parts[:1] != ("images",):
        return path
    return images.named(folder, "/".join((name, *parts[1:])), where=where)


def _size(lens: CameraKeys, image: Path) -> tuple[int, int]:
    """Width and height as declared, else as the image's header says; a missing image is dropped later."""
    if lens.w is not None and lens.h is not None:
        return lens.w, lens.h
    return images.image_size(image) if image.is_file() else (1, 1)


def _intrinsics(lens: CameraKeys, size: tuple[int, int], key: str) -> list[float]:
    width, height = size
    fx, fy = lens.fl_x, lens.fl_y
    if fx is None:
        if lens.camera_angle_x is None:
            raise InputError(f"{key}: fl_x - missing - expected a focal length, or camera_angle_x")
        fx = width / 2 / math.tan(lens.camera_angle_x / 2)
        if fy is None and lens.camera_angle_y is not None:
            fy = height / 2 / math.tan(lens.camera_angle_y / 2)
    cx = width / 2 if lens.cx is None else lens.cx
    cy = height / 2 if lens.cy is None else lens.cy
    return [fx, fx if fy is None else fy, cx, cy]


def _distortion(lens: CameraKeys, key: str, kind: Lens) -> list[float]:
    """OpenCV's order; of `distortion_params` nerfstudio's order k1 k2 k3 k4 p1 p2."""
    if lens.distortion_params is not None:
        k1, k2, k3, k4, p1, p2 = lens.distortion_params
    else:
        k1, k2, k3, k4, p1, p2 = (
            value or 0.0 for value in (lens.k1, lens.k2, lens.k3, lens.k4, lens.p1, lens.p2)
        )
    if kind == Lens.FISHEYE:
        if p1 or p2:
            raise InputError(f"{key}: p1, p2 - got {p1:g}, {p2:g} - expected 0 for a fisheye camera")
        return [k1, k2, k3, k4, 0.0, 0.0, 0.0, 0.0]
    if k4:
        # The programs that write it mean a fourth radial power, OpenCV means a denominator.
        raise InputError(f"{key}: k4 - got {k4:g} - expected 0 unless camera_model is OPENCV_FISHEYE")
    return [k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]


def _world_from_saved(content: TransformsFile, where: str) -> Float64:
    saved = np.eye(4)
    if content.applied_transform is not None:
        saved[:3] = content.applied_transform[:3]
    saved[:3] *= content.applied_scale
    rotation = saved[:3, :3] / content.applied_scale
    if not np.isfinite(saved).all() or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
        raise InputError(f"{where}: applied_transform - not a rigid motion - expected a rotation and a shift")
    if np.linalg.det(rotation) < 0:
        raise InputError(f"{where}: applied_transform - mirrored (determinant -1) - expected a rotation")
    return normalize.inverse(saved)


def _opencv_world(frames: Sequence[Frame], world_from_saved: Float64) -> Float64:
    poses = np.tile(np.eye(4), (len(frames), 1, 1))
    poses[:, :3] = [frame.transform_matrix[:3] for frame in frames]
    poses[:, :3, 1:3] *= -1  # OpenGL's y points up and its z backwards
    return normalize.moved(poses, world_from_saved)


def _split(content: TransformsFile, frames: Mapping[str, Frame], where: str) -> list[str] | None:
    """Per frame, by its place, the split that the file's lists put it in, "" for none; None without lists."""
    lists = {"train": content.train_filenames, "val": content.val_filenames, "test": content.test_filenames}
    given = {split: (f"{split}_filenames", names) for split, names in lists.items() if names is not None}
    if given:
        return split_labels([frame.file_path for frame in frames.values()], given, where=where)
    named = ["test" if place.startswith("test_frames") else "train" for place in frames]
    return named if content.test_frames else None


def _joined(files: Sequence[Views]) -> Views:
    """The views of all split files as one set."""
    first = files[0]
    for name in {name: None for views in files for name in views.files}:
        if any(name not in views.files for views in files):
            raise InputError(f"{shown(first.source)}: {name} - some splits have it - expected all or none")

    def chain(attribute: str) -> list[Any]:
        return [item for views in files for item in getattr(views, attribute) or []]

    joined = replace(
        first.with_files({name: [path for views in files for path in views.files[name]] for name in first.files}),
        names=chain("names"),
        images=chain("images"),
        split=chain("split"),
        camera_to_world=np.concatenate([views.camera_to_world for views in files]),
        intrinsics=np.concatenate([views.intrinsics for views in files]),
        size=np.concatenate([views.size for views in files]),
        distortion=np.concatenate([views.distortion for views in files if views.distortion is not None]),
        lens=np.concatenate([views.lens for views in files if views.lens is not None]),
    )
    # Validation files are often copies of the test file.
    return without_twins(joined, limit=MAX_MISSING_SHARE)


@dataclass(frozen=True)
class _Folder:
    """Looks up the files that a transforms file names, inside its folder."""

    file: Path
    allow_outside: bool

    def find(self, name: str, where: str) -> Path:
        return inside(self.file.parent, name, where=where, allow_outside=self.allow_outside)

    def image(self, name: str, where: str) -> Path:
        """The picture; Blender's files leave the suffix out, and some name another one than their pictures have."""
        key = f"{where}.file_path"
        return images.named(self.file.parent, name, where=key, allow_outside=self.allow_outside)

    def points(
        self, name: str | None, where: str, world_from_saved: Float64
    ) -> tuple[Float64 | None, UInt8 | None]:
        """Points [P, 3] of a .ply, and their colors [P, 3] where it has them."""
        if name is None:
            return None, None
        path = self.find(name, where)
        if not path.is_file():
            notice(f"{where} - {shown(path)} is missing, going on without its points")
            return None, None
        import trimesh  # takes longer to import than all formats

        try:
            loaded: Any = trimesh.load(path, file_type="ply", process=False)
            points = np.asarray(loaded.vertices, dtype=np.float64).reshape(-1, 3)
        except Exception as error:  # trimesh raises whatever its parsers raise
            raise InputError(f"{shown(path)} - cannot be read as PLY: {shown(error)}") from error
        finite = np.isfinite(points).all(axis=-1)
        colors = np.asarray(getattr(loaded, "colors", ()))  # of a cloud
        known = colors.dtype == np.uint8 and colors.shape[:1] == points.shape[:1] and colors.ndim == 2
        moved = points[finite] @ world_from_saved[:3, :3].T + world_from_saved[:3, 3]
        return np.asarray(moved), colors[finite, :3] if known else None
