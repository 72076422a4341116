"""Which config is named for which data, and when the chosen one does not suit: in --check as in training."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import prepare
import train
from dataio.formats import photos
from dataio.formats.scannet import ScannetData
from dataio.formats.transforms import TransformsData
from dataio.georeference import Georeference
from dataio.recognition import AutoData
from dataio.scene import DataConfig, Scene, outline
from dataio.views import Views
from engine import resume, suits
from engine.experiment import read_config
from tests.dataio.formats.test_photos import Finder
from tests.support import made_data, made_rgbd

ROOT = Path(__file__).resolve().parents[2]
FLIGHT = Georeference(47.25, 8.5, 480.0)


def looking(direction: np.ndarray, count: int = 9) -> np.ndarray:
    """[count, 4, 4] cameras in a plane before the origin that look along a direction [3]."""
    across = np.cross(direction, [0.3, 1.0, 0.2])
    across /= np.linalg.norm(across)
    turn = np.stack([across, np.cross(direction, across), direction], axis=-1)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = turn
    apart = np.random.default_rng(0).uniform(-1, 1, (count, 3)) * [1, 1, 0.1]
    poses[:, :3, 3] = apart @ turn.T - 5 * direction
    return poses


def scene_of(poses: np.ndarray, **more) -> Scene:
    """A scene without pictures: 400 points about the origin."""
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (400, 3))
    count = len(poses)
    views = Views(Path("made"), [f"{i:03d}" for i in range(count)], [Path("none")] * count, poses,
                  np.tile([30.0, 30.0, 12.0, 8.0], (count, 1)), np.tile([24, 16], (count, 1)),
                  points=points, **more)  # fmt: skip
    return outline(DataConfig(), views)


DOWN, AHEAD, OBLIQUE = np.array([0, 0, -1.0]), np.array([0, 1.0, 0]), np.array([0, 0.6, -0.8])


@pytest.mark.parametrize(
    ("poses", "more", "quantities", "name"),
    [
        (made_data.ring_poses(9), {}, ["mask"], "neus_hash"),
        (made_data.ring_poses(9), {}, [], "neus_hash_open"),
        (made_data.ring_poses(9), {"georeference": FLIGHT}, [], "neus_hash_open"),
        (looking(AHEAD), {}, [], "neus_hash_relief"),
        (looking(AHEAD), {"georeference": FLIGHT}, [], "neus_hash_relief"),
        (looking(DOWN), {}, [], "neus_hash_relief"),  # without a place nobody knows that z is up
        (looking(DOWN), {"georeference": FLIGHT}, [], "neus_hash_aerial"),
        (looking(OBLIQUE), {"georeference": FLIGHT}, [], "neus_hash_aerial"),
        (looking(DOWN), {"georeference": FLIGHT}, ["mask"], "neus_hash"),
        (made_rgbd.room_poses(9), {"room": True}, ["depth"], "neus_hash_room"),
        (made_rgbd.room_poses(9), {"room": True}, [], "neus_hash_open"),
        (made_data.ring_poses(9), {}, ["depth"], "neus_hash_open"),
    ],
)
def test_the_config_for_the_data(poses, more, quantities, name):
    found = suits.suited(scene_of(poses, **more), quantities)
    assert found == f"configs/{name}.yaml" and (ROOT / found).is_file()


@pytest.mark.parametrize("kind", ["masks", "none", "room"])
@pytest.mark.parametrize("config", ["neus_hash", "neus_hash_open", "neus_hash_room"])
def test_a_check_warns_as_training_does(tmp_path, capsys, monkeypatch, kind, config):
    if kind == "room":
        made_rgbd.scannet(tmp_path)
    else:
        content = made_data.transforms(tmp_path)
        for view, frame in enumerate(content["frames"]):
            if kind == "masks":
                frame["mask_path"] = f"masks/{view}.png"
                made_data.mask(tmp_path / frame["mask_path"])
        made_data.write(tmp_path / "transforms.json", content)
    read = read_config(ROOT / f"configs/{config}.yaml", [f"data.path={tmp_path}"])
    later = list(resume.warnings(read, read.data.load()))
    assert list(suits.warnings_before(read, read.data.inspect())) == later
    named = {"masks": "", "none": "neus_hash_open", "room": "neus_hash_room"}[kind]
    told = any("no background" in line and f"configs/{named}.yaml suits" in line for line in later)
    assert told == (config == "neus_hash" and bool(named))
    missed = any("losses.mask asks for masks" in line for line in later)
    assert missed == (config == "neus_hash" and kind != "masks")
    path = str(ROOT / f"configs/{config}.yaml")
    monkeypatch.setattr(sys, "argv", ["train.py", path, f"data.path={tmp_path}", "--check"])
    assert train.main() == 0
    said = capsys.readouterr().err
    assert all(f"warning: {line}\n" in said for line in later)


def test_what_a_backdrop_explains_needs_no_mask(tmp_path):
    made_data.write(tmp_path / "transforms.json", made_data.transforms(tmp_path))
    read = read_config(ROOT / "configs/neus_hash_turntable.yaml", [f"data.path={tmp_path}"])
    assert not list(suits.warnings_before(read, read.data.inspect()))


def test_a_check_of_raw_photographs_warns_too(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "need_pycolmap", lambda: None)
    for kind, mode in (("jpg", "RGB"), ("png", "RGBA")):
        for view in range(4):
            made_data.picture(tmp_path / kind / f"{view}.{kind}", view, mode)
        read = read_config(ROOT / "configs/neus_hash.yaml", [f"data.path={tmp_path / kind}"])
        said = list(suits.warnings_before(read, read.data.inspect()))
        assert any("no background" in line for line in said) == (kind == "jpg")


@pytest.mark.parametrize("name", ["plain", "a b, 'c'", "12", "x: y", "#1", "größe"])
def test_the_command_for_the_shell_reads_back_as_the_path(tmp_path, name):
    path = str(tmp_path / name)
    for given in (path, name):
        words = shlex.split(suits.command("configs/neus_hash.yaml", given, ["data.holdout=0"]))
        assert words[:3] == ["python", "train.py", "configs/neus_hash.yaml"]
        data = read_config(ROOT / words[2], words[3:]).data
        assert data.path == given and data.holdout == 0


def test_prepared_photographs_end_with_their_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(photos, "find_models", Finder([6, 4]))
    monkeypatch.setattr(photos, "need_pycolmap", lambda: None)
    for view in range(10):
        made_data.picture(tmp_path / "in" / f"{view}.png", view)
    out = str(tmp_path / "a b")
    assert prepare.find_poses(str(tmp_path / "in"), out, []) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last)[-1] == f'data.path={json.dumps(out)}' and " configs/neus_hash_" in last
    assert len(AutoData.model_validate({"path": out}).inspect().quantities) == 0


def test_a_look_at_the_data_ends_with_their_command(tmp_path, capsys):
    made_data.write(tmp_path / "transforms.json", made_data.transforms(tmp_path))
    assert prepare.check(str(tmp_path), ["data.holdout=0"], None) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"python train.py configs/neus_hash_open.yaml data.path={tmp_path} data.holdout=0"


def test_a_room_without_depth_is_refused_by_the_check(tmp_path):
    made_data.write(tmp_path / "transforms.json", made_data.transforms(tmp_path))
    data = TransformsData(path=str(tmp_path), region="room")
    for work in (data.check, data.load):
        with pytest.raises(Exception, match="got no depth or points"):
            work()
    made_rgbd.scannet(tmp_path / "room")
    assert "views" in ScannetData(path=str(tmp_path / "room")).check()


def test_what_makes_views_agree_is_named_where_a_config_lacks_it() -> None:
    """Each override named can be given; after it, nothing is left to name."""

    def read(name: str, *overrides: str) -> list[str]:
        return suits.against_parting(read_config(ROOT / f"configs/{name}.yaml", ["data.path=x", *overrides]))

    assert read("neus_hash") == read("neus_hash_open") == []
    lacking = read("neus_hash_open", "losses.background_points=null", "model.foreground.field.init=sphere")
    assert lacking == ["model.foreground.field.init=points", "losses.background_points.type=background_points"]
    assert read("neus_nerfpp") and read("neus_nerfpp", *read("neus_nerfpp")) == []
