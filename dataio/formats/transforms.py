"""transforms.json in its dialects: Blender (NeRF-synthetic), instant-ngp, nerfstudio.

Poses are camera-to-world with OpenGL axes (x right, y up, z backwards); principal points count from the
image's corner, so that pixel centers are at +0.5 as ours are. nerfstudio's `applied_transform` and
`applied_scale` are undone: our world is the one before them.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import trimesh
from pydantic import BaseModel, ConfigDict, Field

from dataio import normalize
from dataio.files import (
    MAX_FRAMES,
    MAX_MISSING_SHARE,
    Float64,
    inside,
    need_folder,
    notice,
    parse_json,
    shown,
    within,
)
from dataio.formats import picture_folders
from dataio.lens import Lens
from dataio.pictures import images
from dataio.quantities.sources import named_in_frames
from dataio.scene import DataConfig
from dataio.views import Views, without_twins
from utils.errors import InputError

SPLIT_FILES = {split: f"transforms_{split}.json" for split in ("train", "test", "val")}
# Keys of lenses that other programs write and that are not read here: NVIDIA's f-theta, panoramas, higher orders.
OTHER_LENS = re.compile(r"ftheta_\w+|k[5-9]|p[3-9]|s[1-4]|tau[xy]|(is_)?(lat_?long|equirect\w*|omni\w*)")
CAMERA_MODELS = (
    "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE",
)  # fmt: skip
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

    def under(self, top: CameraKeys) -> CameraKeys:
        """This lens with the gaps filled from the top of the file."""
        own = {key: getattr(self, key) for key in CameraKeys.model_fields}
        return CameraKeys.model_construct(**{k: getattr(top, k) if v is None else v for k, v in own.items()})


class Frame(CameraKeys):
    """One photograph; the files of its mask, depth and the like are named by further keys (`dataio.quantities`)."""

    file_path: str
    transform_matrix: tuple[Row, Row, Row] | tuple[Row, Row, Row, Row]


class TransformsFile(CameraKeys):
    """The keys that are understood; the many others of the dialects are left alone."""

    camera_model: str | None = None
    is_fisheye: bool = False
    frames: list[Frame] = Field(max_length=MAX_FRAMES)
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
    priority: ClassVar[int] = 2

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A .json file, or a folder with one that has the usual name."""
        if path.is_file():
            return path.suffix.lower() == ".json"
        return any((path / name).is_file() for name in ("transforms.json", SPLIT_FILES["train"]))

    def parse(self) -> Views:
        """Read the file or the files of the splits. Raises InputError."""
        path = need_folder(self.path)
        if path.is_file():
            return self._parse_file(path, _split_of(path))
        if (path / SPLIT_FILES["train"]).is_file():
            files = {split: path / name for split, name in SPLIT_FILES.items() if (path / name).is_file()}
            return _joined([self._parse_file(file, split) for split, file in files.items()])
        if not (path / "transforms.json").is_file():
            raise InputError(f"{shown(path)} - no transforms.json and no transforms_train.json in it")
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
    fisheye = _is_fisheye(content, where)
    _refuse_other_lenses(content, where)
    folder = _Folder(path, allow_outside)
    keys = [f"{where}: frames[{i}]" for i in range(len(content.frames))]
    listed = [folder.image(frame.file_path, key) for frame, key in zip(content.frames, keys, strict=True)]
    _say_suffixes(content, listed, where)
    paths = _smaller(listed, path.parent, where)
    lenses = [frame.under(content) for frame in content.frames]
    sizes = [_size(lens, image) for lens, image in zip(lenses, paths, strict=True)]
    intrinsics, size = np.array(list(map(_intrinsics, lenses, sizes, keys))), np.array(sizes, dtype=np.int64)
    if paths != listed:
        intrinsics, size = picture_folders.fitted(intrinsics, size, paths, where=where)
    world_from_saved = _world_from_saved(content, where)
    unit = float(np.cbrt(np.linalg.det(world_from_saved[:3, :3])))
    return Views(
        source=path,
        names=[Path(os.path.relpath(image, path.parent)).as_posix() for image in paths],
        images=paths,
        camera_to_world=_opencv_world(content.frames, world_from_saved),
        intrinsics=intrinsics,
        size=size,
        split=[split] * len(paths) if split else _named_split(content, where),
        distortion=np.array(list(map(partial(_distortion, fisheye=fisheye), lenses, keys))),
        lens=np.full(len(paths), Lens.FISHEYE if fisheye else Lens.BROWN, dtype=np.int64),
        depth_unit=content.depth_unit_scale_factor * unit,
        points=folder.points(content.ply_file_path, f"{where}: ply_file_path", world_from_saved),
        up=world_from_saved[:3, 2] / unit,
    ).with_files(named_in_frames([frame.model_extra or {} for frame in content.frames], folder.find, where))


