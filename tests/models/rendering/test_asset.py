"""Assets: what is written is read again, and what is damaged or foreign is refused with one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from models.rendering.asset import ARRAYS, Asset, is_asset
from models.rendering.baked import bake, with_colors
from tests.models.rendering.test_renderers import WORLD, camera, truth
from tests.models.test_surface import CASES, surface_model
from tests.support.analytic import RADIUS, color_at
from utils.errors import InputError


def made(resolution: int = 48, halves: bool = True) -> Asset:
    volume = surface_model(*CASES["logistic"]).foreground
    baked = bake(volume, resolution)
    baked = with_colors(baked.in_halves() if halves else baked, volume)
    return Asset(baked, camera(), (1.0, 0.5, 0.25), WORLD, np.array([0.0, 0.0, 1.0]), "m")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asset")
    made().write(folder)
    return folder


@pytest.mark.parametrize("halves", [False, True])
def test_what_is_written_is_read(tmp_path: Path, halves: bool) -> None:
    asset = made(20, halves)
    size = asset.write(tmp_path / "new")
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(tmp_path / "new")) for path in files) == sorted([*ARRAYS, "asset.json"])
    assert size == sum(path.stat().st_size for path in files if path.suffix == ".npy")
    read = Asset.open(tmp_path / "new")
    assert torch.equal(read.baked.values, asset.baked.values) and read.baked.values.dtype == asset.baked.values.dtype
    assert read.baked.colors is not None and asset.baked.colors is not None
    assert torch.equal(read.baked.colors, asset.baked.colors) and read.baked.trust == asset.baked.trust == 1
    mine, theirs = asset.cameras.state(), read.cameras.state()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in mine.items())
    assert (read.world_from_scene == WORLD).all() and read.up.tolist() == [0, 0, 1] and read.units == "m"
    assert read.background == (1.0, 0.5, 0.25)


def test_it_renders_color_depth_and_normal(written: Path) -> None:
    frame = Asset.open(written).renderer("cpu")(camera(), 0)
    _, clear, depth, points = truth()
    assert (frame.opacity[clear] == 1).all() and (frame.depth - depth)[clear].abs().median() < 0.25 * 2 / 47
    torch.testing.assert_close(frame.color[clear], color_at(points)[clear], atol=0.03, rtol=0)
    torch.testing.assert_close(frame.normal[clear], points[clear] / RADIUS, atol=0.03, rtol=0)
    torch.testing.assert_close(frame.color[0, 0], torch.tensor([1.0, 0.5, 0.25]))


def test_the_bounds_are_those_of_the_sphere(written: Path) -> None:
    lower, upper = json.loads((written / "asset.json").read_text())["bounds"]
    cell = 2 / 47
    for low, high in zip(lower, upper, strict=True):
        assert -RADIUS - 2 * cell < low < -RADIUS + 1e-6 and RADIUS - 1e-6 < high < RADIUS + 2 * cell


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "asset.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def described(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes in a file's place, with a description that fits."""
    (folder / name).write_bytes(data)
    entry = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    changed(folder, lambda tree: tree["files"].update({name: entry}))


