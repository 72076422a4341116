"""The dense points of a run, kept in its folder: a run that goes on has the same ones, and need not look for them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from dataio.files import BROKEN_ARRAY, notice
from dataio.scene import Scene
from dataio.sfm.triangulation import SparsePoints
from utils.files import write_bytes

FILE = "points.npz"
FOUND = "dense_points"  # property of a scene, there as soon as it was asked for


def keep(folder: Path, scene: Scene) -> None:
    """Write those that were found for a scene, if any were asked for. Raises StorageError where the disk refuses."""
    points = vars(scene).get(FOUND)
    if points is None:
        return
    content = io.BytesIO()
    np.savez(
        content, position=points.position, point=points.point.astype(np.int32), view=points.view.astype(np.int32)
    )
    write_bytes(folder / FILE, content.getvalue())


def restore(folder: Path, scene: Scene) -> None:
    """Let a scene have those that `keep` wrote; they are found anew, and said so, where the file cannot be used."""
    file = folder / FILE
    if not file.is_file():
        return
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
            position, point, view = (np.asarray(kept[name]) for name in ("position", "point", "view"))
    except (*BROKEN_ARRAY, KeyError, zipfile.BadZipFile) as error:
        notice(f"{file}: cannot be read ({error}): points are looked for anew")
        return
    usable = position.dtype == np.float32 and position.ndim == 2 and position.shape[1] == 3
    usable = usable and point.shape == view.shape == (point.size,) and np.isfinite(position).all()
    usable = usable and _indices(point, len(position)) and _indices(view, len(scene.cameras))
    if not usable:
        notice(f"{file}: does not fit the data: points are looked for anew")
        return
    vars(scene)[FOUND] = SparsePoints(position, point.astype(np.int64), view.astype(np.int64))


def _indices(found: np.ndarray, count: int) -> bool:
    """Whether all are indices of so many."""
    return found.dtype == np.int32 and (found.size == 0 or (found.min() >= 0 and found.max() < count))