def _is_fisheye(content: TransformsFile, where: str) -> bool:
    model = content.camera_model
    if model is not None and model not in CAMERA_MODELS:
        raise InputError(
            f"{where}: camera_model - got {shown(model)} - expected one of {', '.join(CAMERA_MODELS)}"
        )
    return content.is_fisheye or model == "OPENCV_FISHEYE"


def _refuse_other_lenses(content: TransformsFile, where: str) -> None:
    """Raises InputError for keys of a lens that is not understood: read without them, every ray would be wrong."""
    for place, keys in ((where, content), *((f"{where}: frames[{i}]", f) for i, f in enumerate(content.frames))):
        extra = keys.model_extra or {}
        found = sorted(name for name, value in extra.items() if value and OTHER_LENS.fullmatch(name))
        if found:
            raise InputError(
                f"{place}: {', '.join(found)} - a lens that is not read here - expected k1 to k4, p1, p2, or"
                " camera_model OPENCV_FISHEYE; undistort the pictures first"
            )


def _say_suffixes(content: TransformsFile, paths: list[Path], where: str) -> None:
    """A line where pictures have another suffix than the file lists; Blender's lists have none."""
    listed = [Path(frame.file_path).suffix for frame in content.frames]
    other = [path for path, suffix in zip(paths, listed, strict=True) if suffix and path.suffix != suffix]
    other = [path for path in other if path.is_file()]
    if other:
        notice(f"{where} - {len(other)} pictures have another suffix than is listed, as {shown(other[0].name)}")


def _smaller(paths: list[Path], folder: Path, where: str) -> list[Path]:
    """The pictures of images_N, where those of images are listed and only the smaller ones are there."""
    if any(path.is_file() for path in paths):
        return paths
    for factor in picture_folders.SMALLER:
        others = [_in_place_of(path, folder, f"images_{factor}") for path in paths]
        if any(other.is_file() for other in others):
            notice(f"{where} - none of its pictures is there - taking those of images_{factor}")
            return others
    return paths


def _in_place_of(path: Path, folder: Path, name: str) -> Path:
    """A picture below images/ as it would be called in the folder `name`, perhaps with another suffix."""
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    other = folder.joinpath(name, *parts[1:]) if parts and parts[0] == "images" else path
    return images.beside(other) or other


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


def _distortion(lens: CameraKeys, key: str, *, fisheye: bool) -> list[float]:
    """OpenCV's order; of `distortion_params` nerfstudio's order k1 k2 k3 k4 p1 p2."""
    if lens.distortion_params is not None:
        k1, k2, k3, k4, p1, p2 = lens.distortion_params
    else:
        k1, k2, k3, k4, p1, p2 = (
            value or 0.0 for value in (lens.k1, lens.k2, lens.k3, lens.k4, lens.p1, lens.p2)
        )
    if fisheye:
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


def _named_split(content: TransformsFile, where: str) -> list[str] | None:
    """Per frame the split that the file's *_filenames lists put it in, "" for none; None without lists."""
    lists = {"train": content.train_filenames, "val": content.val_filenames, "test": content.test_filenames}
    if all(names is None for names in lists.values()):
        return None
    view_of = {posixpath.normpath(frame.file_path): view for view, frame in enumerate(content.frames)}
    lost: list[str] = []
    label = [""] * len(content.frames)
    for split, names in lists.items():
        for name in names or []:
            view = view_of.get(posixpath.normpath(name))
            if view is None:
                lost.append(f"{split}_filenames: {shown(name)}")
            else:
                label[view] = split
    if lost and not any(label):
        raise InputError(f"{where}: {lost[0]} - expected the file_path of a frame; none of {len(lost)} names is one")
    if lost:
        notice(f"{where}: {len(lost)} names of its splits have no frame, the first is {lost[0]} - left out")
    return label


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
        path = self.find(name, f"{where}.file_path")
        return path if path.is_file() else self.own(images.beside(path)) or path

    def own(self, path: Path | None) -> Path | None:
        return None if path is None else within(self.file.parent, path, allow_outside=self.allow_outside)

    def points(self, name: str | None, where: str, world_from_saved: Float64) -> Float64 | None:
        if name is None:
            return None
        path = self.find(name, where)
        if not path.is_file():
            notice(f"{where} - {shown(path)} is missing, going on without its points")
            return None
        try:
            loaded: Any = trimesh.load(path, file_type="ply", process=False)
            points = np.asarray(loaded.vertices, dtype=np.float64).reshape(-1, 3)
        except Exception as error:  # trimesh raises whatever its parsers raise
            raise InputError(f"{shown(path)} - cannot be read as PLY: {shown(error)}") from error
        points = points[np.isfinite(points).all(axis=-1)]
        return np.asarray(points @ world_from_saved[:3, :3].T + world_from_saved[:3, 3])
