"""Sparse points for photographs whose poses are known: features, matched along epipolar lines and triangulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dataio.cameras import Cameras
from dataio.normalize import look_at_point
from dataio.pictures.features import sift_features

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]

SIZE = 1000  # pictures are looked at in this size
FEATURES = 1500  # per picture, fewer of many pictures
MOST_FEATURES = 300_000  # of all pictures: 150 MB of descriptors
CONTRAST = 0.01  # of the weakest feature: the epipolar line, not the descriptor, keeps it apart from others
NEIGHBORS = 8
BEST_ANGLE = 10.0  # degrees between two views of a point; less is inaccurate, more looks different
WIDEST_TURN = 45.0
PIXELS = 1.5  # of the pictures looked at: from the epipolar line, and of reprojection
LEAST_LIKENESS = 0.75  # cosine of descriptors
RATIO = 0.85  # of distances, to the next best along the line
LEAST_VIEWS = 3
LEAST_ANGLE = 2.0  # degrees
ROUNDS = 6  # of reweighting
ENOUGH = 300  # points that say something of a whole scene
TOO_FEW = "too few to hold a surface, which a background may explain away; masks or photographs with more overlap help"


@dataclass(frozen=True)
class SparsePoints:
    """Points on surfaces, and which views saw them.

    position: [P, 3] scene frame. point, view: [T], view `view[k]` saw point `point[k]`.
    """

    position: Float32
    point: Int64
    view: Int64

    def __len__(self) -> int:
        return len(self.position)

    @staticmethod
    def joined(parts: Sequence[SparsePoints]) -> SparsePoints:
        """The points of all parts, one after the other; none for no part."""
        first = np.cumsum([0, *(len(part) for part in parts)])
        none, nowhere = np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.float32)
        return SparsePoints(
            np.concatenate([nowhere, *(part.position for part in parts)]),
            np.concatenate([none, *(start + part.point for start, part in zip(first, parts, strict=False))]),
            np.concatenate([none, *(part.view for part in parts)]),
        )


@dataclass(frozen=True)
class _Features:
    """Of one view. directions: [N, 3] unit, scene frame. descriptors: [N, 128] of length one. focal: pixels."""

    directions: Float64
    descriptors: Float32
    focal: float


def triangulated(
    cameras: Cameras, images: Sequence[UInt8], masks: Sequence[UInt8] | None, views: Int64
) -> SparsePoints:
    """Points that three views or more agree on, to a pixel and a half. Seconds on a CPU.

    cameras: all views, on the CPU. images: [H, W, 3] each. masks: [H, W] each, 255 = object: features are looked for
    there only. views: [V], those to look at.
    """
    chosen = [int(view) for view in views]
    count = min(FEATURES, max(1, MOST_FEATURES // max(len(chosen), 1)))
    found = {
        view: _features(cameras, view, images[view], None if masks is None else masks[view], count) for view in chosen
    }
    return SparsePoints.joined(list(_stars(cameras, chosen, found)))


def _features(cameras: Cameras, view: int, image: UInt8, mask: UInt8 | None, count: int) -> _Features:
    """The strongest SIFT features, on the object only where there are masks.

    Descriptors: RootSIFT, Arandjelovic and Zisserman (2012).
    """
    gray = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, SIZE / max(gray.shape))
    if scale < 1:
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    size = gray.shape[::-1]
    where = None if mask is None else cv2.resize(np.asarray(mask), size, interpolation=cv2.INTER_NEAREST)
    pixels, descriptors = sift_features(gray, where, most=count, contrast=CONTRAST)
    pixels = pixels / scale
    camera = torch.full((len(pixels),), view)
    directions = cameras.rays(camera, torch.from_numpy(pixels).float()).directions.double().numpy()
    rooted = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    return _Features(directions, rooted, scale * float(cameras.intrinsics[view, :2].mean()))


def _stars(cameras: Cameras, train: list[int], features: dict[int, _Features]) -> Iterator[SparsePoints]:
    """For each view the points that its features and those of its neighbors give.

    A point of the surface may come more than once, from several views, which does no harm.
    """
    centers = cameras.centers.double().numpy()
    for view, others in neighbors(cameras, train).items():
        views = [view, *others]
        if len(views) < LEAST_VIEWS or len(features[view].descriptors) == 0:
            continue
        found = [_matched(features[view], features[other], cameras, (view, other)) for other in views[1:]]
        matches = np.stack([np.arange(len(features[view].descriptors)), *found], 1)
        matches = matches[(matches >= 0).sum(1) >= LEAST_VIEWS]
        directions = np.zeros((*matches.shape, 3))
        for slot, other in enumerate(views):
            has = matches[:, slot] >= 0
            directions[has, slot] = features[other].directions[matches[has, slot]]
        focal = np.array([features[other].focal for other in views])
        position, agree = _triangulate(centers[views], directions, matches >= 0, focal)
        keep = agree.sum(1) >= LEAST_VIEWS
        point, place = np.nonzero(agree[keep])
        yield SparsePoints(position[keep].astype(np.float32), point, np.array(views)[place])


def neighbors(cameras: Cameras, train: list[int]) -> dict[int, list[int]]:
    """Of each training view those that see about the same from the best angle, the best first."""
    if not train:
        return {}
    centers, forward = cameras.centers.double().numpy(), cameras.forward.double().numpy()
    middle = look_at_point(centers[train], forward[train])
    return {view: _around(centers, forward, train, view, middle) for view in train}


def _around(centers: Float64, forward: Float64, train: list[int], view: int, middle: Float64) -> list[int]:
    """Those of one view. centers, forward: [C, 3]. middle: [3], what all look at."""
    toward = centers[train] - middle
    toward /= np.maximum(np.linalg.norm(toward, axis=1, keepdims=True), 1e-12)
    own = toward[train.index(view)]
    around = np.degrees(np.arccos(np.clip(toward @ own, -1, 1)))
    turn = np.degrees(np.arccos(np.clip(forward[train] @ forward[view], -1, 1)))
    moved = np.linalg.norm(centers[train] - centers[view], axis=1)
    unlike = np.where((moved > 1e-6) & (turn < WIDEST_TURN), np.abs(np.maximum(around, turn) - BEST_ANGLE), np.inf)
    order = np.argsort(unlike, kind="stable")[:NEIGHBORS]
    return [train[k] for k in order if np.isfinite(unlike[k])]


def _matched(a: _Features, b: _Features, cameras: Cameras, views: tuple[int, int]) -> Int64:
    """[N] for each feature of a the one of b that fits best along its epipolar line, -1 for none."""
    none = np.full(len(a.directions), -1, dtype=np.int64)
    if len(b.directions) < 2:
        return none
    centers = cameras.centers.double().numpy()
    normal = np.cross(centers[views[0]] - centers[views[1]], a.directions)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    likeness = a.descriptors @ b.descriptors.T
    likeness[np.abs(normal @ b.directions.T) * b.focal > PIXELS] = -1
    rows = np.arange(len(likeness))
    best = likeness.argmax(1)
    first = likeness[rows, best]
    mutual = likeness.argmax(0)[best] == rows
    likeness[rows, best] = -1
    second = likeness.max(1)
    apart = np.sqrt(np.maximum(2 - 2 * first, 0)) < RATIO * np.sqrt(np.maximum(2 - 2 * second, 0))
    return np.where((first > LEAST_LIKENESS) & mutual & apart, best, none)


def _triangulate(centers: Float64, directions: Float64, valid: Bool, focal: Float64) -> tuple[Float64, Bool]:
    """Points [N, 3] nearest to their rays, and which views agree on them, [N, K]; the first one always does, or none.

    centers: [K, 3]. directions: [N, K, 3] unit. valid: [N, K]. focal: [K], pixels. Least squares of the angles, with
    weights that leave out what does not fit.
    """
    across = np.eye(3) - directions[..., :, None] * directions[..., None, :]
    weight = valid.astype(np.float64)
    for _ in range(ROUNDS):
        system = (weight[..., None, None] * across).sum(1) + 1e-12 * np.eye(3)
        right = (weight[..., None] * np.einsum("nkij,kj->nki", across, centers)).sum(1)
        point = np.linalg.solve(system, right[..., None])[..., 0]
        ray = point[:, None] - centers
        distance = np.maximum(np.linalg.norm(ray, axis=-1), 1e-9)
        error = np.linalg.norm(np.cross(ray, directions), axis=-1) / distance * focal
        weight = valid * np.maximum((focal / distance) ** 2 / (1 + error**2) ** 2, 1e-9)
    agree = valid & (error < PIXELS) & ((ray * directions).sum(-1) > 0)
    cosine = np.where(agree, (directions * directions[:, :1]).sum(-1), 1.0).min(1)
    return point, agree & (agree[:, :1] & (cosine < np.cos(np.radians(LEAST_ANGLE)))[:, None])
