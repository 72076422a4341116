"""An asset: a folder that shows a scene without network, config or data.

asset.json describes it: the version of the format, how it is rendered, the frame of the scene, and the size and SHA-256
of every other file, all of them plain .npy arrays. Nothing in it is run or unpickled.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, ValidationError

from dataio.cameras import Cameras
from models.rendering.baked import Baked, lattice_points
from models.rendering.renderers.base import Source
from models.rendering.renderers.lattice import LatticeRenderer
from utils.config.parts import StrictModel
from utils.errors import InputError
from utils.files import write_bytes, write_json

FORMAT = 1
NAME = "asset.json"
MOST_DESCRIPTION = 1 << 20  # bytes
MOST_BYTES = 1 << 34  # of an array
Array = npt.NDArray[Any]
Triple = tuple[float, float, float]
Row = tuple[float, float, float, float]
# The arrays of a format: types that each may have; lengths of its axes, where they are given as numbers.
ARRAYS: dict[str, tuple[tuple[str, ...], tuple[str | int, ...]]] = {
    "values.npy": (("float16", "float32"), ("N", "N", "N")),
    "colors.npy": (("uint8",), ("N", "N", "N", 3)),
    "cameras/camera_to_world.npy": (("float32",), ("C", 3, 4)),
    "cameras/intrinsics.npy": (("float32",), ("C", 4)),
    "cameras/size.npy": (("int64",), ("C", 2)),
    "cameras/distortion.npy": (("float32",), ("C", "D")),
    "cameras/lens.npy": (("int64",), ("C",)),
    "cameras/near.npy": (("float32",), ("C",)),
}


class FileEntry(StrictModel):
    """Size and digest of a file."""

    bytes: int = Field(ge=0, le=MOST_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class LatticeEntry(StrictModel):
    """Rendered from values and colors on a lattice over [-1, 1]^3. trust: see `kernels.rays.trace`."""

    type: Literal["lattice"] = "lattice"
    trust: float = Field(ge=0, le=1)


class FrameEntry(StrictModel):
    """The scene frame, in which lattice and cameras are. units: of the world, "m" or unknown."""

    world_from_scene: tuple[Row, Row, Row, Row]
    up: Triple
    units: Literal["m", "unknown"]


class Description(StrictModel):
    """asset.json. bounds: lower and upper corner of the surface's box, scene frame. background: color in [0, 1]."""

    model_config = ConfigDict(allow_inf_nan=False)

    format: Literal[1]
    renderer: LatticeEntry
    frame: FrameEntry
    background: Triple
    bounds: tuple[Triple, Triple]
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Asset:
    """A scene to be shown, on the CPU.

    baked: with colors. cameras: the photographs of training, scene frame. background: color behind the surface, RGB in
    [0, 1]. world_from_scene: [4, 4]. up: [3], world frame. units: of the world.
    """

    baked: Baked
    cameras: Cameras
    background: Triple
    world_from_scene: npt.NDArray[np.float64]
    up: npt.NDArray[np.float64]
    units: Literal["m", "unknown"] = "unknown"

    def renderer(self, device: torch.device | str = "cpu") -> LatticeRenderer:
        """What makes its frames: color, depth and normal."""
        on = torch.device(device)
        return LatticeRenderer(self.baked.to(on), background=torch.tensor(self.background).to(on))

    def source(self, folder: Path, device: torch.device) -> Source:
        """Its cameras and frame, for paths."""
        return Source(folder, device, self.cameras.to(device), self.world_from_scene, self.up)

    def bounds(self) -> tuple[Triple, Triple]:
        """Lower and upper corner of the box around the surface, scene frame, up to a cell; zero without a surface."""
        near = self.baked.near_surface().flatten().nonzero()[:, 0]
        if len(near) == 0:
            return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
        points = lattice_points(near, len(self.baked.values)).double()
        x, y, z = zip(points.amin(0).tolist(), points.amax(0).tolist(), strict=True)
        return (x[0], y[0], z[0]), (x[1], y[1], z[1])

    def write(self, folder: Path) -> int:
        """Write the folder, asset.json last; returns the size in bytes. Raises StorageError where the disk refuses."""
        files: dict[str, Any] = {}
        for name, array in self._arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            data = buffer.getvalue()
            write_bytes(folder / name, data)
            files[name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        frame = {"world_from_scene": self.world_from_scene.tolist(), "up": self.up.tolist(), "units": self.units}
        description = {
            "format": FORMAT,
            "renderer": {"type": "lattice", "trust": self.baked.trust},
            "frame": frame,
            "background": list(self.background),
            "bounds": [list(corner) for corner in self.bounds()],
            "files": files,
        }
        write_json(folder / NAME, description)
        return sum(entry["bytes"] for entry in files.values())

    def _arrays(self) -> dict[str, Array]:
        assert self.baked.colors is not None
        cameras = {f"cameras/{name}.npy": tensor.numpy() for name, tensor in self.cameras.state().items()}
        return {"values.npy": self.baked.values.cpu().numpy(), "colors.npy": self.baked.colors.cpu().numpy(), **cameras}

    @staticmethod
    def open(folder: str | Path) -> Asset:
        """Read and check a folder. Raises InputError, one line, for what is damaged or no asset."""
        folder = Path(folder)
        known = _description(folder / NAME)
        lengths: dict[str, int] = {}
        arrays = {name: _array(folder / name, known.files[name], *ARRAYS[name], lengths) for name in ARRAYS}
        _check_numbers(folder, arrays, known)
        state = {Path(name).stem: torch.from_numpy(array) for name, array in arrays.items() if "/" in name}
        cameras = Cameras.from_state(state)
        _check_cameras(folder, cameras)
        values, colors = (torch.from_numpy(arrays[f"{name}.npy"]) for name in ("values", "colors"))
        return Asset(
            baked=Baked(values, known.renderer.trust, colors),
            cameras=cameras,
            background=known.background,
            world_from_scene=np.array(known.frame.world_from_scene),
            up=np.array(known.frame.up),
            units=known.frame.units,
        )


def is_asset(folder: str | Path) -> bool:
    """Whether a folder says that it is an asset."""
    return (Path(folder) / NAME).is_file()


def _description(path: Path) -> Description:
    if not path.is_file():
        raise InputError(f"{path.parent}: no {NAME} in it - expected an asset, which bake.py makes")
    if path.stat().st_size > MOST_DESCRIPTION:
        raise InputError(f"{path}: larger than {MOST_DESCRIPTION >> 20} MB - expected an asset's description")
    try:
        text = path.read_text("utf-8")
        tree = json.loads(text)
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: not readable JSON ({' '.join(str(error).split())[:100]})") from None
    version = tree.get("format") if isinstance(tree, dict) else None
    if version != FORMAT:
        raise InputError(f"{path}: format is {str(version)[:20]!r} - expected an asset of format {FORMAT}")
    try:
        known = Description.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {key}: {first['msg']}") from None
    if set(known.files) != set(ARRAYS):
        name = sorted(set(known.files) ^ set(ARRAYS))[0]
        said = "no" if name in ARRAYS else "unknown"
        raise InputError(f"{path}: files: {said} {name[:100]!r} - expected {', '.join(ARRAYS)}")
    return known


def _array(
    path: Path, entry: FileEntry, types: tuple[str, ...], shape: tuple[str | int, ...], lengths: dict[str, int]
) -> Array:
    """The array of a file; its size, digest, type and shape are checked before memory is taken by what it claims.

    lengths: what letters in `shape` stand for; those that are not known yet are added.
    """
    data = _bytes(path, entry)
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not version 1.0 of the format")
        found, _, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        raise InputError(f"{path}: not a plain .npy array ({' '.join(str(error).split())[:100]})") from None
    named = {axis: size for axis, size in zip(shape, found, strict=False) if isinstance(axis, str)}
    expected = [lengths.setdefault(axis, named.get(axis, 0)) if isinstance(axis, str) else axis for axis in shape]
    if dtype.str not in [np.dtype(name).str for name in types] or list(found) != expected:
        wanted = f"{' or '.join(types)} [{', '.join(map(str, expected))}]"
        raise InputError(f"{path}: {dtype} [{', '.join(map(str, found))}] - expected {wanted}")
    if prod(found) * dtype.itemsize != len(data) - file.tell():
        raise InputError(f"{path}: not as many numbers as its header says")
    array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return np.ascontiguousarray(array)


def _bytes(path: Path, entry: FileEntry) -> bytes:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size == entry.bytes else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}) - the asset is not whole") from None
    if data is None:
        raise InputError(f"{path}: {size} bytes - expected {entry.bytes}: the asset is damaged")
    if sha256(data).hexdigest() != entry.sha256:
        raise InputError(f"{path}: not the content that {NAME} describes - the asset is damaged")
    return data


