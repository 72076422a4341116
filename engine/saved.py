"""What a checkpoint holds, checked before any of it is used.

A digest says that a file is as it was written, not that a run of ours has written it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataio.cameras import Cameras
from dataio.files import MAX_FRAMES
from dataio.georeference import Georeference
from dataio.lens import Lens
from dataio.pictures.images import MAX_PIXELS
from dataio.scene import Scene
from utils.checkpoint import STATE, load_checkpoint
from utils.entries import Entry

NOT_RIGID = 1e-2  # largest deviation of R R^T from the identity


@dataclass(frozen=True)
class SavedScene:
    """What a checkpoint keeps of the scene, so that a run can be rendered and meshed without its data."""

    cameras: Cameras
    splits: dict[str, npt.NDArray[np.int64]]  # "train", "test" and perhaps "val" -> indices of views
    names: list[str]
    world_from_scene: npt.NDArray[np.float64]  # [4, 4]
    up: npt.NDArray[np.float64]  # [3]
    background: tuple[float, float, float] | None
    georeference: Georeference | None


@dataclass(frozen=True)
class Saved:
    """A checkpoint. Model, optimizer and sampler are yet to be compared with the run's own."""

    source: str  # the checkpoint's folder
    step: int
    model: Entry
    optimizer: Entry
    sampler: dict[str, Any]
    plateau: dict[str, Any] | None
    scene: SavedScene
    progress: float
    clocks: tuple[float, float]  # wall and CPU seconds
    rate_scale: float
    best: float | None  # highest PSNR of held-out views, dB
    rays: Entry  # of a step, where their number follows the samples; else nothing


def scene_state(scene: Scene) -> dict[str, Any]:
    """What `SavedScene` is read from, for a checkpoint."""
    return {
        "cameras": scene.cameras.state(),
        "splits": {name: torch.from_numpy(index) for name, index in scene.splits.items()},
        "names": list(scene.names),
        "world_from_scene": torch.from_numpy(scene.world_from_scene),
        "up": torch.from_numpy(scene.up),
        "background": list(scene.background) if scene.background is not None else None,
        "georeference": list(astuple(scene.georeference)) if scene.georeference is not None else None,
    }


def read_saved(checkpoint: Path) -> Saved:
    """The checkpoint folder's content. Raises InputError, in one line, for what is damaged or not that of a run."""
    state, manifest = load_checkpoint(checkpoint)
    whole = Entry(state, "", str(checkpoint / STATE))
    wall, cpu = whole["clocks"].numbers(2, 0.0)
    scale, best = whole["rate_scale"], whole["best"]
    return Saved(
        source=str(checkpoint),
        step=int(manifest["step"]),
        model=whole["model"],
        optimizer=whole["optimizer"],
        sampler=whole["sampler"].mapping(),
        plateau=None if whole["plateau"].missing else _plateau(whole["plateau"]),
        scene=read_scene(whole["scene"]),
        progress=whole["progress"].number(0.0, 1.0),
        clocks=(wall, cpu),
        rate_scale=1.0 if scale.missing else scale.number(1e-6, 1.0),
        best=None if best.missing else best.number(),
        rays=whole["rays"],
    )


def _plateau(saved: Entry) -> dict[str, Any]:
    best = saved["best"]
    return {
        "scale": saved["scale"].number(0.0, 1.0),
        "best": None if best.missing else best.number(),
        "waited": saved["waited"].whole(),
        "count": saved["count"].whole(),
        "total": saved["total"].number(),
    }


def read_scene(saved: Entry) -> SavedScene:
    """A scene from its state. Raises InputError where it is not that of one."""
    cameras = _cameras(saved["cameras"])
    background, place = saved["background"], saved["georeference"]
    return SavedScene(
        cameras=cameras,
        splits=_splits(saved["splits"], len(cameras)),
        names=saved["names"].names(len(cameras)),
        world_from_scene=_similarity(saved["world_from_scene"]),
        up=_direction(saved["up"]),
        background=None if background.missing else read_color(background),
        georeference=None if place.missing else _georeference(place),
    )


