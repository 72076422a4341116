"""The page of a run: that it holds what the folder does, harmless, alone, and that it never stops a run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from engine.report import page as pages
from engine.report.contents import files_and_commands, read_contents
from engine.report.surface_view import FRUSTUM, camera_lines, coarser, seen_from
from tests.support import browser
from tests.support.made_runs import HELD_OUT, HOSTILE, RADIUS, VIEWS, ball, ring_cameras, write_run
from utils.commands import note_command, noted_commands
from utils.errors import InputError
from utils.meshing.mesh import vertex_colors


def test_a_page_has_all_of_a_run_and_needs_nothing(tmp_path: Path) -> None:
    page = pages.page(read_contents(write_run(tmp_path / "run")))
    assert "<img src=x" not in page and "\x1b" not in page and page.count("&lt;img src=x") >= 5
    assert page.count("<script>") == 1 and page.count("<script") == 2, "one runs, one holds numbers"
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]{0,24})', page)
    assert all(link.startswith(("data:", "videos/")) for link in links) and "http" not in page.replace("http-equiv", "")
    for words in ("31.25 dB", "python extract_mesh.py", "step 0: ", "30.5", "Cameras from above", "data:video/mp4"):
        assert words in page, words
    assert page.count("<circle") == VIEWS + 1 and page.count('fill="#e90"') == HELD_OUT


def test_contents_are_what_is_whole(tmp_path: Path) -> None:
    contents = read_contents(write_run(tmp_path))
    assert contents.warnings == [(0, HOSTILE)], "said twice, shown once"
    assert contents.curves["train/loss"].values[:2].tolist() == [1.0, 0.5]
    assert len(contents.curves["train/loss"].steps) == 100, "a torn line is none"
    assert np.isnan(contents.curves["val/psnr"].values).all() and contents.step == 100
    assert contents.views_picture == tmp_path / "images/step_00000100.png"


def test_a_page_of_little_says_what_is_lacking(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}", "utf-8")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/step_00000001.png").write_bytes(b"\x89PNG cut")
    assert "no complete checkpoint" in pages.page(read_contents(tmp_path))
    with pytest.raises(InputError, match="expected a run folder"):
        read_contents(tmp_path / "images")


@pytest.mark.parametrize("name", ["metrics.jsonl", "messages.jsonl", "metrics.json", "meshes/mesh.ply"])
def test_damaged_files_cost_their_part_alone(tmp_path: Path, name: str) -> None:
    write_run(tmp_path)
    (tmp_path / name).write_bytes(b'{"step": 1, "x": [\xff')
    assert "Surface and cameras" in pages.page(read_contents(tmp_path))


def test_a_page_is_worth_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_: object) -> str:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr(pages, "page", breaks)
    pages.try_to_write(write_run(tmp_path))
    pages.try_to_write(tmp_path / "nothing")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(line.startswith("warning: ") for line in said) and "(no room)" in said[0]


def test_commands_are_kept_with_the_files_they_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "a run")
    monkeypatch.setattr(sys, "argv", ["/far/away/render.py", "a run", "--modes", "rgb"])
    folder = tmp_path / "a run"
    note_command(folder, [folder / "videos/a'b.mp4", tmp_path / "elsewhere.mp4"])
    assert noted_commands(folder) == {"videos/a'b.mp4": "python render.py 'a run' --modes rgb"}
    made = {name: command for name, _, command in files_and_commands(folder)}
    assert made["videos/a'b.mp4"] == "python render.py 'a run' --modes rgb"
    assert made["meshes/mesh.ply"] == f"python extract_mesh.py '{folder}'"
    assert {"checkpoints/", "images/", "config.yaml", "metrics.json"} <= made.keys()
    (folder / "commands.json").write_text('{"x": 3, "y": "z"}')
    assert noted_commands(folder) == {"y": "z"}


def test_camera_lines_are_the_edges_of_pictures() -> None:
    """From the center to the corners, FRUSTUM before it; two of the cameras are held out."""
    cameras = ring_cameras()
    lines = camera_lines(cameras, np.arange(VIEWS)[-HELD_OUT:]).reshape(VIEWS, 8, 2, 6)
    for view in (0, VIEWS - 1):
        center = cameras.centers[view].numpy()
        assert np.allclose(lines[view, :4, 0, :3], center, atol=1e-6)
        pixels, depth = cameras.project(torch.from_numpy(lines[view, :4, 1, :3].copy()), view)
        assert torch.allclose(depth, torch.tensor(FRUSTUM), atol=1e-5)
        assert pixels.numpy() == pytest.approx(np.array([[0, 0], [60, 0], [60, 40], [0, 40]]), abs=1e-2)
    assert (lines[0, 0, 0, 3:] != lines[-1, 0, 0, 3:]).any()


def test_what_is_seen_from_one_side_is_shown_from_there() -> None:
    """Not its back: from the middle of a third of a ring, from above for a flight; of a whole ring from the first."""
    ring, up = ring_cameras(), np.array([0.0, 0.0, 1.0])
    back = -ring.camera_to_world[:, :, 2].double().numpy()
    assert seen_from(ring, up) == pytest.approx(back[0], abs=1e-6)
    third = ring[: VIEWS // 3]
    mean = back[: VIEWS // 3].mean(0)
    assert seen_from(third, up) == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    poses = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (5, 1, 1))
    poses[:, :3, 3] = [[x, 0.0, 3.0] for x in range(5)]
    flight = Cameras.make(poses, np.tile([60.0, 60.0, 30.0, 20.0], (5, 1)), np.tile([60, 40], (5, 1)))
    assert seen_from(flight, up) == pytest.approx(up)


def test_large_meshes_are_made_coarser() -> None:
    mesh = ball()
    assert coarser(mesh, len(mesh.faces)) is mesh
    coarse = coarser(mesh, 400)
    assert 100 < len(coarse.faces) <= 400
    assert np.linalg.norm(coarse.vertices, axis=1) == pytest.approx(RADIUS, abs=0.05)
    colors, side = vertex_colors(coarse), coarse.vertices[:, 0]
    assert colors is not None and (colors[side > 0.1, 0] > 200).all() and (colors[side < -0.1, 2] > 200).all()


def test_in_a_browser_the_surface_is_drawn_and_turns(tmp_path: Path) -> None:
    path = pages.write_report(write_run(tmp_path))
    assert json.loads((tmp_path / "commands.json").read_text())["report.html"]
    with browser.opened(path.as_uri()) as (page, said):
        read = """() => { const gl = document.getElementById("surface").getContext("webgl2");
            const at = new Uint8Array(4); gl.readPixels(450, 280, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, at);
            return Array.from(at); }"""
        before = page.evaluate(read)
        canvas = page.locator("#surface")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 100 + 3.14159 / 0.008, box["y"] + 100)  # half a turn
        page.mouse.up()
        page.wait_for_timeout(100)
        after = page.evaluate(read)
        errors = [line for line in said if "video" not in line.lower()]
    assert errors == []
    red, blue = sorted((before, after), key=lambda color: -color[0])
    assert red[0] > 150 and red[2] < 60 and blue[2] > 150 and blue[0] < 60, "the other half of the ball"