def _check_numbers(folder: Path, arrays: dict[str, Array], known: Description) -> None:
    """Raises InputError for numbers that mean nothing."""
    place = np.array(known.frame.world_from_scene)
    finite = (name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all())
    for name in finite:
        raise InputError(f"{folder / name}: has numbers that are not finite")
    sound = {
        "values.npy: expected at least 2 points per side": len(arrays["values.npy"]) >= 2,
        "cameras/size.npy: expected a camera at least, and pictures of 1 to 65536 pixels a side": (
            len(arrays["cameras/size.npy"]) > 0
            and ((arrays["cameras/size.npy"] >= 1) & (arrays["cameras/size.npy"] <= 1 << 16)).all()
        ),
        "cameras/intrinsics.npy: expected focal lengths above 0": (arrays["cameras/intrinsics.npy"][:, :2] > 0).all(),
        "cameras/distortion.npy: expected 8 or 12 numbers per camera": (
            arrays["cameras/distortion.npy"].shape[1] in (8, 12)
        ),
        f"{NAME}: frame.world_from_scene: expected a similarity": (
            np.linalg.det(place[:3, :3]) > 0 and (place[3] == (0, 0, 0, 1)).all()
        ),
        f"{NAME}: frame.up: expected a direction": any(known.frame.up),
        f"{NAME}: background: expected a color in [0, 1]": all(0 <= x <= 1 for x in known.background),
    }
    for what, holds in sound.items():
        if not holds:
            raise InputError(f"{folder / what}")


def _check_cameras(folder: Path, cameras: Cameras) -> None:
    """Raises InputError where the ray through a picture's center is none, as with a lens that is not known."""
    try:
        rays = cameras.rays(torch.arange(len(cameras)), cameras.size / 2)
    except ValueError as error:
        raise InputError(f"{folder / 'cameras/lens.npy'}: {error} - expected numbers of known lenses") from None
    if not torch.isfinite(rays.directions).all():
        raise InputError(f"{folder / 'cameras'}: a camera has no ray through its center - the asset is damaged")
