"""Pictures that are written in rows: what other programs read, whatever the bands; and what holds them until then."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from utils.pictures import spool as spool_file
from utils.pictures.clips import write_clip
from utils.pictures.png_rows import write_png_rows
from utils.pictures.spool import Spool


def noise(height: int, width: int, kind: Any = np.uint8) -> NDArray[Any]:
    rng, channels = np.random.default_rng(0), (3,) if kind is np.uint8 else ()
    ramp = np.linspace(0, np.iinfo(kind).max // 2, width)[None, :].astype(kind)
    return rng.integers(0, 100, (height, width, *channels)).astype(kind) + (ramp[..., None] if channels else ramp)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("height, width", [(1, 1), (7, 5), (100, 33)])
def test_others_read_the_same_pixels(tmp_path: Path, kind: Any, height: int, width: int) -> None:
    picture = noise(height, width, kind)
    for name, rows in (("whole", height), ("rows", 1), ("some", 3)):
        bands = (picture[top : top + rows] for top in range(0, height, rows))
        write_png_rows(tmp_path / f"{name}.png", bands, width, height)
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")).astype(kind), picture)
    assert (tmp_path / "rows.png").read_bytes() != b"" and len(list(tmp_path.iterdir())) == 3


def test_pixels_alone_decide_what_a_reader_gets(tmp_path: Path) -> None:
    """Bands change where a PNG's chunks end, not one filtered byte."""
    picture, found = noise(90, 20), []
    for rows in (90, 7):
        write_png_rows(tmp_path / "x.png", (picture[top : top + rows] for top in range(0, 90, rows)), 20, 90)
        found.append(np.asarray(Image.open(io.BytesIO((tmp_path / "x.png").read_bytes()))))
    assert np.array_equal(found[0], found[1])


def test_wrong_bands_leave_nothing(tmp_path: Path) -> None:
    for bands in ([noise(4, 4)], [noise(3, 5)], [noise(3, 4, np.uint16)[..., None]], []):
        with pytest.raises(ValueError, match="expected"):
            write_png_rows(tmp_path / "x.png", bands, 4, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_spool_gives_rows_of_what_was_appended(on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_file, "IN_MEMORY", 1000 if on_disk else 1 << 20)
    picture = noise(300, 10)[..., :1].copy()
    spool = Spool(300, 10, (1,), np.uint8)
    flat = picture.reshape(-1, 1)
    for start in range(0, len(flat), 73):
        spool.append(flat[start : start + 73])
    assert spool.shape == picture.shape
    assert np.array_equal(spool[290:400], picture[290:]) and np.array_equal(spool[5:6], picture[5:6])


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("count, fps", [(7, 30.0), (1, 5.0)])
def test_a_clip_plays_without_end_at_its_rate(tmp_path: Path, suffix: str, count: int, fps: float) -> None:
    frames = [np.full((20, 30, 3), (30 * i, 255 - 30 * i, 10), np.uint8) for i in range(count)]
    write_clip(tmp_path / f"x{suffix}", iter(frames), count, fps=fps)
    with Image.open(tmp_path / f"x{suffix}") as clip:
        assert getattr(clip, "n_frames", 1) == count and clip.size == (30, 20)
        shown, seconds = [], 0.0
        for index in range(count):
            clip.seek(index)
            clip.load()
            shown.append(np.asarray(clip.convert("RGB"))[10, 15].astype(int))
            seconds += clip.info.get("duration", 0) / 1000
        assert count == 1 or (clip.info["loop"] == 0 and seconds == pytest.approx(count / fps, abs=0.006))
    assert np.abs(np.array(shown) - [frame[10, 15].astype(int) for frame in frames]).max() < 8
