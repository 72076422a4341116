"""COLMAP sparse models with their pictures: any camera model, binary or text, with or without rigs.

Poses are world-to-camera quaternions (w, x, y, z) with OpenCV axes; pixel centers are at +0.5 as ours are, in
intrinsics and observations alike. COLMAP looks at the stored pixels and ignores an EXIF orientation, and so
do we. Distortion goes into the rays; pictures are never resampled for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from dataio.checks.usable import MOST_COORDINATE
from dataio.files import Float64, inside, need_folder, notice, read_text, shown
from dataio.formats import picture_folders
from dataio.formats.colmap_model import (
    ModelCamera,
    ModelPoints,
    Photo,
    SparseModel,
    count_photos,
    read_model,
    suffix_of,
)
from dataio.formats.named_splits import split_labels
from dataio.formats.picture_folders import Limits, PictureFolder
from dataio.lens import COEFFICIENTS, Lens
from dataio.pictures.images import UInt8
from dataio.placement import placed
from dataio.scene import DataConfig, Scene, assemble
from dataio.views import Tracks, Views
from utils.errors import InputError

PLACES = ("", "sparse", "colmap/sparse", "dense/sparse")
PICTURES = ("images", "input", "image", "rgb", "")
MOST_MODELS = 1000
ENOUGH_POINTS = 100


# nerfstudio's files with the names of a split's pictures
LISTS = {"train": "train_list.txt", "test": "test_list.txt", "val": "validation_list.txt"}


class Meaning(NamedTuple):
    """How a model's parameters are read: how many focal lengths come first, and the coefficients after cx, cy."""

    lens: Lens
    focals: int
    places: tuple[int, ...] = ()  # of the coefficients in our order


MEANING = {
    "SIMPLE_PINHOLE": Meaning(Lens.BROWN, 1),
    "PINHOLE": Meaning(Lens.BROWN, 2),
    "SIMPLE_RADIAL": Meaning(Lens.BROWN, 1, (0,)),
    "RADIAL": Meaning(Lens.BROWN, 1, (0, 1)),
    "OPENCV": Meaning(Lens.BROWN, 2, (0, 1, 2, 3)),
    "OPENCV_FISHEYE": Meaning(Lens.FISHEYE, 2, (0, 1, 2, 3)),
    "FULL_OPENCV": Meaning(Lens.BROWN, 2, tuple(range(8))),
    "FOV": Meaning(Lens.FIELD_OF_VIEW, 2, (0,)),
    "SIMPLE_RADIAL_FISHEYE": Meaning(Lens.FISHEYE, 1, (0,)),
    "RADIAL_FISHEYE": Meaning(Lens.FISHEYE, 1, (0, 1)),
    "THIN_PRISM_FISHEYE": Meaning(Lens.THIN_PRISM_FISHEYE, 2, tuple(range(8))),
    "RAD_TAN_THIN_PRISM_FISHEYE": Meaning(Lens.RADIAL_TANGENTIAL_PRISM_FISHEYE, 2, tuple(range(12))),
    "SIMPLE_DIVISION": Meaning(Lens.DIVISION, 1, (0,)),
    "DIVISION": Meaning(Lens.DIVISION, 2, (0,)),
    "SIMPLE_FISHEYE": Meaning(Lens.FISHEYE, 1),
    "FISHEYE": Meaning(Lens.FISHEYE, 2),
    "EUCM": Meaning(Lens.UNIFIED, 2, (0, 1)),
    "EQUIRECTANGULAR": Meaning(Lens.EQUIRECTANGULAR, 0),
}