def saved(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def flipped(folder: Path) -> None:
    data = bytearray((folder / "colors.npy").read_bytes())
    data[-1] ^= 1
    (folder / "colors.npy").write_bytes(data)


def huge(folder: Path) -> None:
    """A header that claims more than any memory holds."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (100_000,) * 3}
    np.lib.format.write_array_header_1_0(buffer, header)
    described(folder, "values.npy", buffer.getvalue() + bytes(64))


def unfinished(folder: Path) -> None:
    (folder / "values.npy").write_bytes((folder / "values.npy").read_bytes()[:-7])


def text(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "asset.json").write_text(content)

    return write


def entry(*keys: str, value: Any) -> Callable[[Path], None]:
    def change(tree: dict[str, Any]) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return lambda folder: changed(folder, change)


def array(name: str, values: Any) -> Callable[[Path], None]:
    return lambda folder: described(folder, name, saved(np.array(values)))


def missing(folder: Path) -> None:
    (folder / "cameras/near.npy").unlink()


def pickled(folder: Path) -> None:
    described(folder, "colors.npy", saved(np.array([{}], object), allow_pickle=True))


CUBE = np.full((48, 48, 48), np.nan, np.float16)
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped bit": (flipped, "colors.npy: not the content"),
    "cut short": (unfinished, "values.npy: .* bytes - expected"),
    "missing file": (missing, "near.npy: cannot be read"),
    "huge header": (huge, "values.npy: not as many numbers"),
    "objects": (pickled, r"colors.npy: object \[1\]"),
    "no array": (lambda folder: described(folder, "values.npy", b"hello"), "values.npy: not a plain .npy"),
    "other type": (array("values.npy", np.zeros((4, 4, 4), np.int64)), "values.npy: int64"),
    "big endian": (array("cameras/near.npy", np.zeros(1, ">f4")), "near.npy: >f4"),
    "no cube": (array("values.npy", np.zeros((4, 4, 5), np.float16)), r"expected float16 or float32 \[5, 5, 5\]"),
    "other lengths": (array("colors.npy", np.zeros((4, 4, 4, 3), np.uint8)), r"expected uint8 \[48, 48, 48, 3\]"),
    "nan": (array("values.npy", CUBE), "values.npy: has numbers that are not finite"),
    "lens": (array("cameras/lens.npy", np.array([99])), "lens.npy"),
    "focal length": (array("cameras/intrinsics.npy", np.zeros((1, 4), np.float32)), "focal lengths above 0"),
    "size": (array("cameras/size.npy", np.array([[0, 4]])), "size.npy: expected a camera"),
    "distortion": (array("cameras/distortion.npy", np.zeros((1, 3), np.float32)), "8 or 12"),
    "pose": (array("cameras/camera_to_world.npy", np.zeros((1, 3, 4), np.float32)), "no ray through its center"),
    "empty": (text(""), "asset.json: not readable JSON"),
    "deep": (text("[" * 100_000), "asset.json: not readable JSON"),
    "list": (text("[]"), "format is 'None'"),
    "too long": (text(" " * (2 << 20)), "larger than 1 MB"),
    "newer": (entry("format", value=2), "format is '2' - expected an asset of format 1"),
    "other renderer": (entry("renderer", "type", value="splats"), "renderer.type"),
    "nan in json": (entry("background", value=[float("nan"), 0, 0]), "background"),
    "background": (entry("background", value=[2.0, 0.0, 0.0]), r"a color in \[0, 1\]"),
    "no up": (entry("frame", "up", value=[0.0, 0.0, 0.0]), "frame.up"),
    "frame": (entry("frame", "world_from_scene", value=np.zeros((4, 4)).tolist()), "similarity"),
    "unknown key": (entry("license", value="none"), "license"),
    "outside": (entry("files", "../other.npy", value={"bytes": 1, "sha256": 64 * "0"}), "unknown '../other.npy'"),
    "digest": (entry("files", "values.npy", "sha256", value="abc"), "files.values.npy.sha256"),
    "negative size": (entry("files", "values.npy", "bytes", value=-1), "files.values.npy.bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_and_foreign_ones_are_refused(written: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "asset"
    shutil.copytree(written, folder)
    damage, said = WRONG[name]
    damage(folder)
    with pytest.raises(InputError, match=said) as caught:
        Asset.open(folder)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 600


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert not is_asset(tmp_path) and not is_asset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no asset.json in it"):
        Asset.open(tmp_path)


def test_cameras_of_every_kind_survive(tmp_path: Path) -> None:
    asset = made(16)
    lens = torch.tensor([0, 1])
    cameras = Cameras.make(asset.cameras.camera_to_world.repeat(2, 1, 1), [50.0, 50, 20, 10], [40, 20], lens=lens)
    Asset(asset.baked, cameras, asset.background, WORLD, asset.up).write(tmp_path)
    assert Asset.open(tmp_path).cameras.lens.tolist() == [0, 1]
