"""Views for tests: inside the others, as many as asked, the same whatever the order of the file."""

from __future__ import annotations

import numpy as np
import pytest

from dataio.held_out import edge, held_out


def named(count: int) -> list[str]:
    return [f"{view:03d}.png" for view in range(count)]


def test_the_ends_of_a_row_stay_in_training() -> None:
    centers = np.stack([np.arange(24.0), np.zeros(24), np.zeros(24)], axis=-1)
    test = held_out(named(24), centers, 8)
    assert len(test) == 3 and 0 not in test and 23 not in test
    assert edge(centers)[0] == edge(centers)[23] == 1.0 and edge(centers)[12] == 0.0


def test_the_corners_of_a_grid_stay_in_training() -> None:
    rows, columns = np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij")
    centers = np.stack([rows.ravel(), columns.ravel(), 0 * rows.ravel()], axis=-1)
    test = held_out(named(36), centers, 8)
    assert len(test) == 5
    for view in test:
        assert 0 < rows.ravel()[view] < 5 or 0 < columns.ravel()[view] < 5
    corners = {0, 5, 30, 35}
    assert not corners & set(test.tolist())


@pytest.mark.parametrize(
    ("count", "every", "expected"), [(10, 8, 2), (12, 8, 2), (17, 8, 2), (3, 8, 1), (1, 8, 0), (3, 1, 3)]
)
def test_how_many(count: int, every: int, expected: int) -> None:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    centers = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=-1)
    assert len(held_out(named(count), centers, every)) == expected


def test_views_from_one_place_and_of_another_order() -> None:
    assert held_out(named(16), np.zeros((16, 3)), 8).tolist() == [0, 8]
    random = np.random.default_rng(0)
    centers, order = random.normal(size=(24, 3)), random.permutation(24)
    names = named(24)
    test = {names[view] for view in held_out(names, centers, 8)}
    mixed = [names[view] for view in order]
    assert {mixed[view] for view in held_out(mixed, centers[order], 8)} == test