class ColmapData(DataConfig):
    """A folder with a COLMAP model (sparse/0 and its like) and the pictures that it was made from."""

    type: Literal["colmap"] = "colmap"
    mask_place: ClassVar[str] = "masks/, as COLMAP names them, in the pictures' size"
    priority: ClassVar[int] = -1  # transforms.json beside it was made from it and says more

    model: str | None = Field(
        default=None, description="folder of the model, in data.path; default: the one with the most images"
    )
    images: str | None = Field(
        default=None, description="folder of the pictures, in data.path or absolute; default: looked for"
    )
    georeference: Literal["auto", "off"] = Field(
        default="auto",
        description="auto: positions in the photographs' EXIF, where they agree, make the world east, north, up in"
        " meters; off: the model's own frame",
    )
    min_track: int = Field(default=3, ge=0, description="sparse points seen in fewer images are left out")
    max_error: float = Field(default=2.0, gt=0, description="... and with a larger reprojection error, pixels")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with a model in one of the usual places."""
        return path.is_dir() and bool(_models(path))

    def parse(self) -> Views:
        """Read the model and look for its pictures. Raises InputError."""
        return self._parse()[0]

    def load(self) -> Scene:
        """The scene; pictures that lie there in a smaller size already are not divided by `downscale` again."""
        views, done = self._parse()
        return assemble(self.model_copy(update={"downscale": max(1, self.downscale // done)}), views)

    def _parse(self) -> tuple[Views, int]:
        root = need_folder(self.path)
        folder = self._model_folder(root)
        model = read_model(folder, root=root, allow_outside=self.allow_outside)
        photos = sorted(model.photos, key=lambda photo: photo.name)
        where = shown(folder)
        if not photos:
            raise InputError(f"{where} - got a model without images - expected at least one")
        names = [photo.name for photo in photos]
        pictures = self._pictures(root, folder, names, where)
        cameras = [_camera(model, photo, where) for photo in photos]
        size = np.array([(camera.width, camera.height) for camera in cameras], dtype=np.int64)
        intrinsics = np.array([_intrinsics(camera) for camera in cameras])
        fitted = picture_folders.fitted(intrinsics, size, pictures.paths, where=where)
        points, colors, tracks = _robust(model, photos, self.min_track, self.max_error)
        if tracks is not None:
            tracks = tracks.scaled(fitted.size / size)
        views = Views(
            source=folder,
            names=names,
            images=pictures.paths,
            camera_to_world=np.array([_pose(photo) for photo in photos]),
            intrinsics=fitted.intrinsics,
            size=fitted.size,
            distortion=_distortion(cameras),
            lens=np.array([MEANING[camera.model].lens for camera in cameras], dtype=np.int64),
            split=_splits(root, names, self.allow_outside),
            masks=_masks(pictures, names, self.allow_outside),
            points=points,
            point_colors=colors,
            tracks=tracks,
            folder=pictures.folder,
            pose_key="pose",
        )
        return (placed(views, move=True) if self.georeference == "auto" else views), pictures.factor

    def _model_folder(self, root: Path) -> Path:
        if self.model is not None:
            return inside(root, self.model, where="data.model", allow_outside=self.allow_outside)
        found = _models(root)
        if not found:
            looked = ", ".join(place or "." for place in PLACES)
            raise InputError(f"{shown(root)} - no COLMAP model - looked for cameras.bin or .txt in {looked}")
        if len(found) == 1:
            return found[0]
        counts = [count_photos(folder, root=root, allow_outside=self.allow_outside) for folder in found]
        best = int(np.argmax(counts))
        others = ", ".join(f"{f.relative_to(root)}: {n}" for f, n in zip(found, counts, strict=True))
        notice(f"{shown(root)}: {len(found)} COLMAP models (images: {others}) - taking the largest, "
               f"{found[best].relative_to(root)}; data.model names another")  # fmt: skip
        return found[best]

    def _pictures(self, root: Path, folder: Path, names: Sequence[str], where: str) -> PictureFolder:
        if self.images is not None:
            bases = [root / Path(self.images).expanduser()]
            limits = Limits(allow_outside=self.allow_outside, named=True)
            return picture_folders.choose(bases, names, where=where, downscale=self.downscale, limits=limits)
        # A model's own folder may be what data.path names: then the pictures are two folders up.
        near = [root, root.parent, root.parent.parent] if folder == root else [root]
        bases = [base / name for base in near for name in PICTURES]
        limits = Limits(allow_outside=self.allow_outside)
        return picture_folders.choose(bases, names, where=where, downscale=self.downscale, limits=limits)


def _models(root: Path) -> list[Path]:
    """The folders with a model: the usual places and their direct sub-folders, in the order of names."""
    found = []
    for place in PLACES:
        folder = root / place
        if suffix_of(folder):
            found.append(folder)
        if place and folder.is_dir():
            found += [sub for sub in sorted(folder.iterdir())[:MOST_MODELS] if sub.is_dir() and suffix_of(sub)]
    return found


def _camera(model: SparseModel, photo: Photo, where: str) -> ModelCamera:
    if photo.camera not in model.cameras:
        raise InputError(f"{where}: {shown(photo.name)} - got the camera {photo.camera}, which is not in cameras")
    return model.cameras[photo.camera]


def _pose(photo: Photo) -> Float64:
    """Camera-to-world [4, 4]; NaN where the quaternion says nothing."""
    pose = np.eye(4)
    length = math.hypot(*photo.quaternion)
    if not (1e-9 < length < np.inf and math.hypot(*photo.translation) < MOST_COORDINATE):
        return np.full((4, 4), np.nan)
    w, x, y, z = (number / length for number in photo.quaternion)
    world_to_camera = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    pose[:3, :3] = world_to_camera.T
    pose[:3, 3] = -world_to_camera.T @ np.array(photo.translation)
    return pose


def _intrinsics(camera: ModelCamera) -> list[float]:
    """fx fy cx cy; of a panorama the pixels per radian."""
    focals = MEANING[camera.model].focals
    if focals == 0:
        return [camera.width / (2 * np.pi), camera.height / np.pi, camera.width / 2, camera.height / 2]
    return [camera.parameters[0], *camera.parameters[focals - 1 : focals + 2]]


def _distortion(cameras: Sequence[ModelCamera]) -> Float64:
    """[C, 8], or [C, 12] where a lens has so many coefficients."""
    ours = np.zeros((len(cameras), COEFFICIENTS))
    for row, camera in zip(ours, cameras, strict=True):
        meaning = MEANING[camera.model]
        row[list(meaning.places)] = camera.parameters[len(camera.parameters) - len(meaning.places) :]
    return ours if ours[:, 8:].any() else ours[:, :8]


def _robust(
    model: SparseModel, photos: Sequence[Photo], min_track: int, max_error: float
) -> tuple[Float64 | None, UInt8 | None, Tracks | None]:
    """The points [P, 3] that are worth trusting, their colors [P, 3], and where the photographs saw them.

    Few points are better than none: the demands on the track go down to two views, then are dropped.
    """
    points = model.points
    finite = (np.abs(points.position) < MOST_COORDINATE).all(axis=-1) & ~(points.error > max_error)
    kept = finite
    for least in sorted({min_track, min(min_track, 2), 0}, reverse=True):
        kept = finite & (points.track >= least)
        if kept.sum() >= ENOUGH_POINTS:
            break
    if not kept.any():
        return None, None, None
    return points.position[kept], points.color[kept], _tracks(points, kept, photos)


def _tracks(points: ModelPoints, kept: np.ndarray, photos: Sequence[Photo]) -> Tracks | None:
    order = np.argsort(points.number)
    number = points.number[order]
    place = np.where(kept, np.cumsum(kept) - 1, -1)[order]  # among the points that are kept
    chunks = []
    for view, photo in enumerate(photos):
        nearest = np.searchsorted(number, photo.point).clip(max=len(number) - 1)
        point = np.where(number[nearest] == photo.point, place[nearest], -1)
        sound = (point >= 0) & np.isfinite(photo.pixel).all(axis=-1)
        chunks.append((point[sound], np.full(int(sound.sum()), view), photo.pixel[sound]))
    joined = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    return Tracks(*joined) if len(joined[0]) else None


def _splits(root: Path, names: Sequence[str], allow_outside: bool) -> list[str] | None:
    """Per picture the split whose list names it, "" for none; None without lists. Raises InputError."""
    files = {split: root / file for split, file in LISTS.items() if (root / file).is_file()}
    lists: dict[str, tuple[str, list[str]]] = {}
    for split, file in files.items():
        text = read_text(inside(root, file.name, where=shown(file), allow_outside=allow_outside))
        lists[split] = file.name, [line.strip() for line in text.splitlines() if line.strip()]
        if not set(names).intersection(lists[split][1]):
            expected = "expected one name per line, as in images"
            raise InputError(f"{shown(file)} - names no picture of the model - {expected}")
    return split_labels(names, lists, where=shown(root)) if lists else None


def _masks(pictures: PictureFolder, names: Sequence[str], allow_outside: bool) -> list[Path] | None:
    """masks/NAME.png, NAME with its suffix as COLMAP's own masks have it or without; beside the pictures."""
    folder = pictures.masks
    if folder is None:
        return None
    masks = []
    for name, picture in zip(names, pictures.paths, strict=True):
        path = inside(folder, name, where=shown(folder), allow_outside=allow_outside)
        tries = [path.with_name(path.name + ".png"), path.with_suffix(".png"), path]
        found = next((mask for mask in tries if mask.is_file()), None)
        if found is None and picture.is_file():
            raise InputError(f"{shown(folder)} - no mask for {shown(name)} - expected {shown(tries[0].name)}")
        masks.append(found or tries[0])
    return masks
