"""Links that lead out of a data set: every file that a loader opens lies in the folder that the user named."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataio.recognition import AutoData
from tests.dataio.formats.test_uav import metashape, opensfm
from tests.support import made_data, made_models, made_rgbd
from utils.errors import InputError

WRITERS: dict[str, Callable[[Path], Any]] = {
    "transforms": made_data.transforms,
    "dtu": made_data.dtu,
    "colmap_text": lambda folder: made_models.colmap_text(made_models.ring(), folder),
    "colmap_binary": lambda folder: made_models.colmap_binary(made_models.ring(), folder),
    "llff": lambda folder: made_models.llff(made_models.ring(), folder),
    "nerfpp": lambda folder: made_models.nerfpp(made_models.ring(), folder),
    "blendedmvs": lambda folder: made_models.blendedmvs(made_models.ring(), folder),
    "scannet": made_rgbd.scannet,
    "seven_scenes": made_rgbd.seven_scenes,
    "opensfm": opensfm,
    "metashape": metashape,
}


@pytest.fixture(scope="module")
def opened() -> Iterator[list[str]]:
    """The files that were opened since the list was cleared."""
    names: list[str] = []
    watching = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            names.append(os.path.realpath(os.fsdecode(arguments[0])))

    sys.addaudithook(hook)
    yield names
    watching[0] = False  # a hook cannot be taken out again


def one_of_each(folder: Path) -> list[Path]:
    """The files of a data set, of those that differ by a number the first."""
    kinds: dict[tuple[Path, str], Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.name if not any(c.isdigit() for c in path.stem) else path.suffix
        kinds.setdefault((path.parent, name), path)
    return list(kinds.values())


@pytest.mark.parametrize("kind", WRITERS)
def test_no_file_is_opened_through_a_link_that_leads_out(kind: str, tmp_path: Path, opened: list[str]) -> None:
    folder, secret = tmp_path / "data", tmp_path / "secret"
    WRITERS[kind](folder)
    refused = []
    for path in one_of_each(folder):
        shutil.move(path, secret)
        os.symlink(secret, path)
        opened.clear()
        try:
            AutoData(path=str(folder)).load()
        except InputError as error:
            assert "leads out of" in str(error) and "allow_outside" in str(error) and "\n" not in str(error)
            refused.append(path.name)
        assert str(secret) not in opened, path
        path.unlink()
        shutil.move(secret, path)
    assert refused


@pytest.mark.parametrize("named", [".", "transforms.json"])
def test_a_file_of_cameras_that_is_a_link_is_allowed_on_request(named: str, tmp_path: Path) -> None:
    made_data.transforms(tmp_path / "data")
    shutil.move(tmp_path / "data/transforms.json", tmp_path / "elsewhere.json")
    os.symlink(tmp_path / "elsewhere.json", tmp_path / "data/transforms.json")
    path = str(tmp_path / "data" / named)
    with pytest.raises(InputError, match="transforms.json', which leads out of"):
        AutoData(path=path).load()
    assert len(AutoData(path=path, allow_outside=True).load().names) == 10
