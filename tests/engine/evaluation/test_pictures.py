"""The numbers of views: of a run, and of foreign pictures in two folders."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from dataio.cameras import Cameras
from engine.evaluation.foreign import Folders, score_renderings
from engine.evaluation.pictures import Measuring, measure_images
from models.rendering.frames import Frame
from tests.scripts.test_scripts_out import made_up_run
from utils.errors import InputError
from utils.evaluation.results import rendering_name
from utils.evaluation.view_scores import write_views


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ten views of 60 x 40, of which one is held out: 0.1 too bright outside of its mask, 10 % too deep."""
    cameras = made_up_run(tmp_path).cameras
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30] = 255
    cosine = (cameras.rays(torch.full((2400,), 9), cameras.pixel_grid(9)).directions @ cameras.forward[9]).view(40, 60)
    depth = np.full((40, 60), 1.5, np.float32)
    depth[:5] = 0

    def rendered(model: Any, cameras: Cameras, index: int, *, photograph: bool) -> Frame:
        assert photograph
        assert model.background_color.tolist() == [1.0, 1.0, 1.0], "as the photographs were composited"
        color = torch.full((40, 60, 3), 0.3)
        color[10:30] = 0.2
        return Frame(color, 1.65 / cosine, torch.zeros(40, 60, 3), torch.zeros(40, 60))

    monkeypatch.setattr("engine.evaluation.pictures.render_image", rendered)
    return SimpleNamespace(
        splits={"train": np.arange(9), "test": np.array([9]), "val": np.array([], np.int64)},
        background=(1.0, 1.0, 1.0),
        cameras=cameras,
        images=[np.full((40, 60, 3), 51, np.uint8)] * 10,
        masks=[mask] * 10,
        depths=[depth] * 10,
        names=[f"left/view_{i}.jpg" for i in range(10)],
        world_from_scene=np.diag([2.0, 2.0, 2.0, 1.0]),
    )


def made_run(folder: Path) -> Any:
    run = made_up_run(folder)
    run.model = SimpleNamespace(background_color=torch.zeros(3), media=[SimpleNamespace(per_image=None)])
    return run


def test_images_of_a_split(scene: Any, tmp_path: Path, capsys: Any) -> None:
    """Views that are rendered 0.1 too bright score 20 dB; within the mask they are exact; depths are 10 % too large."""
    run = made_run(tmp_path)
    found = measure_images(run, cast(Any, scene), "test", Measuring(keep=tmp_path / "kept"))
    assert found is not None and found["views"] == 1 and found["split"] == "test"
    assert found["psnr"] == pytest.approx(20.0 + 10.0 * np.log10(40 / 20), abs=1e-3)
    assert found["psnr_masked"] > 90.0
    assert 0.0 < found["ssim"] < found["ssim_masked"] < 1.0, "windows reach beyond the mask"
    assert 0.0 < found["flip_masked"] < found["flip"] < 1.0
    assert found["lpips"] is None and "psnr_affine" not in found
    for ending in ("", "_masked"):
        assert found[f"depth_abs_rel{ending}"] == pytest.approx(0.1, abs=1e-5)
        assert found[f"depth_rmse{ending}"] == pytest.approx(0.15 * 2, abs=1e-4), "world units"
        assert [found[f"depth_delta_{power}{ending}"] for power in (1, 2, 3)] == [1, 1, 1]
    assert found["depth_pixels"] == 35 * 60 and found["depth_median_error"] == pytest.approx(0.3, abs=1e-4)
    assert "view_9" in capsys.readouterr().out
    row = found["per_view"][0]
    assert row["name"] == "left/view_9.jpg" and row["psnr"] == found["psnr"]
    kept = np.asarray(Image.open(tmp_path / "kept" / "renderings" / "left_view_9.png"))
    again = score_renderings(Folders(tmp_path / "kept" / "renderings", tmp_path / "kept" / "truth"))
    assert again["psnr"] == pytest.approx(found["psnr"], abs=0.3), "8 bits"
    assert kept.shape == (40, 60, 3) and (kept[15] == 51).all() and (kept[0] == 76).all()
    assert measure_images(run, cast(Any, scene), "val") is None
    with pytest.raises(InputError, match="test, val"):
        measure_images(run, cast(Any, scene), "tets")


