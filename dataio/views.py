"""What a format's file says, before any image is decoded, and the checks that all formats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataio import normalize
from dataio.cameras import Cameras
from dataio.checks.usable import check_cameras, drop_faulty, orthonormal
from dataio.files import MAX_BAD_SHARE, MAX_MISSING_SHARE, Float64, shown
from dataio.georeference import Georeference
from dataio.pictures import images
from dataio.pictures.images import Source, UInt8
from dataio.pictures.registration import DepthCamera
from utils.errors import InputError

OWN_FIELDS = ("mask", "depth")  # quantities per pixel with a field of their own, here, in scenes and in batches


def evenly_chosen(count: int, most: int) -> npt.NDArray[np.int64]:
    """[N] ascending indices of at most `most` of `count` >= 0 things in a row, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


@dataclass(frozen=True)
class Tracks:
    """Where views saw sparse points."""

    point: npt.NDArray[np.int64]  # [T] index into Views.points
    view: npt.NDArray[np.int64]  # [T] index of the view
    pixel: Float64  # [T, 2] in pixels of the files, centers at +0.5

    def scaled(self, factor: Float64) -> Tracks:
        """The same for pictures that were resized by `factor` [C, 2]."""
        return replace(self, pixel=self.pixel * factor[self.view])

    def only(self, keep: npt.NDArray[np.bool_]) -> Tracks:
        """What is left when the views where `keep` [C] is false go."""
        number = np.cumsum(keep) - 1
        stays = keep[self.view]
        return Tracks(self.point[stays], number[self.view[stays]], self.pixel[stays])


@dataclass(frozen=True)
class Views:
    """What a format's file says, before any image is decoded. World frame, OpenCV axes, float64."""

    source: Path  # the file that names the views, for messages
    names: list[str]
    images: Sequence[Source]
    camera_to_world: Float64  # [C, 4, 4]
    intrinsics: Float64  # [C, 4] fx fy cx cy in pixels of the files, pixel centers at +0.5
    size: npt.NDArray[np.int64]  # [C, 2] width, height as declared
    split: list[str] | None = None  # per view "train", "test" or "val"; None: hold some out
    distortion: Float64 | None = None  # [C, 8 or 12]
    lens: npt.NDArray[np.int64] | None = None  # [C] numbers of `Lens`, Brown's if None
    masks: Sequence[Source] | None = None
    depths: Sequence[Source] | None = None
    further: Mapping[str, Sequence[Source]] = field(default_factory=dict)  # files of other quantities, by name
    depth_unit: float = 1.0  # world units per stored number
    depth_camera: DepthCamera | None = None  # when depths were taken by another camera than the colors
    room: bool = False  # whether the format is one of rooms, seen from within
    points: Float64 | None = None  # [P, 3]
    point_colors: UInt8 | None = None  # [P, 3], where they are known
    world_from_scene: Float64 | None = None  # [4, 4], when the format says where the unit sphere is
    up: Float64 | None = None  # [3], when the format promises it
    tracks: Tracks | None = None
    georeference: Georeference | None = None  # of a world in meters, east, north, up
    folder: Path | None = None  # below which all pictures should be among the views; None: those of each view
    pose_key: str = "transform_matrix"  # what a pose is called in the file, for messages

    @property
    def files(self) -> dict[str, Sequence[Source]]:
        """The files of every quantity per pixel that the data have, by its name: one for each view."""
        named: dict[str, Sequence[Source] | None] = {"mask": self.masks, "depth": self.depths, **self.further}
        return {name: files for name, files in named.items() if files is not None}

    def with_files(self, files: Mapping[str, Sequence[Source]]) -> Views:
        """The same views with the files of these quantities and no others."""
        rest = {name: sources for name, sources in files.items() if name not in OWN_FIELDS}
        return replace(self, masks=files.get("mask"), depths=files.get("depth"), further=rest)

    def cameras(self, similarity: Float64, *, near: float = 0.0) -> Cameras:
        """The cameras in the frame that `similarity` [4, 4] maps the world to, rounded to float32 there."""
        poses = normalize.moved(self.camera_to_world, similarity)
        return Cameras.make(
            poses, self.intrinsics, self.size, distortion=self.distortion, lens=self.lens, near=near
        )

    def only(self, keep: npt.NDArray[np.bool_]) -> Views:
        """The views where `keep` [C] is true."""
        chosen = np.flatnonzero(keep).tolist()
        files = {name: [sources[i] for i in chosen] for name, sources in self.files.items()}
        return replace(
            self.with_files(files),
            names=[self.names[i] for i in chosen],
            images=[self.images[i] for i in chosen],
            camera_to_world=self.camera_to_world[chosen],
            intrinsics=self.intrinsics[chosen],
            size=self.size[chosen],
            split=None if self.split is None else [self.split[i] for i in chosen],
            distortion=None if self.distortion is None else self.distortion[chosen],
            lens=None if self.lens is None else self.lens[chosen],
            tracks=None if self.tracks is None else self.tracks.only(keep),
        )


def present(views: Views) -> Views:
    """The views whose image file exists: one line when some are missing, InputError when most are."""
    faults = ["" if path.is_file() else "no such file" for path in views.images]
    names = [str(path) for path in views.images]
    keep = drop_faulty(faults, names, where=shown(views.source), limit=MAX_MISSING_SHARE, what="images")
    return views.only(keep)


def without_twins(views: Views, *, limit: float) -> Views:
    """The views without those whose image was named before. InputError above the share `limit`."""
    first_of = {name: view for view, name in reversed(list(enumerate(views.names)))}
    twice = ["" if first_of[name] == view else "is there twice" for view, name in enumerate(views.names)]
    keep = drop_faulty(twice, views.names, where=shown(views.source), limit=limit, what="views")
    return views.only(keep)


def checked(views: Views) -> Views:
    """The views whose file, camera and size are sound, with rigid poses. Raises InputError."""
    where = shown(views.source)
    if not views.names:
        raise InputError(f"{where} - got no images - expected at least one")
    views = present(without_twins(views, limit=MAX_BAD_SHARE))
    sound = check_cameras(
        views.camera_to_world,
        views.intrinsics,
        views.size,
        views.names,
        where=where,
        key=views.pose_key,
        distortion=views.distortion,
        lens=views.lens,
    )
    views = views.only(sound)
    faults = [_size_fault(path, size) for path, size in zip(views.images, views.size, strict=True)]
    views = views.only(drop_faulty(faults, views.names, where=where, limit=MAX_BAD_SHARE, what="images"))
    return replace(views, camera_to_world=orthonormal(views.camera_to_world))


def _size_fault(path: Source, size: npt.NDArray[np.int64]) -> str:
    width, height = images.image_size(path)
    if (width, height) == (int(size[0]), int(size[1])):
        return ""
    turned = (height, width) == (int(size[0]), int(size[1]))
    why = ", turned by an EXIF orientation? mogrify -auto-orient turns the pixels" if turned else ""
    return f"got an image of {width} x {height} - expected {size[0]} x {size[1]} as its camera (w, h) says{why}"
