"""Sheets of pictures: where panels lie, what their captions say, how many columns."""

from __future__ import annotations

import numpy as np
import pytest

from utils.pictures.images import turbo
from utils.pictures.sheets import (
    Panel,
    caption_strip,
    columns_for,
    screen_height,
    sheet,
    sheet_size,
    stacked,
)


def plain(shade: int, width: int = 300, height: int = 200) -> Panel:
    return Panel(np.full((height, width, 3), shade, np.uint8), f"panel {shade}")


def test_panels_lie_in_rows_below_their_captions() -> None:
    """Of 200 lines a caption has 20, and there are 5 between panels."""
    page = sheet([plain(10), plain(20), plain(30)], columns=2)
    assert page.shape == (5 + 2 * (20 + 200 + 5), 5 + 2 * 305, 3) and sheet_size(300, 200, 3, 2) == (615, 455)
    assert (page[25:225, 5:305] == 10).all() and (page[25:225, 310:610] == 20).all()
    assert (page[250:450, 5:305] == 30).all() and (page[230:, 310:] == 255).all()
    assert (page[:5] == 255).all() and (page[225:230] == 255).all() and (page[:, 305:310] == 255).all()
    for top, left in ((5, 5), (5, 310), (230, 5)):
        ink = page[top : top + 20, left : left + 300, 0] < 128
        assert 30 < ink.sum() < 600, "there is some text"
        assert not ink[:, 150:].any(), "at the left"


def test_a_color_bar_goes_from_near_to_far_between_its_numbers() -> None:
    strip = caption_strip("depth", (1.25, 38.0), 400, 40)
    row = strip[20].astype(int)
    colored = np.ptp(row, axis=1) > 40  # text is gray
    first, last = np.flatnonzero(colored)[[0, -1]]
    assert colored[first:last].mean() > 0.95 and last - first > 150
    assert (strip[20, first] == turbo()[: len(turbo()) // 16]).all(1).any()
    assert (strip[20, last] == turbo()[-len(turbo()) // 16 :]).all(1).any()
    assert (strip[:, :first] < 128).any() and (strip[:, last + 1 :] < 128).any(), "numbers on both sides"
    narrow = caption_strip("depth", (1.25, 38.0), 60, 20)
    assert narrow.shape == (20, 60, 3), "without a bar where there is no room"


def test_long_captions_keep_their_end() -> None:
    long = caption_strip("a/long/folder/" * 20 + "view_7", None, 200, 20)
    assert long.shape == (20, 200, 3) and (long[:, 150:] < 128).any()
    assert (caption_strip("x", None, 1, 16) == 255).all()


@pytest.mark.parametrize(
    "size, count, columns",
    [
        ((200, 200), 4, 2),
        ((1600, 1200), 4, 2),
        ((1920, 1080), 4, 2),
        ((1080, 1920), 4, 4),
        ((200, 200), 3, 3),
        ((1600, 1200), 3, 2),
        ((1600, 1200), 1, 1),
        ((4000, 500), 4, 1),
    ],
)
def test_panels_are_as_large_as_a_screen_lets_them(size: tuple[int, int], count: int, columns: int) -> None:
    assert columns_for(count, *size) == columns


@pytest.mark.parametrize("count, columns", [(1, 1), (2, 2), (4, 2), (3, 1)])
def test_a_sheet_fills_a_screen(count: int, columns: int) -> None:
    def lines(height: int) -> int:
        return sheet_size(100, height, count, columns)[1]

    heights = {height: screen_height(height, count, columns) for height in (1, 101, 313, 500, 720, 1200, 4000)}
    assert all(720 <= lines(found) <= 1080 for found in heights.values())
    assert all(found == height for height, found in heights.items() if 720 <= lines(height) <= 1080)
    assert lines(heights[1] - 1) < 720 and lines(heights[4000] + 1) > 1080, "no more is changed than must be"


def test_one_panel_alone_fills_the_sheet() -> None:
    assert sheet([plain(10)], 1).shape == (200, 300, 3) and (sheet([plain(10)], 1) == 10).all()
    assert sheet_size(300, 200, 1, 1) == (300, 200)


def test_stacked() -> None:
    one, other = np.zeros((2, 5, 3), np.uint8), np.full((3, 4, 3), 7, np.uint8)
    pile = stacked([one, other])
    assert pile.shape == (5, 5, 3)
    assert (pile[:2] == 0).all() and (pile[2:, :4] == 7).all() and (pile[2:, 4:] == 255).all()
