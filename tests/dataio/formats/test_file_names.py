"""Names of files as other systems write them: suffixes in upper case, and AppleDouble's notes, in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataio.formats.blendedmvs import BlendedMvsData
from dataio.formats.seven_scenes import SevenScenesData
from dataio.recognition import AutoData
from dataio.scene import DataConfig
from tests.support import made_data, made_models, made_rgbd
from utils.errors import InputError

SUFFIXES = (".png", ".jpg", ".pfm", ".npy")  # of pictures and what belongs to them pixel by pixel


def of_shot(write: Callable[..., Any], **options: Any) -> Callable[[Path], object]:
    return lambda folder: write(made_models.ring(), folder, **options)


FORMATS: dict[str, Callable[[Path], object]] = {
    "transforms": made_data.transforms,
    "dtu": made_data.dtu,
    "colmap": of_shot(made_models.colmap_text),
    "llff": of_shot(made_models.llff),
    "nerfpp": of_shot(made_models.nerfpp),
    "blendedmvs": of_shot(made_models.blendedmvs, depth=2.5),
    "scannet": made_rgbd.scannet,
    "seven_scenes": made_rgbd.seven_scenes,
    "sens": made_rgbd.sens,
}


def config(name: str, folder: Path) -> DataConfig:
    return BlendedMvsData(path=str(folder), depths=True) if name == "blendedmvs" else AutoData(path=str(folder))


@pytest.mark.parametrize("name", FORMATS)
def test_names_of_other_systems(name: str, tmp_path: Path) -> None:
    FORMATS[name](tmp_path)
    before = config(name, tmp_path).load()
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7 a note")
        if path.suffix in SUFFIXES and path.name != "poses_bounds.npy":
            path.rename(path.with_suffix(path.suffix.upper()))
    after = config(name, tmp_path).load()
    assert [name.lower() for name in after.names] == [name.lower() for name in before.names]
    np.testing.assert_array_equal(after.cameras.camera_to_world, before.cameras.camera_to_world)
    assert after.quantities.keys() == before.quantities.keys()
    for mine, own in zip(after.images, before.images, strict=True):
        np.testing.assert_array_equal(mine, own)
    for depth, known in zip(after.depths or (), before.depths or (), strict=True):
        np.testing.assert_array_equal(depth, known)


def test_a_sequence_in_both_splits_is_for_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_rgbd.seven_scenes(tmp_path)
    (tmp_path / "TrainSplit.txt").write_text("sequence1\nsequence2\n")
    views = SevenScenesData(path=str(tmp_path)).parse()
    assert views.split == ["train"] * 8 + ["test"] * 3
    assert "1 named in more than one split, the first is sequence2: taken for test" in capsys.readouterr().err


def test_a_picture_in_two_lists_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = made_data.transforms(tmp_path)
    names = [frame["file_path"] for frame in content["frames"]]
    made_data.write(tmp_path / "transforms.json", {**content, "train_filenames": names, "test_filenames": names[:2]})
    assert AutoData(path=str(tmp_path)).parse().split == ["test"] * 2 + ["train"] * 8
    said = capsys.readouterr().err
    assert f"2 pictures are listed for training and for tests: taken for tests, as {names[0]}" in said


def test_pictures_in_two_of_colmaps_lists_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot = made_models.ring()
    made_models.colmap_text(shot, tmp_path)
    (tmp_path / "train_list.txt").write_text("\n".join(shot.names))
    (tmp_path / "test_list.txt").write_text("\n".join(shot.names[:3]))
    views = AutoData(path=str(tmp_path)).parse()
    assert views.split == ["test" if name in shot.names[:3] else "train" for name in views.names]
    said = capsys.readouterr().err
    assert f"3 pictures are listed for training and for tests: taken for tests, as {shot.names[0]}" in said


LINKS = {
    "transforms": "images/003.png",
    "colmap": "images/cam0/002.png",
    "nerfpp": "train/rgb/000002.png",
    "blendedmvs": "blended_images/00000002.png",
    "seven_scenes": "seq-01/frame-000002.color.png",
    "scannet": "color/2.jpg",
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_of_another_suffix_does_not_lead_out(name: str, tmp_path: Path) -> None:
    FORMATS[name](tmp_path / "data")
    picture, secret = tmp_path / "data" / LINKS[name], tmp_path / "secret.png"
    picture.rename(secret)
    picture.with_suffix(".PNG").symlink_to(secret)
    with pytest.raises(InputError, match="allow_outside"):
        config(name, tmp_path / "data").load()