def test_views_are_a_table(tmp_path: Path) -> None:
    write_views(tmp_path / "v.csv", [{"name": "a, b", "psnr": 20.0, "ssim": None}, {"name": "c", "flip": 0.5}])
    rows = list(csv.DictReader((tmp_path / "v.csv").read_text("utf-8").splitlines()))
    assert rows[0] == {"name": "a, b", "psnr": "20.0", "ssim": "", "flip": ""}
    assert rows[1]["flip"] == "0.5"
    assert rendering_name("a/b.c/view 1.JPG") == "a_b.c_view 1.png"


def written(folder: Path, name: str, value: float, *, alpha: bool = False, size: int = 40) -> None:
    """A gray picture; alpha: its left half is the object, the rest transparent and black."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size, size, 3), round(255 * value), np.uint8)
    if alpha:
        solid = np.zeros((size, size, 1), np.uint8)
        solid[:, : size // 2] = 255
        pixels = np.concatenate([pixels * (solid > 0), solid], 2)
    Image.fromarray(pixels).save(path)


def test_foreign_renderings(tmp_path: Path) -> None:
    """Half is background, and right; the object is 0.2 too dark: 17 dB in all, 14 within the alpha."""
    ours, truth = tmp_path / "ours", tmp_path / "truth"
    for name in ("r_0.png", "sub/r_1.png"):
        written(truth, name, 0.8, alpha=True)
        written(ours, name, 0.6, alpha=True)
    written(ours, "more.png", 0.1)
    for folder, depth in ((ours, 1.0), (truth, 2.0)):
        np.save(folder / "r_0.npy", np.full((40, 40), depth, np.float32))
    found = score_renderings(Folders(ours, truth))
    assert (found["views"], found["renderings"]) == (2, 3)
    assert found["psnr_masked"] == pytest.approx(-20 * np.log10(0.2), abs=1e-2)
    assert found["psnr"] == pytest.approx(found["psnr_masked"] + 10 * np.log10(2), abs=1e-6)
    assert [row["name"] for row in found["per_view"]] == ["r_0", "sub/r_1"]
    assert (found["depth_abs_rel"], found["depth_rmse"], found["depth_delta_3"]) == (0.5, 1.0, 0.0), "2 > 1.25^3"
    black = score_renderings(Folders(ours, truth, background=(0.0, 0.0, 0.0)))
    assert black["psnr"] == found["psnr"] and black["flip"] != found["flip"]


def test_masks_in_a_folder(tmp_path: Path) -> None:
    for name, value in (("ours", 0.5), ("truth", 0.6), ("masks", 1.0)):
        written(tmp_path / name, "a.jpg" if name == "ours" else "a.png", value)
    folders = Folders(tmp_path / "ours", tmp_path / "truth", tmp_path / "masks")
    found = score_renderings(folders)
    assert found["psnr"] == found["psnr_masked"] == pytest.approx(20, abs=0.2)
    written(tmp_path / "masks", "a.png", 0.0)
    assert score_renderings(folders)["psnr_masked"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ours: (ours / "a.png").unlink(), "no pictures"),
        (lambda ours: (ours / "a.png").rename(ours / "b.png"), "no rendering of 1 of 1 true pictures: a - it has b"),
        (lambda ours: written(ours, "a.jpg", 0.5), "a.jpg and a.png - expected one"),
        (lambda ours: written(ours, "a.png", 0.5, size=20), "got 20 x 20 pixels - expected 40 x 40"),
        (lambda ours: np.save(ours / "a.npy", np.ones((3, 3))), "expected"),
        (lambda ours: (ours / "a.png").write_bytes(b"no picture"), "a.png"),
    ],
)
def test_renderings_that_do_not_fit(tmp_path: Path, change: Any, words: str) -> None:
    for name in ("ours", "truth"):
        written(tmp_path / name, "a.png", 0.5)
        np.save(tmp_path / name / "a.npy", np.ones((40, 40)))
    change(tmp_path / "ours")
    with pytest.raises(InputError, match=words) as caught:
        score_renderings(Folders(tmp_path / "ours", tmp_path / "truth"))
    assert "\n" not in str(caught.value)
