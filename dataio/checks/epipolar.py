"""Do photographs and poses agree? Matches between neighbors against the given poses, and against likely mistakes.

A match is kept when some fundamental matrix explains it, whatever the poses say; its distance from the epipolar
line of the given poses then tells how good these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dataio.checks.findings import Bool, Finding, Patient
from dataio.files import Float64
from dataio.pictures.features import sift_features

ANCHORS, CANDIDATES = 12, 3
FEATURES, RATIO = 2000, 0.8
FEW_MATCHES = 25
RANSAC_PIXELS = 1.0
ERROR_SHARE, ERROR_PIXELS = 1.5e-3, 1.0  # of the diagonal, and at least, in pixels of the small pictures
CLEARLY = 0.3  # a mistake explains the matches when it leaves this share of the error
IN_FRONT = 0.6  # share of matches that must lie before both cameras


@dataclass(frozen=True)
class Pair:
    """Two views and their matches."""

    first: int
    second: int
    pixels: Float64  # [N, 2, 2] match, picture, (u, v); of the small pictures
    plane: Float64  # [N, 2, 2] the same without lens distortion, on the plane z = 1
    focal: float

    def error(self, poses: Float64, focal_factor: float = 1.0) -> Float64:
        """[N] symmetric epipolar distance in pixels, for camera-to-world poses [C, 4, 4]."""
        a, b = self._homogeneous(focal_factor)
        relative = np.linalg.inv(poses[self.second]) @ poses[self.first]
        x, y, z = relative[:3, 3]
        essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative[:3, :3]
        in_second, in_first = a @ essential.T, b @ essential
        residual = np.abs((in_second * b).sum(axis=1))
        lengths = [np.maximum(np.linalg.norm(line[:, :2], axis=1), 1e-12) for line in (in_first, in_second)]
        return np.asarray(0.5 * self.focal * focal_factor * (residual / lengths[0] + residual / lengths[1]))

    def in_front(self, poses: Float64, focal_factor: float = 1.0) -> float:
        """The share of matches, 0 to 1, whose rays meet before both cameras; camera-to-world poses [C, 4, 4]."""
        rays = [
            points @ poses[view, :3, :3].T
            for points, view in zip(self._homogeneous(focal_factor), (self.first, self.second), strict=True)
        ]
        a, b = (ray / np.linalg.norm(ray, axis=1, keepdims=True) for ray in rays)
        base = poses[self.second, :3, 3] - poses[self.first, :3, 3]
        cosine = (a * b).sum(axis=1)
        along_a, along_b = a @ base, b @ base
        # Where the two lines are nearest to one another, times 1 - cosine^2 > 0.
        return float(((along_a - cosine * along_b > 0) & (cosine * along_a - along_b > 0)).mean())

    def _homogeneous(self, focal_factor: float) -> tuple[Float64, Float64]:
        one = np.ones((len(self.plane), 1))
        a, b = (np.concatenate([self.plane[:, i] / focal_factor, one], axis=1) for i in (0, 1))
        return a, b


@dataclass(frozen=True)
class Mistake:
    """A way to get poses wrong: what the true ones are, from the ones that were read."""

    text: str
    fix: str
    undone: Callable[[Float64], Float64]
    focal: float = 1.0


FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def _inverted(poses: Float64) -> Float64:
    return np.asarray(np.linalg.inv(poses), dtype=np.float64)


def _transposed(poses: Float64) -> Float64:
    result = poses.copy()
    result[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    return result


def _center_read_as_shift(poses: Float64) -> Float64:
    """Poses whose fourth column was the world-to-camera shift beside a camera-to-world rotation."""
    result = poses.copy()
    result[:, :3, 3] = -(poses[:, :3, :3] @ poses[:, :3, 3:])[:, :, 0]
    return result


AXES = "the axes are those of the other convention (OpenGL: y up, z backwards; OpenCV: y down, z forward)"
FLIP_FIX = "multiply the second and third column of every pose by -1"
INVERT_FIX = "invert every pose: camera-to-world is expected"
TRANSPOSE_FIX = "transpose the rotation of every pose"
SHIFT = "the fourth column is the shift of world-to-camera, not the camera's position"
SHIFT_FIX = "write -R t there, with R the rotation and t as it is now"
MISTAKES = (
    Mistake(AXES, FLIP_FIX, lambda p: p @ FLIP),
    Mistake("the poses are world-to-camera", INVERT_FIX, _inverted),
    Mistake("the poses are world-to-camera, with the other axes", f"{INVERT_FIX}; then {FLIP_FIX}",
            lambda p: _inverted(p) @ FLIP),
    Mistake("the rotations are transposed", TRANSPOSE_FIX, _transposed),
    Mistake("the rotations are transposed", TRANSPOSE_FIX, lambda p: _transposed(p @ FLIP) @ FLIP),
    Mistake("the rotations are transposed, with the other axes", f"{TRANSPOSE_FIX}; then {FLIP_FIX}",
            lambda p: _transposed(p @ FLIP)),
    Mistake("the rotations are transposed, with the other axes", f"{TRANSPOSE_FIX}; then {FLIP_FIX}",
            lambda p: _transposed(p) @ FLIP),
    Mistake(SHIFT, SHIFT_FIX, _center_read_as_shift),
    Mistake(SHIFT, SHIFT_FIX, lambda p: _center_read_as_shift(p @ FLIP) @ FLIP),
    Mistake(f"{SHIFT}, and the axes are the other ones", f"{SHIFT_FIX}; then {FLIP_FIX}",
            lambda p: _center_read_as_shift(p @ FLIP)),
    Mistake("focal lengths are half of what they should be", "double fl_x and fl_y", lambda p: p, 2.0),
    Mistake("focal lengths are twice what they should be", "halve fl_x and fl_y", lambda p: p, 0.5),
)  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """How well the poses explain the matches."""

    pairs: tuple[Pair, ...]
    errors: Float64  # [pairs] median epipolar distance, pixels of the photographs
    limit: float  # what may pass, pixels of the photographs

    @property
    def error(self) -> float:
        """The median over the pairs; nan without pairs."""
        return float(np.median(self.errors)) if len(self.errors) else float("nan")


def agreement(patient: Patient) -> Agreement:
    """Match neighbors and measure them against the given poses."""
    pairs = tuple(match_neighbors(patient))
    poses = scene_poses(patient)
    errors = [patient.shrink * float(np.median(pair.error(poses))) for pair in pairs]
    diagonal = float(np.linalg.norm(patient.scene.cameras.size.double().numpy(), axis=1).max())
    limit = patient.shrink * max(ERROR_PIXELS, ERROR_SHARE * diagonal)
    return Agreement(pairs, np.array(errors), limit)


def epipolar_findings(patient: Patient, found: Agreement) -> Iterator[Finding]:
    """Whether poses and photographs agree, and which mistake would explain that they do not."""
    if len(found.pairs) < 3:
        text = f"only {len(found.pairs)} pairs of neighboring views could be matched: the poses were not checked"
        fix = "surfaces without texture, or views far apart; more photographs help both the check and training"
        yield Finding("note", "matches", text, fix)
        return
    poses = scene_poses(patient)
    before = float(np.median([pair.in_front(poses) for pair in found.pairs]))
    if found.error <= found.limit and before >= IN_FRONT:
        bad = np.flatnonzero(found.errors > 4 * max(found.limit, found.error))
        if len(bad):
            views = sorted({view for i in bad for view in (found.pairs[i].first, found.pairs[i].second)})
            text = f"{len(bad)} of {len(found.pairs)} pairs are off by {found.errors[bad].min():.1f} pixels and more"
            yield Finding("warning", "single poses", text, f"look at {patient.names(views)}", tuple(views))
        return
    text = f"matches between neighbors are {found.error:.1f} pixels off the epipolar lines of the poses"
    if before < IN_FRONT:
        text += f", and {1 - before:.0%} of them behind the cameras"
    guess = likely_mistake(patient, found, poses)
    if guess is None:
        yield Finding("warning", "poses", f"{text} (up to {found.limit:.1f} may be)", _remedy(patient))
    else:
        mistake, left = guess
        yield Finding("error", "convention", f"{text}; {left:.1f} if {mistake.text}", mistake.fix)


def _remedy(patient: Patient) -> str:
    """What helps against poses that are a little off: those of a recorder are in the units of its depth, and stay."""
    if patient.scene.depths is not None:
        return "keep them, depth is in their units; learn the rest: model.poses.type=so3xr3 optimizer.parts.poses=1e-3"
    return "estimate the poses anew, from the photographs alone: python prepare.py PHOTOS OUT"


def likely_mistake(patient: Patient, found: Agreement, poses: Float64) -> tuple[Mistake, float] | None:
    """The mistake that explains the matches best, and the error in pixels that it leaves; None if none does.

    poses: [C, 4, 4] camera-to-world, scene frame.
    """
    best: tuple[Mistake, float] | None = None
    raw = _as_read(patient)
    for mistake in MISTAKES:
        true = mistake.undone(raw)
        front = np.median([pair.in_front(true, mistake.focal) for pair in found.pairs])
        errors = [np.median(pair.error(true, mistake.focal)) for pair in found.pairs]
        left = patient.shrink * float(np.median(errors))
        # Poses that put the points behind the cameras are wrong whatever the distance is.
        given = found.error if np.median([p.in_front(poses) for p in found.pairs]) >= IN_FRONT else np.inf
        if front >= IN_FRONT and left < min(found.limit, CLEARLY * given) and (best is None or left < best[1]):
            best = mistake, left
    return best


def scene_poses(patient: Patient) -> Float64:
    """[C, 4, 4] camera-to-world, scene frame."""
    poses = np.tile(np.eye(4), (len(patient.scene.names), 1, 1))
    poses[:, :3] = patient.scene.cameras.camera_to_world.double().numpy()
    return poses


def _as_read(patient: Patient) -> Float64:
    """The poses in the frame of the files: a wrong convention is undone there or nowhere."""
    return patient.views.camera_to_world.copy()


def match_neighbors(patient: Patient) -> Iterator[Pair]:
    """For some views, spread over the set, the neighbor with which it has most matches."""
    count = len(patient.scene.names)
    features = _Features(patient)
    order = np.argsort(np.array(patient.scene.names), kind="stable")
    done: set[frozenset[int]] = set()
    for place in np.unique(np.linspace(0, count - 1, min(ANCHORS, count)).round().astype(int)):
        anchor = int(order[place])
        found = [features.match(anchor, other) for other in _candidates(patient, anchor, order, int(place))]
        pairs = [pair for pair in found if pair is not None]
        best = max(pairs, key=lambda pair: len(pair.pixels), default=None)
        if best is not None and frozenset((best.first, best.second)) not in done:
            done.add(frozenset((best.first, best.second)))
            yield best


def _candidates(patient: Patient, anchor: int, order: npt.NDArray[np.int64], place: int) -> list[int]:
    """The nearest views by pose, and the next by name: poses may be what is wrong."""
    centers, forward = patient.centers, patient.forward
    spread = float(np.median(np.linalg.norm(centers - centers.mean(axis=0), axis=1))) or 1.0
    moved = np.linalg.norm(centers - centers[anchor], axis=1) / spread
    apart = np.where(moved < 0.02, np.inf, moved + 1 - forward @ forward[anchor])
    near = np.argsort(apart, kind="stable")[: CANDIDATES - 1]
    chosen = [int(v) for v in near if np.isfinite(apart[v])]
    following = int(order[(place + 1) % len(order)])
    return [v for v in dict.fromkeys([*chosen, following]) if v != anchor]


class _Features:
    """Features of views, computed on first use."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self.known: dict[int, tuple[Float64, npt.NDArray[np.float32]]] = {}

    def of(self, view: int) -> tuple[Float64, npt.NDArray[np.float32]]:
        """Pixels [N, 2] and descriptors [N, 128]; on the object only, where there are masks."""
        if view not in self.known:
            scene = self.patient.scene
            gray = cv2.cvtColor(scene.images[view], cv2.COLOR_RGB2GRAY)
            mask = None if scene.masks is None else scene.masks[view]
            self.known[view] = sift_features(gray, mask, most=FEATURES)
        return self.known[view]

    def match(self, first: int, second: int) -> Pair | None:
        """The matches of two views that one fundamental matrix explains; None when they are few."""
        (pixels_a, a), (pixels_b, b) = self.of(first), self.of(second)
        if min(len(a), len(b)) < FEW_MATCHES:
            return None
        forth, back = _ratio_matches(a, b), _ratio_matches(b, a)
        chosen = [(i, j) for i, j in forth.items() if back.get(j) == i]
        if len(chosen) < FEW_MATCHES:
            return None
        index = np.array(chosen)
        pixels = np.stack([pixels_a[index[:, 0]], pixels_b[index[:, 1]]], axis=1)
        plane, sound = self._planes(pixels, (first, second))
        pixels, plane = pixels[sound], plane[sound]
        focal = float(self.patient.scene.cameras.intrinsics[[first, second], :2].mean())
        kept = _explained(plane * focal)
        if kept is None or kept.sum() < FEW_MATCHES:
            return None
        return Pair(first, second, pixels[kept], plane[kept], focal)

    def _planes(self, pixels: Float64, views: tuple[int, int]) -> tuple[Float64, Bool]:
        """Image points on the plane z = 1, and which of them have a place there."""
        cameras = self.patient.scene.cameras
        planes, depths = [], []
        for side, view in enumerate(views):
            rays = cameras.rays(torch.full((len(pixels),), view), torch.from_numpy(pixels[:, side]).float())
            local = (rays.directions @ cameras.camera_to_world[view, :, :3]).double().numpy()
            depths.append(local[:, 2])
            planes.append(local[:, :2] / np.maximum(local[:, 2:], 0.05))
        return np.stack(planes, axis=1), np.min(depths, axis=0) > 0.1


def _ratio_matches(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> dict[int, int]:
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a, b, k=2)
    good = [two[0] for two in found if len(two) == 2 and two[0].distance < RATIO * two[1].distance]
    return {match.queryIdx: match.trainIdx for match in good}


def _explained(points: Float64) -> Bool | None:
    if len(points) < FEW_MATCHES:
        return None
    cv2.setRNGSeed(0)
    first, second = (np.ascontiguousarray(points[:, side]) for side in (0, 1))
    matrix, inlier = cv2.findFundamentalMat(first, second, cv2.USAC_MAGSAC, RANSAC_PIXELS, 0.999, 5000)
    return None if matrix is None or inlier is None else np.asarray(inlier.reshape(-1) > 0)
