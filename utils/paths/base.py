"""What every camera path offers, and what it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from utils.config.mistakes import did_you_mean
from utils.config.parts import Part
from utils.errors import InputError
from utils.paths.camera_paths import Around, camera_layout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Projection = Literal["perspective", "fisheye", "equirectangular"]
Point = tuple[float, float, float]
Chosen = str | Annotated[tuple[int | str, ...], Field(min_length=1)]  # a split, a view, or several of them
FRAMES = 80  # of a path that does not say its own number
SHOWN = 60  # characters of a name


@dataclass(frozen=True)
class CameraPath:
    """F cameras in world units, OpenCV axes.

    size: width and height of all, or [F, 2]. fps: frames per second, None: the path does not say. projection: how a ray
    meets the picture, the focal length in pixels per radian but for "perspective". views: [F], which of the photographs
    each camera is, where it is one of them. anywhere: whether they may be nearer to things than photographs were.
    """

    camera_to_world: Floats  # [F, 3, 4]
    intrinsics: Floats  # [F, 4]: fx, fy, cx, cy in pixels
    size: tuple[int, int] | Ints
    fps: float | None = None
    projection: Projection = "perspective"
    views: Ints | None = None
    anywhere: bool = False

    def __len__(self) -> int:
        return len(self.camera_to_world)


@dataclass(frozen=True)
class Photographs:
    """The C photographs that a path is made from, world frame, OpenCV axes.

    up: [3]. names: one per photograph, or none. splits: "train", "test" -> indices of photographs.
    """

    camera_to_world: Floats  # [C, 3, 4]
    intrinsics: Floats  # [C, 4]
    size: Ints  # [C, 2]
    up: Floats
    names: Sequence[str] = ()
    splits: Mapping[str, Ints] = field(default_factory=dict)

    @property
    def training(self) -> Floats:
        """[T, 3, 4] the poses that were trained on; all, where nothing is said of that."""
        return self.camera_to_world[self.splits.get("train", np.arange(len(self.camera_to_world)))]

    def around(self, center: Point | None = None) -> Around:
        """Azimuths and elevations about a point, None: what the training cameras look at."""
        layout = camera_layout(self.training, self.up)
        return Around(layout.focus if center is None else np.asarray(center, np.float64), layout.up)

    def chosen(self, views: Chosen) -> Ints:
        """The indices [V] of a split, of one view, or of several, each by its number or its name.

        A name is that of the photograph, with or without folders and suffix. Raises InputError for what is not there.
        """
        if isinstance(views, str):
            return self.splits[views] if views in self.splits else np.array([self._view(views)])
        return np.array([self._view(view) for view in views])

    def _view(self, view: int | str) -> int:
        count = len(self.camera_to_world)
        if isinstance(view, int) and 0 <= view < count:
            return self._numbered(view)
        paths = [PurePath(name) for name in self.names]
        forms = [{str(path), path.name, str(path.with_suffix("")), path.stem} for path in paths]
        found = [index for index, known in enumerate(forms) if str(view) in known]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"--path: views: {view!r} - {len(found)} are called so - expected one with its folder")
        near = did_you_mean(str(view)[:SHOWN], [*(path.stem for path in paths), *self.names, *self.splits])
        known_splits = "".join(f"{name}, " for name in self.splits)
        said = f"--path: views: got {str(view)[:SHOWN]!r}{near}"
        raise InputError(f"{said} - expected {known_splits}a name, or a number below {count}")

    def _numbered(self, view: int) -> int:
        """The view of a number. Raises InputError where another photograph is called so, as YAML reads 0001 as 1."""
        stems = [PurePath(name).stem for name in self.names]
        other = [i for i, stem in enumerate(stems) if i != view and stem.isdecimal() and int(stem) == view]
        if other:
            raise InputError(
                f"--path: views: got {view} - the photograph of this number is {self.names[view]}, but"
                f" {self.names[other[0]]} is called so - expected names in quotes, as '{stems[other[0]]}'"
            )
        return view

    def path(self, camera_to_world: Floats) -> CameraPath:
        """Cameras at poses [F, 3, 4] with the median intrinsics and size of the training photographs."""
        train = self.splits.get("train", np.arange(len(self.camera_to_world)))
        intrinsics = np.median(self.intrinsics[train], axis=0)
        width, height = np.median(self.size[train], axis=0).round().astype(int)
        everywhere = np.tile(intrinsics, (len(camera_to_world), 1))
        return CameraPath(camera_to_world, everywhere, (int(width), int(height)))


class PathConfig(Part):
    """A way of a camera."""

    def cameras(self, shot: Photographs, frames: int | None = None) -> CameraPath:
        """Exactly so many cameras; None: `FRAMES`, or as many as the path says itself.

        Raises InputError where so many frames, or these photographs, do not make such a path.
        """
        raise TypeError("a path says where its cameras are")


class MadePath(PathConfig):
    """A path that is made from the training photographs, in any number of frames."""

    def cameras(self, shot: Photographs, frames: int | None = None) -> CameraPath:
        if len(shot.training) < 2:
            name = self.model_dump()["type"]
            raise InputError(
                f"--path: {name} - leads past {len(shot.training)} view - expected at least 2, or a .json file"
            )
        return shot.path(self.poses(shot, FRAMES if frames is None else frames))

    def poses(self, shot: Photographs, frames: int) -> Floats:
        """[F, 3, 4] world frame, F = `frames`, of two training photographs or more."""
        raise TypeError("a path says where its cameras are")
