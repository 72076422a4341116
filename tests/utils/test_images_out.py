"""Pictures of numbers, and files that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.errors import StorageError
from utils.files import replacing, write_bytes, write_json
from utils.pictures.images import (
    color_depth,
    color_normal,
    depth_range,
    shade_normal,
    side_by_side,
    to_uint8,
    write_png,
)


def test_to_uint8_rounds_clips_and_shows_what_is_not_finite() -> None:
    color = np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, 0.2], [np.nan, 0.0, 0.0], [0.0, np.inf, 0.0]]])
    assert to_uint8(color).tolist() == [[[0, 128, 255], [0, 255, 51], [255, 0, 255], [255, 0, 255]]]


def test_depth_near_is_blue_far_is_red_nothing_is_white() -> None:
    depth = np.array([[1.0, 2.0, 3.0, np.inf, 2.0, -5.0, 99.0]])
    solid = np.array([[True, True, True, True, False, True, True]])
    picture = color_depth(depth, solid, 1.0, 3.0)[0].astype(int)
    assert picture[0].argmax() == 2 and picture[2].argmax() == 0 and picture[1].argmax() == 1
    assert (picture[3] == 255).all() and (picture[4] == 255).all()
    assert (picture[5] == picture[0]).all() and (picture[6] == picture[2]).all(), "beyond the range: clipped"
    with pytest.raises(ValueError, match="low < high"):
        color_depth(depth, solid, 1.0, 1.0)


def test_depth_range() -> None:
    depth = np.linspace(1.0, 2.0, 1001)
    low, high = depth_range(depth, np.ones(1001, bool))
    assert 0.95 < low < 1.02 and 1.98 < high < 2.05
    far = np.concatenate([depth, np.full(300, 500.0), [np.inf, np.nan]])
    assert depth_range(far, np.ones(1303, bool))[1] < 10.0, "a far background leaves the object its colors"
    low, high = depth_range(np.full(10, 3.0), np.ones(10, bool))
    assert low < 3.0 < high
    assert depth_range(depth, np.zeros(1001, bool)) == (0.0, 1.0)


def test_normals() -> None:
    normal = np.array([[[0.0, 0.0, 2.0], [-0.3, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    solid = np.array([[True, True, True, False]])
    expected = [[[128, 128, 255], [0, 128, 128], [255, 255, 255], [255, 255, 255]]]
    assert color_normal(normal, solid).tolist() == expected


def test_shading_is_lit_from_the_camera() -> None:
    """White light along the view: 0.2 + 0.7 cos, whatever the normals' length; 0.2 from behind."""
    normal = np.array([[[0.0, 0.0, -3.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.6, -0.8], [0.0] * 3, [np.nan] * 3]])
    directions = np.broadcast_to([0.0, 0.0, 1.0], normal.shape)
    gray = shade_normal(normal, directions, np.ones((1, 6), bool))
    assert gray[0, :, 0].tolist() == [229, 51, 51, 194, 255, 255] and (gray == gray[..., :1]).all()
    assert (shade_normal(normal, directions, np.zeros((1, 6), bool)) == 255).all(), "white where nothing is"


def test_side_by_side() -> None:
    row = side_by_side([np.zeros((4, 3, 3), np.uint8), np.full((2, 5), 7, np.uint8)], gap=2)
    assert row.shape == (4, 10, 3)
    assert (row[:, :3] == 0).all() and (row[:2, 5:] == 7).all()
    assert (row[:, 3:5] == 255).all() and (row[2:, 5:] == 255).all()


@pytest.mark.parametrize(
    "shape, kind", [((5, 4), "uint8"), ((5, 4, 3), "uint8"), ((5, 4, 4), "uint8"), ((5, 4), "uint16")]
)
def test_png_round_trip(tmp_path: Path, shape: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, np.iinfo(kind).max, shape, dtype=kind)
    write_png(tmp_path / "new" / "picture.png", picture)
    with Image.open(tmp_path / "new" / "picture.png") as back:
        assert (np.asarray(back) == picture).all()


def test_png_of_other_things_is_refused(tmp_path: Path) -> None:
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.uint16)):
        with pytest.raises(ValueError, match="PNG"):
            write_png(tmp_path / "picture.png", wrong)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with pytest.raises(StorageError, match="file.txt"), replacing(path) as temporary:
        raise OSError(28, "No space left on device")
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="picture.png"):
        write_png(tmp_path / "file" / "picture.png", np.zeros((2, 2), np.uint8))


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": None, "y": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": 1.5}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["y"] == 1.5