def _cameras(saved: Entry) -> Cameras:
    pose = saved["camera_to_world"].tensor((None, 3, 4), torch.float32)
    count = len(pose)
    if not 0 < count <= MAX_FRAMES:
        raise saved["camera_to_world"].refused(f"1 to {MAX_FRAMES} cameras")
    turn = pose[:, :, :3].double()
    if float((turn @ turn.mT - torch.eye(3)).abs().max()) > NOT_RIGID:
        raise saved["camera_to_world"].refused("rotations and shifts")
    distortion = saved["distortion"].tensor((count, None), torch.float32)
    if distortion.shape[1] not in (8, 12):
        raise saved["distortion"].refused("8 or 12 coefficients")
    return Cameras(
        camera_to_world=pose.float(),
        intrinsics=_within(saved["intrinsics"], (count, 4), torch.float32, 1e-6),
        size=_sizes(saved["size"], count),
        distortion=distortion.float(),
        lens=_within(saved["lens"], (count,), torch.int64, min(Lens), max(Lens)),
        near=_within(saved["near"], (count,), torch.float32, 0),
    )


def _within(saved: Entry, shape: tuple[int, ...], like: torch.dtype, least: float, most: float = 1e9) -> Tensor:
    """A tensor of this shape with numbers from `least` to `most`, of intrinsics the focal lengths; as `like` is."""
    numbers = saved.tensor(shape, like)
    looked_at = numbers[:, :2] if len(shape) == 2 else numbers
    if not bool(((looked_at >= least) & (looked_at <= most)).all()):
        raise saved.refused(f"numbers from {least:g} to {most:g}")
    return numbers.to(like)


def _sizes(saved: Entry, count: int) -> Tensor:
    size = _within(saved, (count, 2), torch.int64, 1, MAX_PIXELS)
    if int(size.prod(1).max()) > MAX_PIXELS:
        raise saved.refused(f"at most {MAX_PIXELS} pixels")
    return size


def _splits(saved: Entry, views: int) -> dict[str, npt.NDArray[np.int64]]:
    found = {}
    for name in dict.fromkeys(("train", "test", *map(str, saved.mapping()))):
        index = saved[name].tensor((None,), torch.int64).long()
        if len(index) > views or not bool(((index >= 0) & (index < views)).all()):
            raise saved[name].refused(f"views from 0 to {views - 1}")
        found[name] = index.numpy()
    if not len(found["train"]):
        raise saved["train"].refused("at least one view")
    return found


def _similarity(saved: Entry) -> npt.NDArray[np.float64]:
    return similarity(saved.tensor((4, 4), torch.float64).double().numpy(), saved)


def similarity(matrix: npt.NDArray[np.float64], saved: Entry) -> npt.NDArray[np.float64]:
    """The same, [4, 4]; raises InputError, of the entry that it was read from, where it is no similarity."""
    if matrix.shape != (4, 4):
        raise saved.refused("4 rows")
    turn = matrix[:3, :3]
    scale = np.cbrt(max(np.linalg.det(turn), 0.0))
    rigid = scale > 0 and np.abs(turn @ turn.T / scale**2 - np.eye(3)).max() < NOT_RIGID
    if not rigid or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise saved.refused("a rotation, a scale above 0 and a shift")
    return matrix


def _direction(saved: Entry) -> npt.NDArray[np.float64]:
    up = saved.tensor((3,), torch.float64).double().numpy()
    if not 0.9 < np.linalg.norm(up) < 1.1:
        raise saved.refused("a direction of length 1")
    return up


def read_color(saved: Entry) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1]. Raises InputError."""
    red, green, blue = saved.numbers(3, 0.0, 1.0)
    return red, green, blue


def _georeference(saved: Entry) -> Georeference:
    latitude, longitude, altitude = saved.numbers(3, -1e9, 1e9)
    if abs(latitude) > 90 or abs(longitude) > 360:
        raise saved.refused("latitude, longitude and altitude")
    return Georeference(latitude, longitude, altitude)
