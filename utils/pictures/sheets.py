"""Pictures with captions and color bars, side by side and above one another, as one picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.pictures.images import BACKGROUND, Picture, side_by_side, turbo

SCREEN = 16 / 9  # width by height
LINES = (720, 1080)  # least and most of a sheet that is to fill a screen
INK = 30
BAND = 64  # rows at a time
ELLIPSIS = "..."


class Rows(Protocol):
    """A picture [H, W, 3] uint8 that is read in bands of rows: an array, or what is too large to be one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True)
class Panel:
    """A picture [H, W, 3] with its caption; span: the numbers at the ends of its color bar, None: without one."""

    picture: Rows
    caption: str
    span: tuple[float, float] | None = None


def sheet(panels: Sequence[Panel], columns: int) -> Picture:
    """Panels of one size in rows of so many columns, each below its caption, [H, W, 3]; one alone fills it."""
    return np.concatenate(list(sheet_bands(panels, columns)))


def sheet_bands(panels: Sequence[Panel], columns: int) -> Iterator[Picture]:
    """The picture of `sheet` from top to bottom, in bands [h, W, 3] of few rows each."""
    height, width = panels[0].picture.shape[:2]
    bands = [(top, min(top + BAND, height)) for top in range(0, height, BAND)]
    if len(panels) == 1:
        yield from (panels[0].picture[top:bottom] for top, bottom in bands)
        return
    strip, gap = _strip(height), _gap(height)
    wide, _ = sheet_size(width, height, len(panels), columns)
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        yield _white(gap, wide)
        yield _beside([caption_strip(panel.caption, panel.span, width, strip) for panel in row], gap, wide)
        for top, bottom in bands:
            yield _beside([panel.picture[top:bottom] for panel in row], gap, wide)
    yield _white(gap, wide)


def _beside(pictures: Sequence[Picture], gap: int, wide: int) -> Picture:
    """Pictures [h, w, 3] of one size from the left, white between them and to the right, [h, wide, 3]."""
    height, width = pictures[0].shape[:2]
    band = _white(height, wide)
    for number, picture in enumerate(pictures):
        left = gap + number * (width + gap)
        band[:, left : left + width] = picture
    return band


def _white(height: int, width: int) -> Picture:
    """[height, width, 3]."""
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def sheet_size(width: int, height: int, count: int, columns: int) -> tuple[int, int]:
    """Width and height of a sheet of `count` panels of width x height pixels."""
    if count == 1:
        return width, height
    rows, gap = -(-count // columns), _gap(height)
    return columns * (width + gap) + gap, rows * (_strip(height) + height + gap) + gap


def columns_for(count: int, width: int, height: int) -> int:
    """In how many columns `count` panels of width x height pixels are largest on a screen."""

    def smallness(columns: int) -> float:
        return max(columns * width / SCREEN, -(-count // columns) * height)

    return min(range(1, count + 1), key=smallness)


def screen_height(height: int, count: int, columns: int) -> int:
    """The height of panels, as near to `height` as a sheet of so many panels has between 720 and 1080 lines."""

    def lines(high: int) -> int:
        return sheet_size(1, high, count, columns)[1]

    least = next(high for high in range(1, LINES[0] + 1) if lines(high) >= LINES[0])
    most = max(high for high in range(1, LINES[1] + 1) if lines(high) <= LINES[1])
    return min(max(height, least), most)


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures [H, W, 3] of any sizes above one another, left sides aligned, white beside the narrow ones."""
    return np.ascontiguousarray(side_by_side([p.swapaxes(0, 1) for p in pictures]).swapaxes(0, 1))


@lru_cache(maxsize=64)  # the same for all frames of a video
def caption_strip(text: str, span: tuple[float, float] | None, width: int, height: int) -> Picture:
    """A line of text, cut at its beginning where it is too long, and a color bar with numbers; [height, width, 3]."""
    image = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(0.62 * height)
    middle, color, space = height / 2, (INK,) * 3, height // 4
    draw.text((0, middle), _fitting(text, font, width), fill=color, font=font, anchor="lm")
    if span is not None:
        low, high = (f"{value:.3g}" for value in span)
        left = math.ceil(font.getlength(text) + font.getlength(low)) + 3 * space
        end = width - 2 * space
        right = end - math.ceil(font.getlength(high)) - space
        if right - left > height:
            draw.text((left - space, middle), low, fill=color, font=font, anchor="rm")
            draw.text((end, middle), high, fill=color, font=font, anchor="rm")
            image.paste(Image.fromarray(_bar(right - left, height // 2)), (left, height // 4))
    return np.array(image)


def _bar(width: int, height: int) -> Picture:
    """The colors of depth from near to far, [height, width, 3]."""
    shades = np.rint(np.linspace(0.0, 255.0, width)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(turbo()[shades], (height, width, 3)))


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    ends = (ELLIPSIS + text[start:] for start in range(1, len(text) + 1))
    return next((end for end in ends if font.getlength(end) <= width), "")


def _strip(height: int) -> int:
    """The height of a caption."""
    return max(16, math.ceil(height / 10))


def _gap(height: int) -> int:
    """White between panels, and around them."""
    return max(2, math.ceil(height / 40))
