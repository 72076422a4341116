"""The DTU layout of IDR and NeuS: cameras_sphere.npz, image/, mask/.

`world_mat_i` = K [R|t] maps world to pixels whose centers are whole numbers, so that 0.5 is added to the
principal point. `scale_mat_i` maps the unit sphere to the world: it is our world_from_scene.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from dataio.checks.usable import pinhole
from dataio.files import Float64, need_folder, notice, read_matrices, shown, within
from dataio.pictures import images
from dataio.scene import DataConfig
from dataio.views import Views
from utils.errors import InputError

CAMERA_FILES = ("cameras_sphere.npz", "cameras.npz")
SQUARE = ((4, 4), (3, 4))
HALF_PIXEL = np.array([0.0, 0.0, 0.5, 0.5])


class DtuData(DataConfig):
    """A folder with cameras_sphere.npz (or cameras.npz), image/ and perhaps mask/."""

    type: Literal["dtu"] = "dtu"
    mask_place: ClassVar[str] = "mask/"
    priority: ClassVar[int] = 1

    cameras_file: str | None = Field(
        default=None, description="name of the .npz; default: the first that is there"
    )

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with one of the camera files and a folder of images."""
        return (path / "image").is_dir() and any((path / name).is_file() for name in CAMERA_FILES)

    def parse(self) -> Views:
        """Read cameras and file names. Raises InputError."""
        folder = need_folder(self.path)
        file = self._camera_file(folder)
        matrices = read_matrices(file, {"world_mat_": SQUARE, "scale_mat_": SQUARE})
        numbers = [key.removeprefix("world_mat_") for key in matrices if key.startswith("world_mat_")]
        strange = [number for number in numbers if number and (len(number) > 9 or number != str(int(number)))]
        if strange:
            raise InputError(f"{shown(file)}: world_mat_{strange[0][:20]} - expected world_mat_0, world_mat_1, ...")
        indices = sorted(int(number) for number in numbers if number)
        paths = self._own(folder, _numbered(folder / "image", count=len(indices), where=shown(file)))
        paths = _shifted(paths, indices, shown(file))
        for number in set(paths) - set(indices):
            where = f"{shown(file)}: world_mat_{number}"
            raise InputError(f"{where} - missing - expected it for {shown(paths[number])}")
        found = [paths.get(i, folder / "image" / f"{i:06d}.png") for i in indices]
        cameras = [_decompose(matrices[f"world_mat_{i}"], f"{shown(file)}: world_mat_{i}") for i in indices]
        sizes = [images.image_size(path) if path.is_file() else (1, 1) for path in found]
        return Views(
            source=file,
            names=[path.relative_to(folder).as_posix() for path in found],
            images=found,
            camera_to_world=np.array([pose for pose, _ in cameras]).reshape(-1, 4, 4),
            intrinsics=np.array([intrinsics for _, intrinsics in cameras]).reshape(-1, 4),
            size=np.array(sizes, dtype=np.int64).reshape(-1, 2),
            masks=self._masks(folder, indices, present=set(paths)),
            world_from_scene=_similarity(matrices, indices, shown(file)),
            pose_key="world_mat",
        )

    def _camera_file(self, folder: Path) -> Path:
        names = CAMERA_FILES if self.cameras_file is None else (Path(self.cameras_file).name,)
        for name in names:
            if (folder / name).is_file():
                return within(folder, folder / name, allow_outside=self.allow_outside)
        raise InputError(f"{shown(folder)} - no {' and no '.join(map(shown, names))} in this folder")

    def _own(self, folder: Path, paths: dict[int, Path]) -> dict[int, Path]:
        """The paths, refused where one is a link that leads out of the folder."""
        return {number: within(folder, path, allow_outside=self.allow_outside) for number, path in paths.items()}

    def _masks(self, folder: Path, indices: list[int], *, present: set[int]) -> list[Path] | None:
        """The mask of each camera, where there is a folder of masks; `present`: those with a picture."""
        place = folder / "mask"
        if not place.is_dir():
            return None
        masks = _shifted(self._own(folder, _numbered(place, count=len(indices), where="mask/")), indices, shown(place))
        lacking = [i for i in indices if i in present and i not in masks]
        if lacking:
            raise InputError(f"{shown(place)} - no mask with number {lacking[0]} - expected one for each image")
        return [masks.get(i, place / f"{i:03d}.png") for i in indices]


