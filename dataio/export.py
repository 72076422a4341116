"""A `Scene` written for other programs: transforms.json as nerfstudio reads it, COLMAP's text model.

Everything leaves in world units and as the scene has it: pictures in the size that they were loaded in, with
the background color where a mask said so. Pictures are PNG; masks lie beside them.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from dataio import normalize
from dataio.checks.usable import orthonormal
from dataio.files import Float64
from dataio.lens import Lens
from dataio.scene import Scene
from utils.errors import InputError
from utils.files import replacing, write_bytes, write_json

OPENGL = np.array([1.0, -1.0, -1.0, 1.0])  # x right, y up, z backwards
LISTS = {"train": "train_filenames", "val": "val_filenames", "test": "test_filenames"}
COLMAP_LISTS = {"train": "train_list.txt", "test": "test_list.txt", "val": "validation_list.txt"}
# The COLMAP model that has room for all coefficients of a lens.
COLMAP_MODELS = {
    Lens.FISHEYE: ("OPENCV_FISHEYE", 4),
    Lens.THIN_PRISM_FISHEYE: ("THIN_PRISM_FISHEYE", 8),
    Lens.RADIAL_TANGENTIAL_PRISM_FISHEYE: ("RAD_TAN_THIN_PRISM_FISHEYE", 12),
    Lens.FIELD_OF_VIEW: ("FOV", 1),
    Lens.DIVISION: ("DIVISION", 1),
    Lens.UNIFIED: ("EUCM", 2),
}


def write_transforms(scene: Scene, folder: Path) -> Path:
    """Write images/, masks/, depths/, points.ply and transforms.json into `folder`; returns the file.

    Raises InputError for lenses that the format cannot say, StorageError where the disk refuses.
    """
    lenses = {Lens(int(number)) for number in scene.cameras.lens.unique()}
    rational = bool(scene.cameras.distortion[scene.cameras.lens == Lens.BROWN][:, 5:].any())
    if rational or len(lenses) > 1 or not lenses <= {Lens.BROWN, Lens.FISHEYE}:
        raise InputError(
            f"{folder} - transforms.json has no words for these lenses - expected one of OPENCV and "
            "OPENCV_FISHEYE; write a COLMAP model"
        )
    names = _write_pictures(scene, folder, folder / "images", folder / "masks")
    fisheye = lenses == {Lens.FISHEYE}
    poses = world_poses(scene) * OPENGL
    frames: list[dict[str, Any]] = [
        {"file_path": f"images/{name}", "transform_matrix": pose.tolist(), **_keys(scene, view, fisheye)}
        for view, (name, pose) in enumerate(zip(names, poses, strict=True))
    ]
    content: dict[str, Any] = {"camera_model": "OPENCV_FISHEYE" if fisheye else "OPENCV"}
    if scene.masks is not None:
        for frame, name in zip(frames, names, strict=True):
            frame["mask_path"] = f"masks/{name}.png"
    if scene.depths is not None:
        content["depth_unit_scale_factor"] = 1.0
        for frame, name in zip(frames, _write_depths(scene, folder, names), strict=True):
            frame["depth_file_path"] = name
    points = world_points(scene)
    if points is not None:
        content["ply_file_path"] = "points.ply"
        write_bytes(folder / "points.ply", _ply(points))
    for split, key in LISTS.items():
        if split in scene.splits:
            content[key] = [frames[view]["file_path"] for view in scene.splits[split]]
    write_json(folder / "transforms.json", {**content, "frames": frames})
    return folder / "transforms.json"


def write_colmap(scene: Scene, folder: Path) -> Path:
    """Write images/, masks/ and sparse/0 as text into `folder`; returns sparse/0.

    One camera per image. Points have no tracks, since a scene keeps none; the format has no depths. The splits go
    into nerfstudio's train_list.txt, test_list.txt and validation_list.txt.
    Raises StorageError where the disk refuses.
    """
    names = _write_pictures(scene, folder, folder / "images", folder / "masks")
    model = folder / "sparse" / "0"
    cameras = [f"{view + 1} {_colmap_camera(scene, view)}" for view in range(len(names))]
    photos = []
    for view, (name, pose) in enumerate(zip(names, world_poses(scene), strict=True)):
        rotation = pose[:3, :3].T
        numbers = [*quaternion(rotation), *(-rotation @ pose[:3, 3])]
        # The empty line is that of the image's observations.
        photos += [f"{view + 1} {_text(numbers)} {view + 1} {name}", ""]
    points = world_points(scene)
    rows = [] if points is None else [f"{i + 1} {_text(p)} 128 128 128 -1" for i, p in enumerate(points.tolist())]
    _write_lines(model / "cameras.txt", ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", *cameras])
    _write_lines(model / "images.txt", ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME", *photos])
    _write_lines(model / "points3D.txt", ["# POINT3D_ID X Y Z R G B ERROR TRACK[]", *rows])
    for split, views in scene.splits.items():
        if len(views):
            _write_lines(folder / COLMAP_LISTS[split], [names[view] for view in views])
    return model


def world_poses(scene: Scene) -> Float64:
    """[C, 4, 4] camera-to-world, OpenCV axes, world units, in double precision."""
    poses = np.tile(np.eye(4), (len(scene.cameras), 1, 1))
    poses[:, :3] = scene.cameras.camera_to_world.double().numpy()
    # Rigid to the last digit: far from the origin, what single precision leaves of it would move the center.
    return orthonormal(normalize.moved(poses, scene.world_from_scene))


def world_points(scene: Scene) -> Float64 | None:
    """[P, 3] sparse points in world units, or None."""
    if scene.points is None:
        return None
    to_world = scene.world_from_scene
    return np.asarray(scene.points.astype(np.float64) @ to_world[:3, :3].T + to_world[:3, 3])


def quaternion(rotation: Float64) -> Float64:
    """[4] w x y z of a rotation [3, 3], w >= 0: the eigenvector that is stable for every angle (Bar-Itzhack, 2000)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array([
        [xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, xx - yy - zz, xy + yx, xz + zx],
        [xz - zx, xy + yx, yy - xx - zz, yz + zy],
        [yx - xy, xz + zx, yz + zy, zz - xx - yy],
    ])  # fmt: skip
    vector = np.linalg.eigh(matrix)[1][:, -1]
    return np.asarray(vector if vector[0] >= 0 else -vector)


