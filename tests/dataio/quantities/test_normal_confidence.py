"""Normals and confidence from hand-made files: the numbers that reach a batch, and one line for what does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dataio.batches import PixelSampler, RayBatch
from dataio.checks.camera_checks import facts
from dataio.checks.doctor import admit
from dataio.checks.photo_checks import normals as normals_found
from dataio.formats.dtu import DtuData
from dataio.formats.transforms import TransformsData
from dataio.quantities.base import quantity
from dataio.scene import Scene
from tests.support import made_data
from tests.support.made_data import HEIGHT, WIDTH
from tests.support.made_photos import COUNT, SIZE, Photos
from utils.errors import InputError

# Two planes, seen by the left and the right half of every picture; nothing is known of the upper quarter.
LEFT, RIGHT = np.array([[0.6, 0.0, 0.8], [-0.48, 0.64, 0.6]])
FAR = {"center": (0.3, -0.2, 0.1), "radius": 2.0}


def normals(pose: np.ndarray) -> np.ndarray:
    """[H, W, 3] of a view, in its camera's frame; pose: its camera-to-world rotation."""
    picture = np.zeros((HEIGHT, WIDTH, 3))
    picture[HEIGHT // 4 :, : WIDTH // 2] = LEFT @ pose[:3, :3]
    picture[HEIGHT // 4 :, WIDTH // 2 :] = RIGHT @ pose[:3, :3]
    return picture


def write_normals(path: Path, normal: np.ndarray) -> None:
    """In the form that the suffix says; .tall.npy has channels first and lengths of seven."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, 7 * normal.transpose(2, 0, 1) if ".tall" in path.name else normal.astype(np.float32))
        return
    most = 65535 if ".16" in path.name else 255
    code: Any = np.rint((normal + 1) / 2 * most).astype(np.uint16 if most > 255 else np.uint8)
    cv2.imwrite(str(path), code[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])


def made_set(folder: Path) -> Scene:
    made_data.transforms(folder)
    for view, pose in enumerate(made_data.ring_poses(10)):
        write_normals(folder / f"normals/{view:03d}.png", normals(pose))
    return load(folder)


def load(folder: Path, **keys) -> Scene:
    return TransformsData(path=str(folder), **{**FAR, **keys}).load()


def batch_of(scene: Scene, rays: int = 600) -> tuple[RayBatch, torch.Tensor]:
    """A batch, and the (column, row) of its rays, float."""
    with PixelSampler(scene, rays=rays, seed=1) as sampler:
        batch = next(sampler)
    return batch, scene.cameras.project(batch.rays.at(torch.ones(len(batch))), batch.rays.camera)[0]


def truth(scene: Scene, batch: RayBatch, place: torch.Tensor, turn: np.ndarray | None = None) -> torch.Tensor:
    """[R, 3] scene normals of the rays at (column, row) [R, 2]; turn: scene from world."""
    planes = torch.from_numpy(np.stack([LEFT, RIGHT]) @ (np.eye(3) if turn is None else turn).T).float()
    size = scene.cameras.size[batch.rays.camera]
    expected = planes[(place[:, 0] > size[:, 0] / 2).long()]
    return expected * (place[:, 1] > size[:, 1] / 4)[:, None]


@pytest.mark.parametrize("downscale", [1, 2])
@pytest.mark.parametrize(
    ("name", "error"), [("a.png", 0.006), ("a.16.png", 4e-5), ("a.jpg", 0.03), ("a.npy", 4e-5), ("a.tall.npy", 4e-5)]
)
def test_a_plane_has_its_normal(tmp_path, name, error, downscale) -> None:
    made_data.transforms(tmp_path)
    for view, pose in enumerate(made_data.ring_poses(10)):
        kept = tmp_path / f"normals/{view:03d}{Path(name).suffix}"
        write_normals(tmp_path / "normals" / name, normals(pose))
        (tmp_path / "normals" / name).rename(kept)
    scene = load(tmp_path, downscale=downscale)
    batch, place = batch_of(scene)
    found, expected = batch.pixel("normal"), truth(scene, batch, place)
    assert found is not None and found.dtype == torch.float32 and scene.has("normal")
    off = (found - expected).norm(dim=-1)
    # A JPEG has no edges: half its pixels are blocks with one.
    assert off.quantile(0.4 if name == "a.jpg" else 1.0) < error
    if name != "a.jpg":
        assert torch.equal(found.any(-1), expected.any(-1))
    lengths = found.norm(dim=-1)
    assert torch.allclose(lengths[lengths > 0], torch.ones(()), atol=1e-5)
    assert batch.total("normal") == found.any(-1).sum() == batch.known("normal").sum()
    assert scene.quantities["normal"][0].shape == (HEIGHT // downscale, WIDTH // downscale, 3)


def rotation(seed: int) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return turn * np.linalg.det(turn)


def test_normals_turn_with_the_frame(tmp_path) -> None:
    """That of another scene, and a unit sphere of the data's own that is turned."""
    scene = made_set(tmp_path)
    other = np.eye(4)
    other[:3, :3], other[:3, 3] = 0.7 * rotation(0), (1, 2, 3)
    moved = scene.reframed(other)
    batch, place = batch_of(moved)
    assert (batch.quantities["normal"] - truth(moved, batch, place, rotation(0).T)).norm(dim=-1).max() < 0.006
    scale = np.eye(4)
    scale[:3, :3] = 1.5 * rotation(1)
    folder = tmp_path / "dtu"
    scales: dict[str, Any] = {f"scale_mat_{view}": scale for view in range(10)}
    made_data.dtu(folder, **scales)
    for view, pose in enumerate(made_data.ring_poses(10)):
        write_normals(folder / f"normals/{view:06d}.npy", normals(pose))
    scene = DtuData(path=str(folder)).load()
    batch, place = batch_of(scene)
    assert (batch.quantities["normal"] - truth(scene, batch, place, rotation(1).T)).norm(dim=-1).max() < 4e-5


def test_what_is_no_direction_is_unknown(tmp_path) -> None:
    path = tmp_path / "n.png"
    colors = [(0, 0, 0), (255, 255, 255), (127, 127, 127), (128, 128, 128), (128, 128, 255)]
    Image.fromarray(np.array([colors], np.uint8)).save(path)
    np.testing.assert_array_equal(quantity("normal").read(path)[0].any(-1), [False, False, False, False, True])
    np.save(tmp_path / "n.npy", np.array([[[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0], [0, 0, -1e-3]]], np.float32))
    np.testing.assert_array_equal(quantity("normal").read(tmp_path / "n.npy")[0], [[0] * 3] * 3 + [[0, 0, -32767]])


SHARES = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize(("suffix", "most"), [(".png", 255), (".png", 65535), (".npy", None)])
def test_confidence_has_the_numbers_of_its_files(tmp_path, suffix, most) -> None:
    content = made_data.transforms(tmp_path)
    for view, frame in enumerate(content["frames"]):
        frame["confidence_path"] = f"c{view}{suffix}"  # not in the folder of that name: by a key
        if most is None:
            np.save(tmp_path / f"c{view}.npy", SHARES)
        else:
            code = np.rint(SHARES * most).astype(np.uint8 if most == 255 else np.uint16)
            Image.fromarray(code).save(tmp_path / f"c{view}.png")
    made_data.write(tmp_path / "transforms.json", content)
    scene = load(tmp_path, holdout=0)
    batch, place = batch_of(scene)
    found = batch.pixel("confidence")
    assert found is not None and found.min() >= 0 and found.max() <= 1
    expected = torch.from_numpy(SHARES).float()[place[:, 1].long(), place[:, 0].long()]
    torch.testing.assert_close(found, expected, atol=0.5 / (most or 65535) + 1e-6, rtol=0)
    torch.testing.assert_close(batch.total("confidence"), found.sum())
    assert batch.pixel("normal") is None and not scene.has("normal")


def test_keys_of_frames_go_before_folders(tmp_path) -> None:
    content = made_data.transforms(tmp_path)
    for view, frame in enumerate(content["frames"]):
        frame["normal_file_path"] = f"named/{view}.npy"
        write_normals(tmp_path / f"named/{view}.npy", np.tile([0.0, 0.0, -1.0], (HEIGHT, WIDTH, 1)))
        write_normals(tmp_path / f"normals/{view:03d}.npy", np.tile([1.0, 0.0, 0.0], (HEIGHT, WIDTH, 1)))
    made_data.write(tmp_path / "transforms.json", content)
    scene = load(tmp_path)
    batch, _ = batch_of(scene)
    torch.testing.assert_close(batch.quantities["normal"], -scene.cameras.forward[batch.rays.camera], atol=1e-6, rtol=0)


def test_the_folder_may_lie_at_the_root_and_split_files_share_it(tmp_path) -> None:
    """Blender's splits, whose pictures have the same names."""
    content = made_data.transforms(tmp_path)
    (tmp_path / "transforms.json").unlink()
    for split, frames in (("train", content["frames"][:6]), ("test", content["frames"][6:])):
        for number, frame in enumerate(frames):
            frame["file_path"] = f"{split}/{number}"
            made_data.picture(tmp_path / f"{split}/{number}.png", number)
            direction = (-1.0, 0.0, 0.0) if split == "train" else (0.0, -1.0, 0.0)
            write_normals(tmp_path / f"normals/{split}/{number}.npy", np.tile(direction, (HEIGHT, WIDTH, 1)))
        made_data.write(tmp_path / f"transforms_{split}.json", {**content, "frames": frames})
    scene = load(tmp_path)
    assert [each[0, 0].argmin() for each in scene.quantities["normal"]] == [0] * 6 + [1] * 4
    for split in ("train", "test"):
        for path in (tmp_path / "normals" / split).iterdir():
            path.rename(tmp_path / "normals" / path.name)
    with pytest.raises(InputError, match=r"normals/0\.npy - got .*train/0\.png and .*test/0\.png - expected one"):
        load(tmp_path)


def test_they_can_be_switched_off_and_asked_for(tmp_path, capsys) -> None:
    made_set(tmp_path)
    assert not load(tmp_path, quantities=()).quantities
    assert set(load(tmp_path, quantities=("normal",)).quantities) == {"normal"}
    with pytest.raises(InputError, match=r"data\.quantities: confidence - .*confidence/ beside the pictures"):
        load(tmp_path, quantities=("normal", "confidence"))
    with pytest.raises(ValidationError, match=r"'depth' is no quantity of this kind; choices: confidence, normal"):
        TransformsData(quantities=("depth",))
    made_data.mask(tmp_path / "confidence/of_nothing.png")
    assert not load(tmp_path).has("confidence")
    assert "confidence - no file in it has the name of a picture: not read" in capsys.readouterr().err


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def gray(path: Path) -> None:
    made_data.picture(path, mode="L")


def small(path: Path) -> None:
    made_data.picture(path, size=(WIDTH // 2, HEIGHT))


def flat(path: Path) -> None:
    path.unlink()
    np.save(path.with_suffix(".npy"), np.zeros((HEIGHT, WIDTH), np.float32))


def whole_numbers(path: Path) -> None:
    path.unlink()
    np.save(path.with_suffix(".npy"), np.zeros((HEIGHT, WIDTH, 3), np.int32))


def pickled(path: Path) -> None:
    path.unlink()
    np.save(path.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)


def linked(path: Path) -> None:
    target = path.parent.parent.parent / "outside.png"
    path.rename(target)
    path.symlink_to(target)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, r"normals - has none for .*images/003\.png, 9 of 10 pictures have one - expected all or"),
    "other size": (small, r"normals/003\.png - got 12 x 16 pixels - expected 24 x 16 as its image has"),
    "gray": (gray, r"normals/003\.png - got L pixels - expected three channels of 8 or 16 bits"),
    "flat": (flat, r"normals/003\.npy - got float32 \(16, 24\) - expected floats \[H,W,3\] or \[3,H,W\]"),
    "whole numbers": (whole_numbers, r"normals/003\.npy - got int32 \(16, 24, 3\) - expected floats"),
    "pickled": (pickled, r"normals/003\.npy - cannot be read as \.npy"),
    "linked": (linked, r"normals/003\.png - got '003\.png'|normals/003\.png.*leads out of"),
    "cut short": (cut, r"normals/003\.png - damaged image"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_one_line(tmp_path, case) -> None:
    """When they are loaded, and before that by --check, which decodes nothing."""
    folder = tmp_path / "data"
    folder.mkdir()
    made_set(folder)
    change, line = BAD[case]
    change(folder / "normals/003.png")
    with pytest.raises(InputError, match=line) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    if case != "cut short":
        with pytest.raises(InputError, match=line):
            TransformsData(path=str(folder)).check()


def test_a_named_file_that_is_missing_is_one_line(tmp_path) -> None:
    content = made_data.transforms(tmp_path)
    for frame in content["frames"]:
        frame["normal_path"] = "gone.png"
    made_data.write(tmp_path / "transforms.json", content)
    with pytest.raises(InputError, match=r"gone\.png - no such file - expected it for .*000\.png"):
        TransformsData(path=str(tmp_path)).check()
    with pytest.raises(InputError, match=r"gone\.png - no such"):
        load(tmp_path)
    content["frames"][4]["normal_path"] = 7
    made_data.write(tmp_path / "transforms.json", content)
    with pytest.raises(InputError, match=r"frames\[4\]\.normal_path - got 7 - expected a file's path"):
        load(tmp_path)
    del content["frames"][4]["normal_path"]
    made_data.write(tmp_path / "transforms.json", content)
    with pytest.raises(InputError, match="normal_path - 9 of 10 frames have it - expected all or none"):
        load(tmp_path)


def test_confidence_outside_of_its_range_is_one_line(tmp_path) -> None:
    np.save(tmp_path / "c.npy", np.array([[0.5, 1.5]]))
    with pytest.raises(InputError, match=r"c\.npy - got 0\.5 to 1\.5 - expected numbers in 0 to 1"):
        quantity("confidence").read(tmp_path / "c.npy")
    np.save(tmp_path / "c.npy", np.array([[np.nan, 1.0]]))
    assert quantity("confidence").read(tmp_path / "c.npy").tolist() == [[0, 65535]]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_doctor_knows_normals_of_other_axes(tmp_path, sign) -> None:
    """Of a rough wall, as OpenCV has it, and with y and z negated."""
    folder = Photos().write(tmp_path / "data")
    random = np.random.default_rng(0)
    for view in range(COUNT):
        normal = random.normal(size=(SIZE, SIZE, 3)) * 0.3 - [0, 0, 1]
        write_normals(folder / f"normals/{view:03d}.npy", normal * [1, sign, sign])
    patient = admit(TransformsData(path=str(folder), holdout=0))
    found = list(normals_found(patient))
    assert len(found) == (sign < 0) and dict(facts(patient))["also per pixel"] == "normal"
    for finding in found:
        assert finding.severity == "warning" and len(finding.views) == COUNT
        assert "normals point away from their camera" in finding.text and "y and z negated" in finding.fix