def _numbered(folder: Path, *, count: int, where: str) -> dict[int, Path]:
    """The pictures of a folder by the number in their name; by position where the names are no numbers.

    count: of the cameras. where: the file that has them. Raises InputError where pictures cannot be told apart.
    """
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} - no such folder - {where} belongs to images in it")
    paths = sorted(filter(images.is_picture, folder.iterdir()))
    if not paths:
        raise InputError(f"{shown(folder)} - got no images - expected at least one")
    numbers = [re.search(r"(\d+)\D*$", path.stem) for path in paths]
    if not all(numbers):
        if len(paths) != count:
            raise InputError(
                f"{shown(folder)} - {len(paths)} pictures with names without numbers, {count} cameras in {where} -"
                " expected as many, or numbers"
            )
        notice(f"{shown(folder)} - names without numbers: taken in their order")
        return dict(enumerate(paths))
    numbered = {int(found[1]): path for found, path in zip(numbers, paths, strict=True) if found}
    if len(numbered) < len(paths):
        raise InputError(f"{shown(folder)} - two images have the same number - keep one of them")
    return numbered


def _shifted(paths: dict[int, Path], indices: list[int], where: str) -> dict[int, Path]:
    """The pictures by the numbers of the cameras, where those begin at 0 and the pictures at 1, or the like."""
    if set(paths) <= set(indices) or len(paths) != len(indices):
        if set(paths) < set(indices) and min(paths) == min(indices) + 1:
            notice(f"{where} - pictures begin at {min(paths)}, cameras at {min(indices)}: paired by their numbers")
        return paths
    first, last = min(paths), max(paths)
    shift = first - min(indices)
    if {number - shift for number in paths} != set(indices):
        return paths
    notice(f"{where} - pictures {first} to {last} belong to cameras {min(indices)} to {max(indices)}: paired in order")
    return {number - shift: path for number, path in paths.items()}


def _decompose(matrix: Float64, where: str) -> tuple[Float64, Float64]:
    """Camera-to-world [4, 4] and fx fy cx cy [4] of a projection K [R|t] of any scale and sign.

    With M = K R, the QR factors of M^-1 = R^T K^-1 are the wanted ones up to signs.
    """
    projection = matrix[:3, :4]
    if not np.isfinite(projection).all():
        return np.full((4, 4), np.nan), np.full(4, np.nan)
    square = projection[:, :3] * (np.sign(np.linalg.det(projection[:, :3])) or 1.0)
    if np.linalg.cond(square) > 1e12:
        raise InputError(f"{where} - the matrix is singular - expected K [R|t]")
    rotation, upper = np.linalg.qr(np.linalg.inv(square))
    signs = np.sign(np.diag(upper))
    intrinsics = np.linalg.inv(signs[:, None] * upper)
    intrinsics /= intrinsics[2, 2]
    pose = np.eye(4)
    pose[:3, :3] = rotation * signs
    pose[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
    return pose, pinhole(intrinsics, where) + HALF_PIXEL


def _similarity(matrices: dict[str, Float64], indices: list[int], where: str) -> Float64 | None:
    """`scale_mat` of the first view; all views have the same one."""
    given = [matrices[f"scale_mat_{i}"][:3] for i in indices if f"scale_mat_{i}" in matrices]
    if not given:
        return None
    first = np.vstack([given[0], [0.0, 0.0, 0.0, 1.0]])
    gram = first[:3, :3] @ first[:3, :3].T
    sound = np.isfinite(first).all() and np.linalg.det(first[:3, :3]) > 0
    if not (sound and np.abs(gram / gram[0, 0] - np.eye(3)).max() < 1e-3):
        raise InputError(f"{where}: scale_mat_{indices[0]} - not a similarity - expected scale and shift")
    if any(np.abs(other - given[0]).max() > 1e-6 * np.abs(given[0]).max() for other in given):
        raise InputError(f"{where}: scale_mat - differs between views - expected one for all")
    return first