def _write_pictures(scene: Scene, folder: Path, images: Path, masks: Path) -> list[str]:
    """Writes the pictures and masks; returns the pictures' names below `images`."""
    names = picture_names(scene.names)
    for view, name in enumerate(names):
        _write_png(images / name, scene.images[view])
        if scene.masks is not None:
            _write_png(masks / f"{name}.png", scene.masks[view])
    return names


def picture_names(names: list[str]) -> list[str]:
    """Names of PNG files that stay in their folder, differ, and have the order of `names`.

    A folder that all views share, and what leads out of the folder, is left away.
    """
    parts = [[part for part in PurePosixPath(name).parts if part not in ("..", "/", ".")] for name in names]
    while all(len(path) > 1 for path in parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    plain = [PurePosixPath(*path).with_suffix(".png").as_posix() if path else "" for path in parts]
    if "" in plain or len(set(plain)) < len(plain):
        return [f"{view:06d}.png" for view in range(len(names))]
    return plain


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def _write_depths(scene: Scene, folder: Path, names: list[str]) -> list[str]:
    unit = float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))
    files = [f"depths/{name}.npy" for name in names]
    for file, depth in zip(files, scene.depths or [], strict=True):
        with replacing(folder / file) as temporary:
            np.save(temporary, depth * np.float32(unit))
    return files


def _keys(scene: Scene, view: int, fisheye: bool) -> dict[str, float]:
    """The camera of one frame."""
    fx, fy, cx, cy = scene.cameras.intrinsics[view].tolist()
    width, height = scene.cameras.size[view].tolist()
    bend = scene.cameras.distortion[view].tolist()
    names = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3")
    keys = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height}
    return keys | dict(zip(names, bend, strict=False))


def _ply(points: Float64) -> bytes:
    # In doubles, which trimesh does not write: geo-referenced points need them.
    axes = "".join(f"property double {axis}\n" for axis in "xyz")
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{axes}end_header\n"
    return head.encode() + points.astype("<f8").tobytes()


def _colmap_camera(scene: Scene, view: int) -> str:
    """MODEL WIDTH HEIGHT PARAMS[]."""
    width, height = scene.cameras.size[view].tolist()
    lens = Lens(int(scene.cameras.lens[view]))
    bend = scene.cameras.distortion[view].tolist()
    if lens == Lens.EQUIRECTANGULAR:
        return f"EQUIRECTANGULAR {width} {height} {width} {height}"
    if lens == Lens.BROWN:
        model, count = ("FULL_OPENCV", 8) if any(bend[4:]) else ("OPENCV", 4) if any(bend) else ("PINHOLE", 0)
    else:
        model, count = COLMAP_MODELS[lens]
    return f"{model} {width} {height} {_text([*scene.cameras.intrinsics[view].tolist(), *bend[:count]])}"


def _text(numbers: Any) -> str:
    """Numbers with as many digits as it takes to read back the same."""
    return " ".join(repr(float(number)) for number in numbers)


def _write_lines(path: Path, lines: list[str]) -> None:
    write_bytes(path, ("\n".join(lines) + "\n").encode())
