"""Similarities that bring one set of points onto another: least squares, against outliers, by nearest points."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataio.normalize import similarity

Float64 = npt.NDArray[np.float64]

MOST_TRIALS = 1000
INLIER_SIGMAS = 3.0  # robust standard deviations
LEAST = 4  # positions; three always fit
ONE_PLACE = 1e-3  # root mean square distance of cameras from their middle that is none
MAJORITY = 0.6  # of the positions; with fewer inliers there is noise, not outliers, and all are fitted
CONFIDENCE = 0.999  # that all of one drawing are right, when the drawing ends
SETTLED = 1e-6  # relative change of share and error below which nearest points no longer move


class Fit(NamedTuple):
    """target_from_source and how good it is."""

    matrix: Float64  # [4, 4] similarity
    inliers: npt.NDArray[np.bool_]  # [N]
    error: float  # root mean square distance of the inliers, target units
    turn: float  # standard error of the turn about the worst axis, radians; infinite for positions on a line


def fit_similarity(source: Float64, target: Float64) -> Float64:
    """[4, 4] similarity from [N, 3] to [N, 3], N >= 3, not on a line, that minimizes the sum of squared distances.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991).
    """
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    u, size, v = np.linalg.svd((target - goal).T @ (source - middle))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    scale = (size * sign).sum() / max(((source - middle) ** 2).sum(), 1e-300)
    matrix = similarity((0, 0, 0), 1)
    matrix[:3, :3] = scale * (u * sign) @ v
    matrix[:3, 3] = goal - matrix[:3, :3] @ middle
    return matrix


def fit_robustly(source: Float64, target: Float64, *, noise: float = 1e-3) -> Fit | None:
    """The similarity that most of the positions agree on; None for fewer than 4 or when all are at one place.

    source, target: [N, 3]. noise: what a target is trusted to at best, its units. The triple whose similarity has
    the least median distance tells the inliers (Rousseeuw, "Least median of squares regression", 1984), which are
    then fitted; where they are no majority, all are. The same input gives the same result.
    """
    best, median = None, float("inf")
    for triple in _triples(len(source)):
        if np.ptp(source[triple], axis=0).max() == 0 or np.ptp(target[triple], axis=0).max() == 0:
            continue
        matrix = fit_similarity(source[triple], target[triple])
        middle = float(np.median(_distances(matrix, source, target)))
        if middle < median:
            best, median = matrix, middle
    if best is None or len(source) < LEAST:
        return None
    for _ in range(5):  # more positions pass as the fit leans on more of them
        distance = _distances(best, source, target)
        # Of a normal distribution in three dimensions the median length is 1.54 standard deviations of an axis.
        sigma = max(float(np.median(distance)) / 1.54, noise)
        inliers = distance < INLIER_SIGMAS * np.sqrt(3) * sigma
        if inliers.mean() < MAJORITY:
            inliers[:] = True
        best = fit_similarity(source[inliers], target[inliers])
    error = float(np.sqrt((_distances(best, source, target)[inliers] ** 2).mean()))
    lever = np.linalg.svd(target[inliers] - target[inliers].mean(axis=0), compute_uv=False)[1]
    return Fit(best, inliers, error, error / lever if lever > 0 else np.inf)


def fit_turned(source: Float64, target: Float64, turn: Float64) -> Fit | None:
    """The similarity with a given turn [3, 3]: scale and place of [N, 3] positions, N >= 2; None at one place.

    Positions on a line are enough, for the turn comes from elsewhere.
    """
    turned = source @ turn.T
    spread = turned - turned.mean(axis=0)
    size = (spread**2).sum()
    scale = (spread * (target - target.mean(axis=0))).sum() / size if size > 0 else 0.0
    if not scale > 0:
        return None
    matrix = similarity((0, 0, 0), 1)
    matrix[:3, :3] = scale * turn
    matrix[:3, 3] = target.mean(axis=0) - scale * turned.mean(axis=0)
    error = float(np.sqrt((_distances(matrix, source, target) ** 2).mean()))
    return Fit(matrix, np.ones(len(source), dtype=bool), error, 0.0)


def mean_turn(source: Float64, target: Float64) -> Float64:
    """The rotation [3, 3] that best leads rotations [N, 3, 3] to others, target = turn source (chordal mean).

    Also of any columns of vectors [N, 3, K].
    """
    u, _, v = np.linalg.svd(np.einsum("nij,nkj->ik", target, source))
    return np.asarray((u * [1.0, 1.0, np.sign(np.linalg.det(u @ v))]) @ v)


def fit_poses(source: Float64, target: Float64) -> Float64:
    """[4, 4] similarity from camera-to-world poses [N, 3, 4] to others, in least squares.

    The turn is that of rotations and centers together, in units of the centers' spread; scale and place are those of
    the centers alone. Cameras within `ONE_PLACE` of their middle tell no scale: it is 1.
    """
    centers = [poses[:, :, 3] - poses[:, :, 3].mean(axis=0) for poses in (source, target)]
    spread = float(np.sqrt((centers[0] ** 2).sum(axis=1).mean()))
    axes = [
        np.concatenate([poses[:, :, :3], center[:, :, None] / max(spread, ONE_PLACE)], axis=2)
        for poses, center in zip((source, target), centers, strict=True)
    ]
    turn = mean_turn(*axes)
    fit = fit_turned(source[:, :, 3], target[:, :, 3], turn)
    if fit is not None and spread > ONE_PLACE:
        return fit.matrix
    matrix = similarity(target[:, :, 3].mean(axis=0) - turn @ source[:, :, 3].mean(axis=0), 1)
    matrix[:3, :3] = turn
    return matrix


def pose_distances(source: Float64, target: Float64) -> tuple[Float64, Float64]:
    """Angles [N] in degrees and distances [N] of the centers between camera-to-world poses [N, 3, 4] and others."""
    between = np.einsum("nji,njk->nik", source[:, :, :3], target[:, :, :3])
    # By the chord: the arc cosine of a trace would lose what is below a hundredth of a degree in single precision.
    chord = np.linalg.norm(between - np.eye(3), axis=(1, 2)) / np.sqrt(8)
    angle = np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))
    return angle, np.linalg.norm(source[:, :, 3] - target[:, :, 3], axis=1)


def _triples(count: int) -> npt.NDArray[np.int64]:
    if count * (count - 1) * (count - 2) // 6 <= MOST_TRIALS:
        return np.array(list(combinations(range(count), 3)), dtype=np.int64).reshape(-1, 3)
    random = np.random.default_rng(0)
    return np.stack([random.choice(count, 3, replace=False) for _ in range(MOST_TRIALS)])


def _distances(matrix: Float64, source: Float64, target: Float64) -> Float64:
    return np.linalg.norm(moved(source, matrix) - target, axis=1)


def moved(points: Float64, similarity: Float64) -> Float64:
    """[N, 3] points after a similarity [4, 4]."""
    return np.asarray(points @ similarity[:3, :3].T + similarity[:3, 3])


def robust_similarity(
    points: Float64, targets: Float64, *, reach: float, sample: int = 6, most: int = 100_000, seed: int = 0
) -> Float64:
    """[4, 4] the similarity from points [N, 3] to targets [N, 3] that most pairs fit to within `reach`.

    sample: pairs that are drawn at a time, at most `most` times. All that fit decide in the end. Source: Fischler and
    Bolles 1981.
    """
    draw = np.random.default_rng(seed)
    sample = min(sample, len(points))
    best, drawn, needed = np.zeros(len(points), dtype=bool), 0, float(most)
    while drawn < min(most, needed):
        drawn += 1
        chosen = draw.choice(len(points), sample, replace=False)
        guess = fit_similarity(points[chosen], targets[chosen])
        fits = _distances(guess, points, targets) < reach
        if fits.sum() > best.sum():
            best = fits
            needed = np.log(1 - CONFIDENCE) / np.log(1 - min(fits.mean() ** sample, 1 - 1e-12))
    if best.sum() < 3:  # no three agree: all decide
        best[:] = True
    return fit_similarity(points[best], targets[best])


def nearest_similarity(points: Float64, targets: Float64, *, reach: float, most: int) -> Float64:
    """[4, 4] the similarity that iterated nearest points lead to, from points [N, 3] onto targets [M, 3].

    reach: pairs that are farther apart do not count. most: iterations. Ends where share and error of the pairs no
    longer change; the identity where no pair is near enough. Source: Besl and McKay 1992, with scale.
    """
    from scipy.spatial import cKDTree

    tree, found, before = cKDTree(targets), np.eye(4), (0.0, 0.0)
    for _ in range(most):
        now = moved(points, found)
        distance, index = (np.asarray(x) for x in tree.query(now, distance_upper_bound=reach))
        near = np.isfinite(distance)
        if near.sum() < 3:
            break
        state = float(near.mean()), float(np.sqrt(np.square(distance[near]).mean()))
        if all(abs(new - old) < SETTLED for new, old in zip(state, before, strict=True)):
            break
        before = state
        found = fit_similarity(now[near], targets[index[near]]) @ found
    return found
