"""Points of planes swept through space before photographs of a known surface, against the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from dataio.lens import Lens
from dataio.sfm.plane_sweep import densified, swept_points
from dataio.sfm.triangulation import SparsePoints
from tests.support.textured_ball import FOCAL, RADIUS, textured_ball

SIZE, VIEWS = 128, 7
EVERY = np.arange(VIEWS)
PIXEL = 3.2 / FOCAL


def truly_on_the_ball(count: int) -> SparsePoints:
    """A few points on either side of the ball that every view counts as having seen: they bound the depths."""
    outward = np.random.default_rng(0).normal(size=(count, 3))
    position = RADIUS * outward / np.linalg.norm(outward, axis=1, keepdims=True)
    point, view = (x.ravel() for x in np.meshgrid(np.arange(count), EVERY))
    return SparsePoints(position.astype(np.float32), point, view)


@pytest.fixture(scope="module")
def ball() -> tuple[Cameras, list[np.ndarray]]:
    cameras, pictures = textured_ball(24, SIZE)
    return cameras[:VIEWS], pictures[:VIEWS]


def test_points_lie_on_the_surface_and_three_views_agree(ball: tuple[Cameras, list[np.ndarray]]) -> None:
    found = swept_points(*ball, None, EVERY, truly_on_the_ball(40))
    assert len(found) > 1500
    off = np.abs(np.linalg.norm(found.position, axis=1) - RADIUS)
    assert np.median(off) < PIXEL and np.quantile(off, 0.95) < 4 * PIXEL
    assert np.bincount(found.point).min() >= 3 and set(found.view) <= set(EVERY)
    toward = found.position[found.point] - ball[0].centers.numpy()[found.view]
    assert ((toward * found.position[found.point]).sum(-1) < 0).mean() > 0.99  # seen from the front


def test_a_bent_lens_finds_the_same_surface(ball: tuple[Cameras, list[np.ndarray]]) -> None:
    """The ball's pictures as a lens of barrel distortion takes them."""
    straight, pictures = ball
    plain = [FOCAL, FOCAL, SIZE / 2, SIZE / 2]
    bent = Cameras.make(straight.camera_to_world, plain, [SIZE, SIZE], lens=Lens.BROWN, distortion=[-0.3] + [0.0] * 7)
    taken = []
    for view, picture in enumerate(pictures):
        rays = bent.rays(torch.full((SIZE * SIZE,), view), bent.pixel_grid(view))
        at = straight.project(rays.origins + rays.directions, view)[0].long().clamp(0, SIZE - 1)
        taken.append(picture[at[:, 1], at[:, 0]].reshape(SIZE, SIZE, 3))
    found = swept_points(bent, taken, None, EVERY, truly_on_the_ball(40))
    assert len(found) > 1000
    assert np.median(np.abs(np.linalg.norm(found.position, axis=1) - RADIUS)) < PIXEL


def test_masks_keep_points_off_the_rest(ball: tuple[Cameras, list[np.ndarray]]) -> None:
    masks = [np.zeros((SIZE, SIZE), np.uint8) for _ in range(VIEWS)]
    assert len(swept_points(*ball, masks, EVERY, truly_on_the_ball(40))) == 0


def test_pictures_that_show_different_things_or_nothing_leave_hardly_any(
    ball: tuple[Cameras, list[np.ndarray]],
) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (VIEWS, SIZE // 2, SIZE // 2, 1), np.uint8)
    noise = [np.repeat(each.repeat(2, 0).repeat(2, 1), 3, -1) for each in coarse]
    assert len(swept_points(ball[0], noise, None, EVERY, truly_on_the_ball(40))) < 100
    gray = [np.full((SIZE, SIZE, 3), 90, np.uint8)] * VIEWS
    assert len(swept_points(ball[0], gray, None, EVERY, truly_on_the_ball(40))) == 0


def test_too_few_sparse_points_stay_alone(ball: tuple[Cameras, list[np.ndarray]]) -> None:
    few = truly_on_the_ball(40)
    assert densified(few, *ball, None, EVERY) is few
    many = truly_on_the_ball(400)
    together = densified(many, *ball, None, EVERY)
    assert len(together) > 1900 and np.array_equal(together.position[:400], many.position)
    assert together.point.max() == len(together) - 1
