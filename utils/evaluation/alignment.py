"""Similarities that bring one set of points onto another: by correspondence, despite wrong ones, by nearest points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
CONFIDENCE = 0.999  # that all of one drawing are right, when the drawing ends
SETTLED = 1e-6  # relative change of share and error below which nearest points no longer move


def similarity_between(points: Floats, targets: Floats) -> Floats:
    """[4, 4] the similarity, scale included, that brings points [N, 3] nearest to targets [N, 3] in least squares.

    Source: Umeyama 1991, eq. 40 to 42.
    """
    middle, target_middle = points.mean(0), targets.mean(0)
    away, target_away = points - middle, targets - target_middle
    left, singular, right = np.linalg.svd(target_away.T @ away / len(points))
    signs = np.ones(3)
    signs[2] = np.sign(np.linalg.det(left) * np.linalg.det(right))
    rotation = (left * signs) @ right
    scale = (singular * signs).sum() / max(np.square(away).sum() / len(points), 1e-300)
    found = np.eye(4)
    found[:3, :3] = scale * rotation
    found[:3, 3] = target_middle - scale * rotation @ middle
    return found


def moved(points: Floats, similarity: Floats) -> Floats:
    """[N, 3] points after a similarity [4, 4]."""
    return np.asarray(points @ similarity[:3, :3].T + similarity[:3, 3])


def robust_similarity(
    points: Floats, targets: Floats, *, reach: float, sample: int = 6, most: int = 100_000, seed: int = 0
) -> Floats:
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
        guess = similarity_between(points[chosen], targets[chosen])
        fits = np.linalg.norm(moved(points, guess) - targets, axis=1) < reach
        if fits.sum() > best.sum():
            best = fits
            needed = np.log(1 - CONFIDENCE) / np.log(1 - min(fits.mean() ** sample, 1 - 1e-12))
    if best.sum() < 3:  # no three agree: all decide
        best[:] = True
    return similarity_between(points[best], targets[best])


def nearest_similarity(points: Floats, targets: Floats, *, reach: float, most: int) -> Floats:
    """[4, 4] the similarity that iterated nearest points lead to, from points [N, 3] onto targets [M, 3].

    reach: pairs that are farther apart do not count. most: iterations. Ends where share and error of the pairs no
    longer change; the identity where no pair is near enough. Source: Besl and McKay 1992, with scale.
    """
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
        found = similarity_between(now[near], targets[index[near]]) @ found
    return found
