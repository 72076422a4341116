"""How well the sparse points of a data set fit its cameras: the test of poses that needs no picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dataio import normalize
from dataio.cameras import Cameras
from dataio.files import Float64
from dataio.lens import Lens
from dataio.views import Views


@dataclass(frozen=True)
class Reprojection:
    """Distances in pixels between where points were seen and where the cameras put them."""

    error: Float64  # [T] one per observation; infinite behind the camera
    per_view: Float64  # [C] the median of each view, NaN where it sees no point

    @property
    def median(self) -> float:
        """Of all observations."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """The error that `share` of the observations, 0 to 1, stay below."""
        return float(np.quantile(self.error, share, method="lower"))


def reprojection(views: Views) -> Reprojection | None:
    """The reprojection error of the sparse points of `views`, in double precision; None without tracks."""
    tracks, points = views.tracks, views.points
    if tracks is None or points is None or len(tracks.point) == 0:
        return None
    # Geo-referenced coordinates are large: the middle of the points becomes the origin.
    to_local = normalize.similarity(-np.median(points, axis=0), 1.0)
    local = torch.from_numpy(points + to_local[:3, 3])
    view = torch.from_numpy(tracks.view)
    pixel, depth = _cameras(views, to_local).project(local[torch.from_numpy(tracks.point)], view)
    error = (pixel - torch.from_numpy(tracks.pixel)).norm(dim=-1).numpy()
    lens = np.zeros(len(views.names)) if views.lens is None else views.lens
    perspective = lens[tracks.view] == Lens.BROWN
    error = np.where(np.isfinite(error) & ~(perspective & (depth.numpy() <= 0)), error, np.inf)
    return Reprojection(error, _median_of_each(error, tracks.view, len(views.names)))


def _cameras(views: Views, similarity: Float64) -> Cameras:
    """The cameras without the rounding to single precision."""
    poses = normalize.moved(views.camera_to_world, similarity)[:, :3]
    rounded = views.cameras(similarity)
    bend = np.zeros((len(poses), 8)) if views.distortion is None else views.distortion
    doubles = [torch.from_numpy(np.ascontiguousarray(x)) for x in (poses, views.intrinsics, bend)]
    return Cameras(doubles[0], doubles[1], rounded.size, doubles[2], rounded.lens, rounded.near.double())


def _median_of_each(error: Float64, view: np.ndarray, count: int) -> Float64:
    order = np.argsort(view, kind="stable")
    ends = np.searchsorted(view[order], np.arange(count + 1))
    parts = [error[order[start:end]] for start, end in zip(ends[:-1], ends[1:], strict=True)]
    return np.array([np.quantile(part, 0.5, method="lower") if len(part) else np.nan for part in parts])
