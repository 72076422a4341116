"""evaluate.py from the command's point of view: foreign meshes and pictures, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

import evaluate
from tests.engine.evaluation.test_pictures import written
from tests.engine.protocols import test_dtu
from utils.errors import InputError
from utils.meshing.mesh import read_mesh, vertex_colors, write_mesh


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, words)])
    return evaluate.main()


def test_a_foreign_mesh_against_a_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """10 % too large, by the generic protocol: numbers, file of numbers, all vertices equally red."""
    for name, radius in (("ours.obj", 1.1), ("truth.ply", 1.0)):
        write_mesh(tmp_path / name, trimesh.creation.icosphere(subdivisions=4, radius=radius))
    out, errors = tmp_path / "n.json", tmp_path / "e.ply"
    words = ["--mesh", tmp_path / "ours.obj", "--reference", tmp_path / "truth.ply"]
    assert run(monkeypatch, *words, "--out", out, "--error-mesh", errors) == 0
    numbers = json.loads(out.read_text())
    assert numbers["mesh"]["chamfer"] == pytest.approx(0.1, abs=2e-3) and numbers["mesh"]["file"] == "ours.obj"
    assert numbers["references"]["truth.ply"] == numbers["mesh"] and numbers["images"] is None
    colors = vertex_colors(read_mesh(errors))
    assert colors is not None and (colors[:, 0] == 255).all() and colors[:, 1].max() == 0, "beyond 2 % all is red"
    assert "mesh.chamfer" in capsys.readouterr().out


def test_a_foreign_mesh_by_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has units of its own stands by its name."""
    points = np.random.default_rng(0).random((4000, 3)) * [20, 20, 0]
    folder = test_dtu.written(tmp_path / "dtu", points)
    write_mesh(tmp_path / "ours.ply", test_dtu.square(10.0))
    words = ["--mesh", tmp_path / "ours.ply", "--reference", folder, "--protocol", "{type: dtu, scan: 7}"]
    assert run(monkeypatch, *words, "--out", tmp_path / "n.json") == 0
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["protocols"]["dtu"]["overall"] == pytest.approx(10, rel=0.02)
    assert numbers["mesh"] is None and "references" not in numbers


def test_foreign_renderings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "ours", "a.png", 0.5)
    written(tmp_path / "truth", "a.png", 0.6)
    words = ["--renderings", tmp_path / "ours", "--truth", tmp_path / "truth", "--out", tmp_path / "n.json"]
    assert run(monkeypatch, *words) == 0
    numbers = json.loads((tmp_path / "n.json").read_text())["images"]
    assert numbers["psnr"] == pytest.approx(20, abs=0.2) and numbers["per_view"][0]["name"] == "a"
    assert (tmp_path / "n.csv").read_text().startswith("name,psnr,ssim,flip,lpips")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected a run, --mesh and --reference, or --renderings and --truth"),
        (["--mesh", "{0}/m.ply"], "expected a run, --mesh and --reference"),
        (["--renderings", "{0}"], "--renderings DIR --truth DIR"),
        (["{0}", "--renderings", "{0}", "--truth", "{0}"], "no run"),
        (["--mesh", "{0}/m.ply", "--reference", "{0}/no"], "--reference: {0}/no: no such file"),
        (["--mesh", "{0}/m.ply", "--reference", "{0}/m.ply", "--protocol", "dtu"], "scan"),
        (["--mesh", "{0}/m.ply", "--reference", "{0}/m.ply", "--protocol", "generic", "--crop", "1"], "--crop: a key"),
        (["--mesh", "{0}/m.ply", "--heights", "{0}/m.ply", "--error-mesh", "{0}/e.ply"], "--error-mesh"),
        (["--renderings", "{0}", "--truth", "{0}", "--lpips-weights", "{0}/m.ply"], "lpips.LPIPS"),
        (["--renderings", "{0}", "--truth", "{0}/no"], "no such folder"),
        (["--mesh", "{0}/m.ply", "--reference", "{0}/m.ply", "--out", "n.txt"], ".json"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    write_mesh(tmp_path / "m.ply", trimesh.creation.icosphere(subdivisions=1))
    with pytest.raises(InputError) as caught:
        run(monkeypatch, *(word.replace("{0}", str(tmp_path)) for word in words))
    assert said.replace("{0}", str(tmp_path)) in str(caught.value) and "\n" not in str(caught.value)
